"""Changes of images and what they do to an accuracy, with models that are a line of NumPy."""

import numpy as np
import pytest

from pipeline.training import robustness
from pipeline.training.robustness import blurred, compressed, examine, num_examined, pixel_range, shifted


def spot(dtype=np.uint8, channels=1):
    """Return one image of 7 x 9 pixels with a bright one in the middle."""
    image = np.zeros((1, 7, 9, channels), dtype)
    image[0, 3, 4] = 100
    return image


def test_a_shift_moves_by_whole_pixels_and_repeats_the_edge():
    moved = shifted(spot(), 2, -1)
    assert np.argwhere(moved[0, :, :, 0]).tolist() == [[5, 3]]
    edge = np.arange(9, dtype=np.uint8)[None, None, :, None].repeat(7, axis=1)
    assert shifted(edge, 0, 2)[0, 0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_a_blur_is_one_two_one_in_both_directions():
    middle = blurred(spot())[0, 2:5, 3:6, 0] * 16 / 100
    assert middle.tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert blurred(np.full((1, 4, 4, 3), 9, np.uint8)).tolist() == np.full((1, 4, 4, 3), 9.0).tolist()


def test_jpeg_keeps_the_shape_and_changes_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for image in (noise, noise[:, :, :1]):
        assert compressed(image).shape == image.shape
        assert 0 < np.abs(compressed(image).astype(int) - image).mean() < 80


def bright(images):
    """Return logits of two classes: is the mean above 128?"""
    mean = images.reshape(len(images), -1).mean(axis=1)
    return np.stack([128 - mean, mean - 128], axis=1)


def test_each_change_is_measured_by_itself():
    images = np.full((4, 6, 6, 1), 120, np.uint8)
    images[2:] = 136
    found = examine(bright, images, np.array([0, 0, 1, 1]), 255.0)
    assert (found.num_images, found.accuracy) == (4, 1.0)
    assert found.shifts == {"1": 1.0, "2": 1.0, "3": 1.0, "4": 1.0}
    assert found.changes == {"noise": 1.0, "blur": 1.0, "darker": 0.5, "brighter": 0.5, "jpeg": 1.0}


def test_a_model_that_looks_at_one_pixel_does_not_bear_shifts():
    images, labels = np.zeros((2, 5, 5, 1), np.uint8), np.array([0, 1])
    images[1, 2, 2] = 200
    found = examine(lambda pixels: np.stack([100 - pixels[:, 2, 2, 0], pixels[:, 2, 2, 0]], 1), images, labels, 255.0)
    assert found.accuracy == 1.0
    assert found.shifts["1"] == 0.5


@pytest.mark.parametrize(("dtype", "channels"), [("uint16", 1), ("float32", 1), ("uint8", 5)])
def test_pixels_that_jpeg_does_not_hold_are_not_compressed(dtype, channels):
    found = examine(bright, spot(dtype, channels), np.array([0]), pixel_range(dtype, [10.0]))
    assert sorted(found.changes) == ["blur", "brighter", "darker", "noise"]
    assert "7" not in found.shifts


def test_pixels_stay_within_their_dtype():
    seen = []
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    examine(lambda pixels: seen.append(pixels) or np.zeros((2, 2)), images, np.array([0, 1]), 255.0)
    assert {each.dtype.name for each in seen} == {"uint8"}
    darker, brighter = seen[-3], seen[-2]
    assert darker.ravel().tolist() == [0, 230]  # 229.5, to even
    assert brighter.ravel().tolist() == [26, 255]


def test_large_networks_look_at_fewer_images_never_at_few():
    assert num_examined(50, 10**6) == 50
    assert num_examined(10_000, 10**6) == robustness.NUM_IMAGES
    assert 100 < num_examined(10_000, 5 * 10**7) < 1000
    assert num_examined(10_000, 10**11) == robustness.FEWEST
