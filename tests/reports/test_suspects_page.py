"""The page of suspicious labels: what it shows, in which order, and that foreign names stay text."""

import base64
import io
import re

import numpy as np
from PIL import Image

from pipeline.reports.suspects_page import MAX_IMAGES, suspects_page


def facts(paths, num_images=1000):
    suspects = [
        {"path": path, "label": "<b>cat", "suggested": "dog", "p_label": 0.0123, "p_suggested": 0.9, "split": "train"}
        for path in paths
    ]
    return {
        "study": "photos-1",
        "num_images": num_images,
        "num_folds": 4,
        "estimated_errors": 12,
        "accuracy": 0.9876,
        "suspects": suspects,
    }


def test_each_suspect_is_shown_with_its_own_picture_and_both_labels():
    images = np.stack([np.full((6, 5, 3), brightness, np.uint8) for brightness in (10, 20, 30)])
    page = suspects_page(facts(["a.png", "b.png"]), np.array([2, 0]), images)
    pictures = [base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    shown = [np.asarray(Image.open(io.BytesIO(content))) for content in pictures]
    assert [pixels[0, 0].tolist() for pixels in shown] == [[30, 30, 30], [10, 10, 10]]
    assert page.count("rather dog 90.0%") == 2
    assert page.index("1. &lt;b&gt;cat 1.2%") < page.index("2. &lt;b&gt;cat 1.2%")
    assert page.index("a.png") < page.index("b.png")
    assert "<b>12</b>" in page
    assert "98.76%" in page


def test_names_are_text_and_nothing_is_loaded_or_run():
    path = 'x"><script>alert(1)</script>\u202egnp.exe\x1b[31m'
    page = suspects_page(facts([path]), np.array([0]), np.zeros((1, 4, 4, 1), np.uint8))
    assert "<script" not in page
    assert "<b>cat" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_only_the_first_images_are_shown_and_the_page_says_so():
    paths = [f"{number}.png" for number in range(MAX_IMAGES + 50)]
    page = suspects_page(facts(paths), np.arange(len(paths)), np.zeros((len(paths), 4, 4, 1), np.uint8))
    assert page.count("<img") == MAX_IMAGES
    assert "the first 200 of 250 listed" in page


def test_deep_pixels_are_stretched_to_be_seen():
    images = np.arange(16, dtype=np.uint16).reshape(1, 4, 4, 1) * 4000
    page = suspects_page(facts(["deep.tif"]), np.array([0]), images)
    content = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
    assert np.asarray(Image.open(io.BytesIO(content))).max() == 255
