"""Copies are found whatever became of them since, and pictures that are merely alike are left apart."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pipeline.data.similarity import duplicates
from pipeline.data.similarity.clusters import clusters_of, components, numbered
from pipeline.data.similarity.duplicates import find_duplicates
from pipeline.data.similarity.thumbnails import THUMB_SIDE, thumbnails

pytestmark = pytest.mark.heavy  # many cases: seconds

COUNT = 60


def picture(seed, side=48):
    """Return a smooth random picture, unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "JPEG 90": lambda image: encoded(image, 90),
    "JPEG 50": lambda image: encoded(image, 50),
    "half size": lambda image: image.resize((24, 24), Image.Resampling.BILINEAR),
    "double size": lambda image: image.resize((96, 96), Image.Resampling.BILINEAR),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
}


def stack_of(images):
    return np.stack([np.asarray(image.convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)) for image in images])


def near_of(stack):
    """Return the near clusters of pictures, none of which is an exact copy."""
    digests = np.random.default_rng(9).integers(0, 256, (len(stack), 16), dtype=np.uint8)
    return find_duplicates(thumbnails(stack), digests, np.ones(len(stack), bool)).near


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_found(name):
    originals = [picture(seed) for seed in range(COUNT)]
    copies = [CHANGES[name](image) for image in originals]
    near = near_of(stack_of([*originals, *copies]))
    assert ((near[:COUNT] == near[COUNT:]) & (near[:COUNT] >= 0)).sum() >= COUNT - 1


def test_different_pictures_are_left_apart():
    assert (near_of(stack_of([picture(seed) for seed in range(300)])) == -1).all()


@pytest.mark.heavy  # imports scikit-learn
def test_digits_of_one_class_are_no_copies_of_each_other():
    from sklearn.datasets import load_digits

    images = (load_digits().images * 15).astype(np.uint8)[..., None]
    assert (near_of(images) >= 0).mean() < 0.02


def test_nearly_uniform_pictures_are_copies_only_if_their_pixels_are_equal():
    rng = np.random.default_rng(0)
    stack = (128 + rng.integers(-1, 2, (40, 32, 32, 1))).astype(np.uint8)
    digests = rng.integers(0, 256, (40, 16), dtype=np.uint8)
    digests[7] = digests[3]
    found = find_duplicates(thumbnails(stack), digests, np.ones(40, bool))
    assert clusters_of(found.near) == clusters_of(found.exact) == [[3, 7]]


def test_exact_copies_are_near_copies_and_unusable_images_are_neither():
    stack = stack_of([picture(0), picture(0), picture(1), picture(0)])
    digests = np.array([[1] * 16, [1] * 16, [2] * 16, [1] * 16], np.uint8)
    found = find_duplicates(thumbnails(stack), digests, np.array([True, True, True, False]))
    assert found.exact.tolist() == found.near.tolist() == [0, 0, -1, -1]


def test_the_order_of_the_images_does_not_matter():
    images = [picture(seed) for seed in range(40)] + [encoded(picture(seed), 70) for seed in range(10)]
    order = np.random.default_rng(1).permutation(50)
    stack = stack_of(images)
    digests = np.random.default_rng(9).integers(0, 256, (50, 16), dtype=np.uint8)
    whole = find_duplicates(thumbnails(stack), digests, np.ones(50, bool)).near
    shuffled = find_duplicates(thumbnails(stack[order]), digests[order], np.ones(50, bool)).near
    pairs = {tuple(cluster) for cluster in clusters_of(whole)}
    assert {tuple(sorted(order[cluster].tolist())) for cluster in clusters_of(shuffled)} == pairs
    assert len(pairs) == 10


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65_535), ("float32", 3.5)])
@pytest.mark.parametrize("shape", [(32, 48, 3), (8, 8, 1), (5, 40, 7), (64, 64, 1)])
def test_thumbnails_keep_the_picture(dtype, top, shape):
    ramp = np.broadcast_to(np.linspace(0, top, shape[1])[None, None, :, None], (2, *shape)).astype(dtype)
    thumbs = thumbnails(ramp)
    assert (thumbs.shape, thumbs.dtype) == ((2, THUMB_SIDE, THUMB_SIDE), np.uint8)
    assert (np.diff(thumbs[0, 0].astype(int)) >= 0).all()
    assert thumbs[0, :, 0].max() < 30
    assert thumbs[0, :, -1].min() > 225


def test_clusters_are_listed_by_their_first_member():
    assert clusters_of(np.array([-1, 1, 0, 1, 0, -1])) == [[1, 3], [2, 4]]
    assert clusters_of(np.array([-1, -1])) == []


