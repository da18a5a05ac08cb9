"""Batches have one shape, every image takes its turn, and a shift moves pixels without inventing any."""

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def labelled(count, side=6):
    from pipeline.training.images import Labelled

    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, side, side, 1), np.uint8)
    return Labelled(images, np.arange(count, dtype=np.int32))


def epoch(batches):
    rows = [batches[index] for index in range(len(batches))]
    batches.on_epoch_end()
    return rows


def test_an_epoch_is_whole_batches_of_different_images():
    from pipeline.training.images import EpochBatches

    batches = EpochBatches(labelled(10), 4, "none", seed=0)
    first, second = epoch(batches), epoch(batches)
    assert [len(labels) for _, labels in first] == [4, 4]
    seen = np.concatenate([labels for _, labels in first])
    assert len(set(seen)) == 8
    assert list(seen) != list(np.concatenate([labels for _, labels in second]))
    for images, labels in first:
        assert (images[:, 0, 0, 0] == labels).all()


def test_a_set_smaller_than_a_batch_is_repeated_to_fill_one():
    from pipeline.training.images import EpochBatches

    batches = EpochBatches(labelled(3), 8, "none", seed=0)
    assert len(batches) == 1
    assert sorted(set(batches[0][1])) == [0, 1, 2]
    assert len(batches[0][1]) == 8


def test_the_same_seed_gives_the_same_batches():
    from pipeline.training.images import EpochBatches

    one, two, other = (EpochBatches(labelled(50), 8, "shift", seed=seed) for seed in (5, 5, 6))
    assert (one[0][0] == two[0][0]).all()
    assert (one[0][1] == two[0][1]).all()
    assert list(one[0][1]) != list(other[0][1])


def test_a_shift_moves_a_picture_by_at_most_the_reach_and_repeats_the_edge():
    from pipeline.training.images import shift_reach, shifted

    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 255
    image[:, 0] = 7
    moved = shifted(np.repeat(image[None], 200, axis=0), 2, np.random.default_rng(0))
    places = {tuple(np.argwhere(picture[:, :, 0] == 255)[0] - 4) for picture in moved}
    assert places == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert set(np.unique(moved)) == {0, 7, 255}
    assert [shift_reach((side, side)) for side in (8, 28, 64)] == [1, 2, 5]
