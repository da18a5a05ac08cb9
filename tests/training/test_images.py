"""Batches have one shape, every image takes its turn, and what is done to pixels invents none."""

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def labelled(count, side=6):
    from pipeline.training.images import Labelled

    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, side, side, 1), np.uint8)
    return Labelled(images, np.arange(count, dtype=np.int32))


def feed(count, batch_size, augment="none", seed=0, samples=None, **changes):
    from pipeline.space.augmentation import augmentation_of
    from pipeline.training.images import EpochBatches, plan_steps

    steps = plan_steps(samples or count, count, batch_size, changes.pop("num_micro_batches", 1))
    return EpochBatches(labelled(count), steps, augmentation_of(augment), seed, **changes)


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

    whole = feed(50, 8, "strong", seed=5)
    epochs = [content(whole) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert content(feed(50, 8, "strong", seed=5, start=(2, 0))) == epochs[2]
    assert content(feed(50, 8, "strong", seed=5, start=(1, 4))) == epochs[1][4:]
    assert content(feed(50, 8, "strong", seed=6)) != epochs[0]


def test_parts_of_batches_are_the_same_images_with_the_same_shifts():
    whole, parts = epoch(feed(48, 8, "strong")), epoch(feed(48, 8, "strong", num_micro_batches=4))
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
    assert [shift_reach((side, side), 0.08) for side in (8, 28, 64)] == [1, 2, 5]


def test_every_image_is_flipped_in_every_other_epoch():
    from pipeline.space.augmentation import Augmentation
    from pipeline.training.images import EpochBatches, Labelled, plan_steps

    images = np.zeros((20, 6, 6, 1), np.uint8)
    images[:, :, 0] = 9  # the left edge
    data = Labelled(images, np.arange(20, dtype=np.int32))
    batches = EpochBatches(data, plan_steps(20, 20, 5), Augmentation(flips=True), seed=0)
    flipped = []
    for _ in range(3):
        rows = epoch(batches)
        content = np.concatenate([pictures for pictures, _ in rows])
        assert ((content == 9).sum(axis=(1, 2, 3)) == 6).all()
        flipped.append({label for label, picture in zip(labels_of(rows), content, strict=True) if picture[0, -1] == 9})
    assert 0 < len(flipped[0]) < 20
    assert flipped[1] == set(range(20)) - flipped[0]
    assert flipped[2] == flipped[0]
    assert (images[:, :, 0] == 9).all()  # the set itself is as it was


def test_a_cutout_hides_one_square_of_each_image():
    from pipeline.training.images import cut_out

    images = np.zeros((30, 8, 8, 1), np.uint8)
    images[:, ::4] = images[:, 1::4] = 100
    cut_out(images, 4, np.random.default_rng(0).random((2, 30)))
    hidden = [np.argwhere(picture[:, :, 0] == 50) for picture in images]
    sizes = [tuple(np.ptp(place, axis=0) + 1) for place in hidden]
    assert all(len(place) == height * width for place, (height, width) in zip(hidden, sizes, strict=True))
    assert max(sizes) == (4, 4)
    assert min(min(size) for size in sizes) >= 2  # at an edge a part of it is outside