@pytest.mark.parametrize(("pixels", "share"), [(2, 0.95), (3, 0.6)])
def test_a_slight_crop_is_found(pixels, share):
    fine = [np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8) for seed in range(COUNT)]
    originals = [Image.fromarray(cells).resize((96, 96), Image.Resampling.BICUBIC) for cells in fine]
    box = (pixels, pixels, 96 - pixels, 96 - pixels)
    cropped = [image.resize((96, 96), Image.Resampling.BICUBIC, box=box) for image in originals]
    near = near_of(stack_of([*originals, *cropped]))
    assert ((near[:COUNT] == near[COUNT:]) & (near[:COUNT] >= 0)).mean() >= share


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_small_sets_find_their_copies(count):
    originals = [picture(seed) for seed in range(count)]
    near = near_of(stack_of([*originals, *(encoded(image, 80) for image in originals)]))
    assert clusters_of(near) == [[row, count + row] for row in range(count)]


def test_many_copies_of_one_picture_are_one_cluster():
    copies = [ImageEnhance.Brightness(picture(0)).enhance(0.9 + 0.001 * number) for number in range(200)]
    near = near_of(stack_of([*copies, *(picture(seed) for seed in range(1, 41))]))
    assert clusters_of(near) == [list(range(200))]


def test_pictures_that_share_an_outline_are_left_apart():
    down, across = np.mgrid[:48, :48]
    rng = np.random.default_rng(0)
    disc = np.hypot(down - 24, across - 24) < 18
    centres = rng.uniform(12, 36, (200, 3, 2))
    spots = [sum(np.exp(-((down - y) ** 2 + (across - x) ** 2) / 8) for y, x in group) for group in centres]
    stack = np.stack([disc * 120 + 60 * spot for spot in spots]).astype(np.uint8)[..., None]
    assert (near_of(stack) >= 0).mean() < 0.02
    changed = np.stack([np.asarray(encoded(Image.fromarray(image[..., 0]), 80)) for image in stack])[..., None]
    near = near_of(np.concatenate([stack, changed]))
    assert (near[:200] == near[200:]).mean() > 0.98


def test_slopes_are_nearly_uniform():
    slopes = [np.add.outer(np.arange(32) * down, np.arange(32) * across) for down in range(1, 4) for across in range(4)]
    stack = np.stack([slope * 255 // slope.max() for slope in slopes]).astype(np.uint8)[..., None]
    assert (near_of(stack) == -1).all()


def test_blocks_and_batches_of_pairs_change_nothing(monkeypatch):
    images = [picture(seed) for seed in range(30)] + [encoded(picture(seed), 70) for seed in range(30)]
    whole = near_of(stack_of(images))
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 5)
    monkeypatch.setattr(duplicates, "SPAN", 3)
    assert near_of(stack_of(images)).tolist() == whole.tolist()


def test_no_images_have_no_clusters():
    found = find_duplicates(np.zeros((0, 16, 16), np.uint8), np.zeros((0, 16), np.uint8), np.zeros(0, bool))
    assert len(found.exact) == len(found.near) == 0
    none_usable = find_duplicates(np.zeros((3, 16, 16), np.uint8), np.zeros((3, 16), np.uint8), np.zeros(3, bool))
    assert none_usable.near.tolist() == [-1, -1, -1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_components_are_all_that_links_reach(links):
    reached = [{row} for row in range(20)]
    for first, second in links:
        joined = reached[first] | reached[second]
        for row in joined:
            reached[row] = joined
    ends = np.array(links, np.int64).reshape(-1, 2)
    roots = components(ends[:, 0], ends[:, 1], 20)
    assert roots.tolist() == [min(group) for group in reached]
    alone = [row for row in range(20) if len(reached[row]) == 1]
    assert np.flatnonzero(numbered(roots) == -1).tolist() == alone


def test_one_picture_at_three_depths_has_one_thumbnail():
    image = np.asarray(picture(3))[None]
    span = (image.astype(np.float32) - image.min()) / (int(image.max()) - int(image.min()))
    eight, sixteen = thumbnails(image).astype(int), thumbnails(image.astype(np.uint16) * 257).astype(int)
    assert np.abs(eight - sixteen).max() <= 1
    stretched = (eight - float(image.min())) * 255 / (int(image.max()) - int(image.min()))
    assert np.abs(thumbnails(span * 2000 - 700) - stretched).max() <= 2


def test_a_float_picture_of_one_value_is_black():
    assert (thumbnails(np.full((1, 20, 20, 1), 4.5, np.float32)) == 0).all()
