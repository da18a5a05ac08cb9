"""Batches have one shape, every image takes its turn, and a shift moves pixels without inventing any."""

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def labelled(count, side=6):
    from pipeline.training.images import Labelled

    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, side, side, 1), np.uint8)
    return Labelled(images, np.arange(count, dtype=np.int32))


def feed(count, batch_size, augment="none", seed=0, samples=None, **changes):
    from pipeline.training.images import EpochBatches, plan_steps

    steps = plan_steps(samples or count, count, batch_size, changes.pop("num_micro_batches", 1))
    return EpochBatches(labelled(count), steps, augment, seed, **changes)


def epoch(batches):
    batches.on_epoch_begin()
    return [batches[index] for index in range(len(batches))]


def labels_of(rows):
    return [int(label) for _, labels in rows for label in labels]


@pytest.mark.parametrize(
    ("samples", "num_images", "batch_size", "expected"),
    [
        (1000, 1000, 100, (1, 10)),
        (3000, 1000, 100, (3, 10)),
        (1400, 1000, 100, (1, 14)),  # one epoch that sees some images twice
        (1600, 1000, 100, (2, 8)),
        (100, 1000, 100, (1, 1)),
        (10, 1000, 100, (1, 1)),
        (3000, 1000, 64, (3, 16)),  # 3,072 images
    ],
)
def test_samples_become_whole_epochs_of_whole_batches(samples, num_images, batch_size, expected):
    from pipeline.training.images import plan_steps

    steps = plan_steps(samples, num_images, batch_size)
    assert (steps.num_epochs, steps.num_batches) == expected
    assert (steps.num_parts, steps.part_size, steps.per_epoch) == (1, batch_size, expected[1])


def test_a_batch_is_cut_into_the_next_number_of_equal_parts():
    from pipeline.training.images import plan_steps

    cuts = [(8, 1), (8, 2), (8, 3), (8, 5), (8, 99), (7, 2), (1, 2)]
    steps = [plan_steps(80, 80, size, number) for size, number in cuts]
    assert [step.num_parts for step in steps] == [1, 2, 4, 8, 8, 7, 1]
    assert all(step.num_parts * step.part_size == size for step, (size, _) in zip(steps, cuts, strict=True))


def test_an_epoch_is_whole_batches_of_different_images():
    batches = feed(10, 4, samples=8)
    first, second = epoch(batches), epoch(batches)
    assert [len(labels) for _, labels in first] == [4, 4]
    assert len(set(labels_of(first))) == 8
    assert labels_of(first) != labels_of(second)
    for images, labels in first:
        assert (images[:, 0, 0, 0] == labels).all()


def test_a_set_smaller_than_a_batch_is_repeated_to_fill_one():
    batches = feed(3, 8)
    assert len(batches) == 1
    assert sorted(set(batches[0][1])) == [0, 1, 2]
    assert len(batches[0][1]) == 8


def test_an_epoch_follows_from_seed_and_number_alone():
    def content(batches):
        return [(images.tobytes(), labels.tobytes()) for images, labels in epoch(batches)]

    whole = feed(50, 8, "shift", seed=5)
    epochs = [content(whole) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert content(feed(50, 8, "shift", seed=5, start=(2, 0))) == epochs[2]
    assert content(feed(50, 8, "shift", seed=5, start=(1, 4))) == epochs[1][4:]
    assert content(feed(50, 8, "shift", seed=6)) != epochs[0]


def test_parts_of_batches_are_the_same_images_with_the_same_shifts():
    whole, parts = epoch(feed(48, 8, "shift")), epoch(feed(48, 8, "shift", num_micro_batches=4))
    assert len(parts) == 4 * len(whole)
    for place in (0, 1):
        joined = np.concatenate([row[place] for row in parts])
        assert (joined == np.concatenate([row[place] for row in whole])).all()


def test_each_step_that_is_fetched_is_told():
    told = []
    batches = feed(24, 8, on_step=lambda *place: told.append(place), start=(3, 1))
    epoch(batches)
    assert told == [(3, 1), (3, 2)]


def test_a_shift_moves_a_picture_by_at_most_the_reach_and_repeats_the_edge():
    from pipeline.training.images import shift_reach, shifted

    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 255
    image[:, 0] = 7
    moved = shifted(np.repeat(image[None], 200, axis=0), 2, np.random.default_rng(0).integers(0, 5, (2, 200)))
    places = {tuple(np.argwhere(picture[:, :, 0] == 255)[0] - 4) for picture in moved}
    assert places == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert set(np.unique(moved)) == {0, 7, 255}
    assert [shift_reach((side, side)) for side in (8, 28, 64)] == [1, 2, 5]
