"""Pictures are flipped only where the training images show that this keeps their class."""

import numpy as np
import pytest

from pipeline.data.similarity.flips import FlipCheck, check_flips


def pictures(shapes, count=400):
    """Return noisy pictures of one shape a class, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(shapes), count).astype(np.int32)
    thumbs = np.stack([shapes[label] for label in labels]) * 120.0 + rng.normal(60, 10, (count, 16, 16))
    return thumbs.clip(0, 255).astype(np.uint8), labels


def corner(top, left):
    shape = np.zeros((16, 16))
    shape[top : top + 6, left : left + 6] = 1
    return shape


def test_classes_that_are_mirror_images_of_each_other_are_not_flipped():
    thumbs, labels = pictures([corner(0, 0), corner(0, 10)])
    found = check_flips(thumbs, labels, np.arange(len(labels)), seed=0)
    assert (found.own, found.flipped, found.num_asked) == (1.0, 0.0, 100)
    assert not found.keeps_class
    assert found.described().startswith(
        "horizontal flips off: the nearest other picture has the same class for 100% of the pictures"
    )


def test_classes_that_differ_from_top_to_bottom_are_flipped():
    thumbs, labels = pictures([corner(0, 5), corner(10, 5)])
    found = check_flips(thumbs, labels, np.arange(len(labels)), seed=0)
    assert found.keeps_class
    assert found.described().startswith("horizontal flips on")


@pytest.mark.parametrize(("shapes", "expected"), [([(0, 0), (0, 10)], False), ([(0, 5), (10, 5)], True)])
def test_several_labels_are_kept_as_far_as_they_are_common_to_neighbours(shapes, expected):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (800, 2)).astype(np.uint8)
    thumbs = (labels @ np.stack([corner(*place).ravel() for place in shapes])).reshape(800, 16, 16) * 120
    thumbs = (thumbs + rng.normal(60, 10, thumbs.shape)).clip(0, 255).astype(np.uint8)
    found = check_flips(thumbs, labels, np.arange(800), seed=0)
    assert found.own > 0.95
    assert found.chance == pytest.approx((4 + 4 * 0.5) / 16, abs=0.03)  # of 16 pairs 4 are equal and 4 half so
    assert found.keeps_class is expected
    assert f"the nearest other one share {found.own:.0%} of their labels" in found.described()


def test_only_the_rows_that_train_are_asked():
    thumbs, labels = pictures([corner(0, 5), corner(10, 5)])
    labels[200:] = 1 - labels[200:]
    assert check_flips(thumbs, labels, np.arange(200), seed=0).own == 1.0


@pytest.mark.parametrize(
    ("own", "flipped", "num_asked", "expected"),
    [
        (0.31, 0.29, 2000, True),  # CIFAR-10
        (0.83, 0.65, 2000, True),  # Fashion-MNIST
        (0.98, 0.35, 449, False),  # digits
        (0.74, 0.18, 515, False),  # signed digits, all with one hand
        (0.11, 0.11, 2000, False),  # neighbours tell nothing
        (0.31, 0.29, 10, False),
        (0.0, 0.0, 0, False),
    ],
)
def test_a_flip_must_keep_half_of_what_neighbours_know(own, flipped, num_asked, expected):
    assert FlipCheck(own, flipped, 0.1, num_asked).keeps_class is expected


def test_a_handful_of_images_tells_nothing():
    thumbs, labels = pictures([corner(0, 5), corner(10, 5)], 3)
    found = check_flips(thumbs, labels, np.arange(3), seed=0)
    assert not found.keeps_class
    assert found.described().startswith("horizontal flips off (too few pictures to tell: 0; --augment sta")
