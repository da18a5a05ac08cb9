"""Splits: given ones stay, made ones are stratified, leak-free, stable, and blind to the order of files."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.source import NOT_GIVEN, Files, Source
from pipeline.data.splits.split import assign_folds, assign_splits, find_leaks, merge_groups
from pipeline.errors import DataError

TRAIN, VAL, TEST = range(3)
ALONE = -1


def source_of(labels, splits=None):
    names = [f"{number}.png" for number in range(len(labels))]
    given_splits = np.full(len(labels), NOT_GIVEN, np.uint8) if splits is None else np.array(splits, np.uint8)
    classes = tuple(f"class-{number}" for number in range(max(labels) + 1))
    return Source("set", "set/", classes, names, np.array(labels, np.int32), given_splits, Files("", names))


def digests_of(contents):
    return np.stack([np.frombuffer(hashlib.sha256(str(item).encode()).digest(), np.uint8) for item in contents])


def assign(labels, contents=None, clusters=None, splits=None, known=None):
    contents = range(len(labels)) if contents is None else contents
    clusters = np.full(len(labels), ALONE) if clusters is None else np.array(clusters)
    rows = np.arange(len(labels))
    return assign_splits(source_of(labels, splits), rows, clusters, digests_of(contents), known)


def counts(labels, splits, label):
    chosen = splits[np.array(labels) == label]
    return [int((chosen == number).sum()) for number in (TRAIN, VAL, TEST)]


def test_fractions_are_exact_in_every_class():
    labels = [0] * 100 + [1] * 20 + [2] * 1000
    splits = assign(labels).splits
    assert counts(labels, splits, 0) == [68, 12, 20]
    assert counts(labels, splits, 1) == [14, 2, 4]
    assert counts(labels, splits, 2) == [680, 120, 200]


def test_a_given_split_stays_and_what_is_missing_comes_out_of_train():
    labels, given_splits = [0, 1] * 50, [TRAIN] * 80 + [TEST] * 20
    splits = assign(labels, splits=given_splits).splits
    assert (splits[80:] == TEST).all()
    assert counts(labels[:80], splits[:80], 0) == [34, 6, 0]
    whole = [TRAIN] * 60 + [VAL] * 20 + [TEST] * 20
    assert assign(labels, splits=whole).splits.tolist() == whole


def test_a_class_that_a_given_split_has_none_of_is_an_error():
    labels, given_splits = [0] * 40 + [1] * 40, ([TRAIN] * 20 + [VAL] * 10 + [TEST] * 10) * 2
    assert assign(labels, splits=given_splits).splits.tolist() == given_splits
    given_splits[70:] = [VAL] * 10
    with pytest.raises(DataError, match=r"no usable images of class-1 in the given test; expected every class"):
        assign(labels, splits=given_splits)


def test_a_given_validation_split_without_a_test_split():
    labels, given_splits = [0, 1] * 50, [TRAIN] * 80 + [VAL] * 20
    splits = assign(labels, splits=given_splits).splits
    assert (splits[80:] == VAL).all()
    assert counts(labels[:80], splits[:80], 1) == [32, 0, 8]


def test_validation_images_are_at_most_ten_thousand():
    labels = [0, 1] * 50_000
    splits = assign_splits(
        source_of(labels), np.arange(100_000), np.full(100_000, ALONE),
        np.random.default_rng(0).integers(0, 256, (100_000, 32), dtype=np.uint8),
    ).splits  # fmt: skip
    assert [int((splits == number).sum()) for number in (TRAIN, VAL, TEST)] == [70_000, 10_000, 20_000]


@pytest.mark.parametrize(("sizes", "name", "number"), [((30, 2), "class-1", 2), ((1, 30), "class-0", 1)])
def test_a_class_that_is_too_small_is_named(sizes, name, number):
    labels = [0] * sizes[0] + [1] * sizes[1]
    with pytest.raises(DataError, match=rf"class {name} has {number} image\(s\).*at least 3 of each class"):
        assign(labels)


def test_a_class_of_one_cluster_is_named():
    with pytest.raises(DataError, match=r"class class-1 has 30 image\(s\), in 1 group"):
        assign([0] * 30 + [1] * 30, clusters=[ALONE] * 30 + [0] * 30)


def test_three_images_are_enough():
    splits = assign([0] * 3 + [1] * 3).splits
    assert sorted(splits[:3]) == sorted(splits[3:]) == [TRAIN, VAL, TEST]


def test_clusters_are_not_all_in_one_split():
    labels, clusters = [0] * 600, [number // 2 for number in range(200)] + [ALONE] * 400
    splits = assign(labels, clusters=clusters).splits
    assert counts(labels, splits, 0) == [408, 72, 120]
    assert 20 <= (splits[:200] == TEST).sum() <= 64  # about a fifth of what is clustered, as of all


def test_groups_of_ten_are_stratified_as_well_as_they_can_be():
    labels, clusters = [number % 2 for number in range(400)], [number // 10 for number in range(400)]
    splits = assign(labels, clusters=clusters).splits
    assert counts(labels, splits, 0) == counts(labels, splits, 1) == [135, 25, 40]


sets = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(sets)
def test_no_cluster_straddles_and_every_class_is_in_every_split_or_an_error_says_so(images):
    labels = [label for label, _ in images]
    clusters = [number if number < 12 else ALONE for _, number in images]
    try:
        splits = assign(labels, clusters=clusters).splits
    except DataError as error:
        assert "too few to give one" in str(error)  # noqa: PT017
        return
    assert find_leaks(splits, np.array(clusters)) == []
    for label in set(labels):
        assert min(counts(labels, splits, label)) >= 1


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(40)))
def test_the_order_of_the_files_does_not_matter(order):
    labels = np.array([0, 1] * 20)
    clusters = np.array([0, 0, 1, 1] + [ALONE] * 36)
    whole = assign(labels.tolist(), clusters=clusters).splits
    shuffled = assign(labels[list(order)].tolist(), list(order), clusters[list(order)]).splits
    assert shuffled.tolist() == whole[list(order)].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 1))
def test_adding_files_moves_no_other_file(num_new, label):
    labels = [0, 1] * 30
    before = assign(labels).splits
    known = np.concatenate([before, np.full(num_new, NOT_GIVEN, np.uint8)])
    after = assign(labels + [label] * num_new, known=known)
    assert after.num_moved == 0
    assert after.splits[:60].tolist() == before.tolist()
    shares = counts(labels + [label] * num_new, after.splits, label)
    assert abs(shares[TEST] - 0.2 * sum(shares)) <= 1


def test_a_new_copy_follows_what_it_copies():
    labels, known = [0, 1] * 30, assign([0, 1] * 30).splits
    test_image = int(np.flatnonzero(known == TEST)[0])
    clusters = np.full(61, ALONE)
    clusters[[test_image, 60]] = 0
    after = assign([*labels, labels[test_image]], clusters=clusters, known=np.append(known, np.uint8(NOT_GIVEN)))
    assert after.splits[60] == TEST
    assert after.splits[:60].tolist() == known.tolist()


@pytest.mark.parametrize(("joined", "num_moved"), [((TEST, TRAIN), 1), ((TEST, VAL), 2)])
def test_a_new_picture_that_joins_two_splits_brings_both_to_train(joined, num_moved):
    labels, known = [0, 1] * 30, assign([0, 1] * 30).splits
    one, other = (int(np.flatnonzero(known == number)[0]) for number in joined)
    clusters = np.full(61, ALONE)
    clusters[[one, other, 60]] = 0
    after = assign([*labels, 0], clusters=clusters, known=np.append(known, np.uint8(NOT_GIVEN)))
    assert after.splits[[one, other, 60]].tolist() == [TRAIN] * 3
    assert after.num_moved == num_moved


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 20))
def test_folds_are_a_partition_with_every_class_and_no_straddling(num_folds, num_paired):
    labels = [0] * 60 + [1] * 30
    clusters = np.array([number // 2 if number < 2 * num_paired else ALONE for number in range(90)])
    is_eligible = np.arange(90) % 9 != 0
    folds = assign_folds(source_of(labels), clusters, digests_of(range(90)), num_folds, is_eligible)
    assert (folds[~is_eligible] == NOT_GIVEN).all()
    assert set(folds[is_eligible]) == set(range(num_folds))
    for number in range(num_paired):
        members = folds[(clusters == number) & is_eligible]
        assert len(set(members)) <= 1
    sizes = [sum((folds == fold) & (np.array(labels) == 1)) for fold in range(num_folds)]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 4


def test_too_many_folds_are_refused():
    with pytest.raises(DataError, match=r"class class-1 has 4 image\(s\).*too few for 5 folds"):
        assign_folds(source_of([0] * 20 + [1] * 4), np.full(24, ALONE), digests_of(range(24)), 5, np.ones(24, bool))


def test_groups_and_copies_are_joined():
    near = np.array([0, 0, ALONE, ALONE, 1, 1, ALONE])
    merged = merge_groups(near, ["a", "", "a", "", "b", "", "b"])
    assert merged.tolist() == [0, 0, 0, ALONE, 1, 1, 1]
    assert merge_groups(near, None).tolist() == near.tolist()


def test_leaks_are_clusters_in_two_splits():
    clusters = np.array([0, 0, 1, 1, 1, ALONE])
    splits = np.array([TRAIN, TEST, VAL, VAL, NOT_GIVEN, TEST], np.uint8)
    assert find_leaks(splits, clusters) == [[0, 1]]
    splits[4] = TEST
    assert find_leaks(splits, clusters) == [[0, 1], [2, 3, 4]]


def test_a_given_split_that_leaks_stays_as_given_when_it_is_remembered():
    labels, given_splits = [0, 1] * 50, [TRAIN] * 80 + [TEST] * 20
    clusters = [0, 1] + [ALONE] * 96 + [0, 1]
    first = assign(labels, clusters=clusters, splits=given_splits).splits
    again = assign(labels, clusters=clusters, splits=given_splits, known=first)
    assert again.splits.tolist() == first.tolist()
    assert (again.splits[80:] == TEST).all()
    assert again.num_moved == 0


def multi_label(rows):
    names = [f"{number}.png" for number in range(len(rows))]
    classes = tuple(f"class-{number}" for number in range(len(rows[0])))
    unsplit = np.full(len(rows), NOT_GIVEN, np.uint8)
    return Source("set", "set/", classes, names, np.array(rows, np.uint8), unsplit, Files("", names))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_every_label_of_images_with_several_is_in_every_split(seed):
    rows = (np.random.default_rng(seed).random((80, 5)) < (0.6, 0.3, 0.2, 0.15, 0.12)).astype(np.uint8)
    rows[:15] = np.tile(np.eye(5, dtype=np.uint8), (3, 1))
    clusters = np.full(80, ALONE)
    splits = assign_splits(multi_label(rows.tolist()), np.arange(80), clusters, digests_of(range(80))).splits
    assert all(rows[splits == split].any(axis=0).all() for split in (TRAIN, VAL, TEST))


def test_a_class_whose_only_test_image_is_gone_gives_another_one():
    labels = [0] * 30 + [1] * 3
    before = assign(labels).splits
    keep = np.array([row for row in range(33) if row < 30 or before[row] != TEST] + [30])
    known = np.append(before[keep[:-1]], before[keep[:-1]][-1])
    known[-1] = TRAIN
    after = assign([labels[row] for row in keep], [*keep[:-1].tolist(), 99], known=known)
    assert counts([labels[row] for row in keep], after.splits, 1) == [1, 1, 1]
    assert after.num_moved == 1


def test_large_clusters_do_not_come_first():
    labels, clusters = [0] * 1000, [number // 20 for number in range(500)] + [ALONE] * 500
    splits = assign(labels, clusters=clusters).splits
    assert 40 <= (splits[:500] == TEST).sum() <= 160
    assert abs((splits == TEST).sum() - 200) <= 10


def test_a_cluster_of_two_classes_counts_for_both():
    labels, clusters = [0, 1] * 60, [number // 4 for number in range(120)]
    splits = assign(labels, clusters=clusters).splits
    assert counts(labels, splits, 0) == counts(labels, splits, 1) == [42, 6, 12]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 6), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=25))
def test_merged_groups_hold_whole_clusters_and_whole_groups(images):
    near = np.array([number for number, _ in images])
    names = [name for _, name in images]
    merged = merge_groups(near, names)
    for first in range(len(images)):
        for second in range(first):
            if (near[first] == near[second] >= 0) or (names[first] and names[first] == names[second]):
                assert merged[first] == merged[second] >= 0
