"""The page of a check: what it shows, that it is harmless whatever files are called, and that it stays small."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.quality.check import check_data
from pipeline.data.source import Finding
from pipeline.records import ImageSpec
from pipeline.reports.check_page import check_page
from tests.data.checked import Row, make_cache, make_source, many

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\u202egpj'


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def page_of(folder: Path, rows: list[Row], spec: ImageSpec | None = None, **changes: Any) -> str:
    source, cache = make_source(rows, **changes), make_cache(folder, rows, spec)
    return check_page(check_data(source, cache), source, cache)


def test_verdict_advice_and_every_kind_of_finding_are_shown(tmp_path):
    rows = [
        *many("cat", 20, "train"), *many("dog", 15, "train"), *many("cat", 3, "test"), *many("dog", 3, "test"),
        Row("train/a.png", "cat", "train", near=0), Row("test/a.png", "cat", "test", near=0),
        Row("train/b.png", "cat", "train", exact=0, near=1), Row("train/c.png", "dog", "train", exact=0, near=1),
        Row("train/d.png", "dog", "train", code="corrupt"),
    ]  # fmt: skip
    page = page_of(tmp_path, rows)
    reader = Reader(page)
    text = "\n".join(reader.words)
    assert "a search would mislead" in text
    assert "The given split leaks: 1 cluster of near-duplicates" in text
    titles = ["In more than one split", "The same under two labels", "Exact duplicates", "Near duplicates"]
    assert [title for title in titles if title in reader.words] == titles
    first = reader.words.index("train/d.png")
    assert reader.words[first : first + 4] == ["train/d.png", "corrupt", "it is corrupt", "no"]
    assert reader.tags.count("img") == 2 * 12 + 2 + 2 + 2 + 2


def test_a_class_shows_twelve_images_spread_over_it(tmp_path):
    page = page_of(tmp_path, [*many("cat", 100), *many("dog", 5)])
    assert len(re.findall(r'title="all/cat/\d+\.png"', page)) == 12
    assert 'title="all/cat/0.png"' in page
    assert 'title="all/cat/99.png"' in page
    assert len(re.findall(r'title="all/dog/\d+\.png"', page)) == 5


def test_hostile_names_are_text_and_the_page_loads_and_runs_nothing(tmp_path):
    rows = [*many(EVIL, 12), *many("dog", 12), Row(f"{EVIL}.png", "dog", code="corrupt"), Row("\udcff", "dog", near=0)]
    rows += [Row(f"{EVIL}-2.png", "dog", near=0)]
    odd = Finding("c", "remark\u202e", "", used=True)
    page = page_of(tmp_path, rows, left_out=(Finding("a\nb", "unsupported", EVIL), odd))
    reader = Reader(page)
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for name, value in reader.attributes if name == "src")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in [value for _, value in reader.attributes]
    assert "\u202e" not in page
    assert EVIL.replace("\u202e", "\\u202e") in reader.words
    assert "a\\nb" in reader.words
    assert page.encode("utf-8")


@pytest.mark.heavy
def test_a_page_of_many_noisy_classes_and_findings_stays_below_5_mb(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row for number in range(60) for row in many(f"class {number}", 20)]
    for number in range(80):
        name = "x" * int(rng.integers(100, 240))
        rows += [Row(f"{copy}/{name}", "class 0", exact=number, near=number) for copy in range(9)]
    rows += [Row(f"{'y' * 200}/{number}", "class 1", code="corrupt") for number in range(2000)]
    page = page_of(tmp_path, rows, ImageSpec(64, 64, 3))
    assert 1_000_000 < len(page.encode()) < 5_000_000
    text = "\n".join(Reader(page).words)
    assert "and 20 more classes" in text
    assert "and 1,500 more; all are in the output of --json" in text
    assert "and 3 more" in text
    assert "80, the first 50 are shown" in text


def test_a_set_without_a_usable_image_still_has_a_page(tmp_path):
    page = page_of(tmp_path, [Row("a", "cat", code="empty"), Row("b", "dog", code="empty")])
    assert "Usable images of 0 classes" in page
