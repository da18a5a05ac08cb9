"""Splits are stratified, stable, and keep what is given."""

import random

import pytest

from pipeline.data.sources import Example
from pipeline.data.split import assign_splits
from pipeline.errors import DataError


def examples(counts, split=""):
    return [Example(f"{label}/{index}.png", label, split) for label, n in counts.items() for index in range(n)]


def count(rows, splits, label, split):
    return sum(row.label == label and s == split for row, s in zip(rows, splits, strict=True))


def test_each_class_gives_a_fifth_to_test_and_15_percent_of_the_rest_to_val():
    rows = examples({"a": 100, "b": 20})
    splits = assign_splits(rows, "here")
    assert [count(rows, splits, "a", split) for split in ("train", "val", "test")] == [68, 12, 20]
    assert [count(rows, splits, "b", split) for split in ("train", "val", "test")] == [14, 2, 4]


def test_the_order_of_the_files_changes_nothing():
    rows = examples({"a": 50, "b": 30})
    expected = dict(zip(rows, assign_splits(rows, "here"), strict=True))
    shuffled = random.Random(1).sample(rows, len(rows))
    assert dict(zip(shuffled, assign_splits(shuffled, "here"), strict=True)) == expected


def test_a_given_test_split_stays_and_val_comes_out_of_train():
    rows = examples({"a": 40, "b": 40}, "train") + examples({"a": 5, "b": 5}, "test")
    splits = assign_splits(rows, "here")
    assert splits[-10:] == ["test"] * 10
    assert splits.count("val") == 12


def test_given_train_val_and_test_stay_as_they_are():
    rows = examples({"a": 4, "b": 4}, "train") + examples({"a": 2, "b": 2}, "val") + examples({"a": 1, "b": 1}, "test")
    assert assign_splits(rows, "here") == ["train"] * 8 + ["val"] * 4 + ["test"] * 2


def test_the_smallest_class_that_works_has_three_images():
    rows = examples({"a": 3, "b": 30})
    splits = assign_splits(rows, "here")
    assert [count(rows, splits, "a", split) for split in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(DataError, match=r"class a has 1 training image\(s\), too few to give one to val"):
        assign_splits(examples({"a": 2, "b": 30}), "here")


def test_val_is_capped_for_large_sets():
    assert assign_splits(examples({"a": 60_000, "b": 60_000}, "train"), "here").count("val") == 10_000
