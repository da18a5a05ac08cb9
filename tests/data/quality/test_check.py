"""What a check finds, which verdict follows from it, and which images a fix keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.quality.check import Check, check_data
from pipeline.data.quality.fix import clean
from pipeline.data.source import Finding, Rows
from pipeline.errors import DataError
from tests.data.checked import Row, make_cache, make_source, many

GOOD = [*many("cat", 20), *many("dog", 20)]
SPLIT = [*many("cat", 20, "train"), *many("dog", 20, "train"), *many("cat", 10, "test"), *many("dog", 10, "test")]


def check(folder: Path, rows: list[Row], **changes: Any) -> Check:
    return check_data(make_source(rows, **changes), make_cache(folder, rows))


def kept_paths(folder: Path, rows: list[Row], **changes: Any) -> tuple[list[str], dict[str, int]]:
    source, cache = make_source(rows, **changes), make_cache(folder, rows)
    kept = clean(source, cache, check_data(source, cache).found)
    return [rows[row].path for row in kept.rows], kept.left_out


def test_a_clean_set_is_ok_and_there_is_nothing_to_advise(tmp_path):
    found = check(tmp_path, GOOD).to_json()
    assert (found["verdict"], found["advice"]) == ("ok", [])
    assert found["files"] == {
        "total": 40, "used": 40, "unsupported": 0, "corrupt": 0, "hidden": 0, "not_regular": 0, "too_large": 0,
        "missing": 0,
    }  # fmt: skip
    assert found["classes"] == {"cat": 20, "dog": 20}
    assert found["splits"] == {"not_given": 40}


def test_every_file_is_counted_under_one_kind(tmp_path):
    codes = ["corrupt", "empty", "unreadable", "killed", "unsupported", "too_large", "not_regular", "missing"]
    rows = [*GOOD, *(Row(f"cat/{code}.png", "cat", code=code) for code in codes)]
    left_out = [Finding(name, name, "") for name in ("hidden", "no_label", "link_loop", "missing")]
    found = check(tmp_path, rows, left_out=tuple(left_out)).to_json()
    assert found["files"] == {
        "total": 52, "used": 40, "unsupported": 2, "corrupt": 4, "hidden": 1, "not_regular": 2, "too_large": 1,
        "missing": 2,
    }  # fmt: skip
    assert [item["path"] for item in found["bad"]] == [
        "no_label", "link_loop", "missing", *(f"cat/{code}.png" for code in codes)
    ]  # fmt: skip
    assert found["bad"][3] == {"path": "cat/corrupt.png", "code": "corrupt", "detail": "it is corrupt", "used": False}
    assert found["verdict"] == "warn"
    assert found["advice"][0].startswith("11 files ignored (2 missing, 1 no label")
    assert found["advice"][0].endswith("--max-megapixels and --max-megabytes allow larger ones.")


def test_files_that_serve_but_need_a_look_come_after_those_that_do_not(tmp_path):
    rows = [
        *GOOD, Row("cat/a.png", "cat", format="JPEG"), Row("cat/b.gif", "cat", format="GIF", num_frames=7),
        Row("cat/evil\u202egpj.png", "cat"), Row("cat/c.png", "cat", code="empty"),
        Row("cat/scan.2024", "cat"), Row("cat/plain", "cat"), Row("cat/d.JPG", "cat", format="JPEG"),
    ]  # fmt: skip
    found = check(tmp_path, rows).to_json()
    assert [(item["path"], item["code"], item["used"]) for item in found["bad"]] == [
        ("cat/c.png", "empty", False),
        ("cat/evil\u202egpj.png", "odd_name", True),
        ("cat/a.png", "wrong_extension", True),
        ("cat/b.gif", "animated", True),
    ]
    assert found["bad"][2]["detail"] == "holds JPEG, is called .png"
    assert found["bad"][3]["detail"] == "the first of 7 frames is used"
    assert found["files"]["total"] == 47
    assert any("cat/evil\\u202egpj.png" in sentence for sentence in found["advice"])


def test_names_that_are_not_utf8_become_escapes_that_json_can_hold(tmp_path):
    found = check(tmp_path, [*GOOD, Row("cat/\udcff.png", "cat", code="corrupt")]).to_json()
    assert json.dumps(found, ensure_ascii=False).encode()
    assert {item["path"] for item in found["bad"]} == {"cat/\\udcff.png"}
    assert {item["code"] for item in found["bad"]} == {"corrupt", "odd_name"}


def test_copies_are_listed_and_near_clusters_that_are_all_copies_are_not_listed_twice(tmp_path):
    rows = [
        *GOOD, Row("cat/a.png", "cat", exact=0, near=0), Row("cat/b.png", "cat", exact=0, near=0),
        Row("dog/c.png", "dog", near=1), Row("dog/d.png", "dog", near=1),
    ]  # fmt: skip
    found = check(tmp_path, rows).to_json()
    assert found["exact_duplicates"] == [["cat/a.png", "cat/b.png"]]
    assert found["near_duplicates"] == [["dog/c.png", "dog/d.png"]]
    assert found["label_conflicts"] == found["leaks"] == []
    assert found["verdict"] == "warn"


def test_a_given_split_that_leaks_is_refused_with_names_and_splits(tmp_path):
    rows = [*SPLIT, Row("train/cat/x.png", "cat", "train", near=3), Row("test/cat/y.png", "cat", "test", near=3)]
    found = check(tmp_path, rows).to_json()
    assert found["leaks"] == [{"paths": ["train/cat/x.png", "test/cat/y.png"], "splits": ["train", "test"]}]
    assert found["verdict"] == "refuse"
    assert "train/cat/x.png (train), test/cat/y.png (test)" in found["advice"][0]
    assert "--allow-leak" in found["advice"][0]


def test_a_published_split_that_leaks_is_a_warning(tmp_path):
    rows = [*SPLIT, Row("train/cat/x.png", "cat", "train", near=3), Row("test/cat/y.png", "cat", "test", near=3)]
    found = check(tmp_path, rows, is_official=True).to_json()
    assert (found["verdict"], len(found["leaks"])) == ("warn", 1)
    assert found["advice"][0].endswith("leaves those test images out of its test accuracy.")


def test_a_group_in_two_splits_is_a_leak_and_without_a_given_split_nothing_leaks(tmp_path):
    groups = [str(index) for index in range(58)] + ["7", "59"]
    assert [leak["splits"] for leak in check(tmp_path, SPLIT, groups=groups).to_json()["leaks"]] == [["train", "test"]]
    rows = [*GOOD, Row("cat/x.png", "cat", near=1), Row("cat/y.png", "cat", near=1)]
    assert check(tmp_path, rows, groups=["same"] * 42).to_json()["leaks"] == []


def test_neither_bad_files_nor_rows_without_a_split_leak(tmp_path):
    rows = [
        *SPLIT,
        Row("train/x", "cat", "train", code="empty"),
        Row("no/y", "cat", near=0),
        Row("z", "cat", "val", near=0),
    ]
    groups = [str(index) for index in range(60)] + ["59", "y", "z"]
    found = check(tmp_path, rows, groups=groups).to_json()
    assert found["leaks"] == []
    assert found["splits"] == {"train": 40, "val": 1, "test": 20, "not_given": 1}


def test_a_long_leak_is_named_with_one_image_of_each_split(tmp_path):
    copies = [Row(f"train/{index}", "cat", "train", near=0) for index in range(9)]
    found = check(tmp_path, [*SPLIT, *copies, Row("test/9", "cat", "test", near=0)])
    assert "(first: train/0 (train), test/9 (test))" in found.advice[0]
    group = found.found.leaks[0]
    assert [path for _, path, _ in group.leading(group.splits, 4)] == ["train/0", "test/9", "train/1", "train/2"]


def test_images_of_an_array_are_not_advised_to_be_fixed_by_a_table(tmp_path):
    rows = [*SPLIT, Row("train/x", "cat", "train", exact=0, near=0), Row("test/x", "cat", "test", exact=0, near=0)]
    advice = check(tmp_path, rows, storage=Rows("images.npy")).advice
    assert len(advice) == 2
    assert not any("--fix" in sentence for sentence in advice)
    assert all("leave them out where the array or shard is made" in sentence for sentence in advice)


@pytest.mark.parametrize(("num_conflicts", "verdict"), [(1, "warn"), (2, "refuse")])
def test_copies_under_two_labels_are_refused_above_one_percent(tmp_path, num_conflicts, verdict):
    rows = [*many("cat", 100), *many("dog", 100)]
    for number in range(num_conflicts):
        rows += [Row(f"cat/x{number}.png", "cat", exact=number, near=number)]
        rows += [Row(f"dog/x{number}.png", "dog", exact=number, near=number)]
    found = check(tmp_path, rows).to_json()
    assert found["label_conflicts"][0] == {
        "paths": ["cat/x0.png", "dog/x0.png"], "labels": ["cat", "dog"], "kind": "exact"
    }  # fmt: skip
    assert len(found["label_conflicts"]) == num_conflicts
    assert found["verdict"] == verdict


def test_near_duplicates_under_two_labels_are_a_warning(tmp_path):
    found = check(tmp_path, [*GOOD, Row("a.png", "cat", near=1), Row("b.png", "dog", near=1)]).to_json()
    assert found["label_conflicts"] == [{"paths": ["a.png", "b.png"], "labels": ["cat", "dog"], "kind": "near"}]
    assert found["verdict"] == "warn"


def test_fewer_than_two_usable_classes_and_mostly_bad_files_are_refused(tmp_path):
    rows = [*many("cat", 20), *(Row(f"dog/{index}.png", "dog", code="empty") for index in range(30))]
    found = check(tmp_path, rows).to_json()
    assert found["verdict"] == "refuse"
    assert found["classes"] == {"cat": 20, "dog": 0}
    assert found["advice"][0].startswith("Usable images of 1 class;")
    assert found["advice"][1].startswith("30 of 50 labelled files are not usable pictures")


def test_a_class_without_a_usable_training_image_is_refused(tmp_path):
    rows = [*SPLIT, *many("eel", 12, "test"), Row("train/eel/0.png", "eel", "train", code="corrupt")]
    found = check(tmp_path, rows).to_json()
    assert found["verdict"] == "refuse"
    assert found["advice"][0].startswith("1 class (eel) with images for val or test but no usable training image")


def test_small_empty_uneven_and_alike_classes_are_warnings(tmp_path):
    rows = [*many("cat", 120), *many("Cat", 5), *many("dog", 60)]
    found = check(tmp_path, rows, empty_classes=("eel",)).to_json()
    assert found["classes"] == {"Cat": 5, "cat": 120, "dog": 60, "eel": 0}
    assert found["verdict"] == "warn"
    assert [sentence.split(":")[0] for sentence in found["advice"]] == [
        "1 class (eel) without a usable image",
        "1 class (Cat (5)) with fewer than 10 images",
        "Classes are uneven",
        "2 classes (Cat, cat) that differ only by upper and lower case",
    ]


def test_pictures_of_nearly_one_colour_are_a_warning(tmp_path):
    rows = [Row(f"{label}/{index}.png", label, spread=1.0) for label in ("cat", "dog") for index in range(20)]
    assert check(tmp_path, rows).advice[0].startswith("40 images are nearly one colour")


def test_facts_tell_sizes_formats_and_the_darkest_and_brightest(tmp_path):
    rows = [*GOOD, Row("cat/night.png", "cat", brightness=3), Row("dog/snow.jpg", "dog", brightness=250, format="JPEG")]
    found = check(tmp_path, rows).to_json()
    assert found["sizes"]["median"] == {"height": 20, "width": 30}
    assert found["aspect"] == {"min": 1.5, "median": 1.5, "max": 1.5}
    assert (found["formats"], found["channels"], found["depths"]) == ({"JPEG": 1, "PNG": 41}, {"1": 42}, {"8": 42})
    assert found["brightness"]["darkest"][0] == "cat/night.png"
    assert found["brightness"]["brightest"][0] == "dog/snow.jpg"
    assert found["brightness"]["mean"] == pytest.approx((40 * 100 + 253) / 42, abs=1e-3)
    assert found["image"]["height"] == 8


def test_several_labels_count_for_each_class(tmp_path):
    rows = many("cat", 20)
    labels = np.array([[1, index % 2] for index in range(20)], np.uint8)
    source = make_source(rows, classes=("cat", "dog"), labels=labels)
    found = check_data(source, make_cache(tmp_path, rows)).to_json()
    assert found["classes"] == {"cat": 20, "dog": 10}
    assert (found["verdict"], len(found["advice"])) == ("warn", 1)
    assert found["advice"][0].startswith("1 class (cat) that every image has, so that there is nothing to tell")


def test_a_class_that_a_given_split_has_none_of_is_refused(tmp_path):
    rows = [*SPLIT, *many("cat", 10, "val"), *many("cow", 20, "train"), *many("cow", 10, "val")]
    found = check(tmp_path, [*rows, Row("test/cow.png", "cow", "test", code="corrupt")]).to_json()
    assert found["verdict"] == "refuse"
    assert found["advice"][:2] == [
        "1 class (dog) without a usable image in val, so that no score covers it: add some, or take the class out.",
        "1 class (cow) without a usable image in test, so that no score covers it: add some, or take the class out.",
    ]


@pytest.mark.parametrize(
    ("rows", "groups", "is_refused"),
    [
        ([*GOOD, *many("cow", 2)], None, True),
        ([*GOOD, *many("cow", 3)], None, False),
        ([*GOOD, *many("cow", 2), *(Row(f"cow/{i}.png", "cow", near=0) for i in range(9))], None, False),
        ([*GOOD, *many("cow", 1), *(Row(f"cow/{i}.png", "cow", near=0) for i in range(9))], None, True),
        ([*GOOD, *many("cow", 12)], [*[""] * 40, *["herd 1", "herd 2"] * 6], True),
        ([*GOOD, *many("cow", 12)], [*[""] * 40, *["herd 1", "herd 2", "herd 3"] * 4], False),
        ([*SPLIT, *many("cow", 2, "train"), *many("cow", 1, "test")], None, False),
        ([*SPLIT, *many("cow", 1, "train"), *many("cow", 1, "test")], None, True),
    ],
)
def test_a_class_that_cannot_be_in_every_split_is_refused(tmp_path, rows, groups, is_refused):
    found = check(tmp_path, rows, groups=groups).to_json()
    assert (found["verdict"] == "refuse") == is_refused
    assert any("fewer images to train with than splits to make" in text for text in found["advice"]) == is_refused


def test_nothing_usable_is_still_a_whole_document(tmp_path):
    rows = [Row(f"{label}/0.png", label, code="corrupt") for label in ("cat", "dog")]
    found = check(tmp_path, rows).to_json()
    assert (found["verdict"], found["sizes"], found["brightness"]["mean"]) == ("refuse", {}, None)
    assert json.dumps(found, allow_nan=False)


def test_a_fix_leaves_out_bad_files_copies_and_copies_under_two_labels(tmp_path):
    rows = [
        Row("cat/0.png", "cat"), Row("cat/bad.png", "cat", code="corrupt"),
        Row("cat/1.png", "cat", exact=0, near=0), Row("cat/1-copy.png", "cat", exact=0, near=0),
        Row("cat/1-near.png", "cat", near=0), Row("cat/2.png", "cat", exact=1, near=1),
        Row("dog/2.png", "dog", exact=1, near=1), Row("dog/2-near.png", "dog", near=1), Row("dog/3.png", "dog"),
    ]  # fmt: skip
    paths, left_out = kept_paths(tmp_path, rows)
    assert paths == ["cat/0.png", "cat/1.png", "dog/2-near.png", "dog/3.png"]
    assert left_out == {
        "no usable picture": 1,
        "copies of one picture under two labels": 2,
        "(nearly) the same as an image that is kept": 2,
    }


def test_a_fix_keeps_the_copy_in_test_then_in_val(tmp_path):
    rows = [
        Row("train/0.png", "cat", "train", near=0), Row("val/0.png", "cat", "val", near=0),
        Row("test/0.png", "cat", "test", near=0), Row("train/1.png", "dog", "train", near=1),
        Row("val/1.png", "dog", "val", near=1), Row("train/2.png", "dog", "train"), Row("train/3.png", "cat", "train"),
    ]  # fmt: skip
    assert kept_paths(tmp_path, rows)[0] == ["test/0.png", "val/1.png", "train/2.png", "train/3.png"]


def test_a_fix_takes_a_group_out_of_train_that_is_in_test_and_keeps_all_its_test_images(tmp_path):
    rows = [
        Row("a", "cat", "train"), Row("b", "cat", "test"), Row("c", "dog", "test"), Row("d", "dog", "train"),
        Row("e", "cat", "train"),
    ]  # fmt: skip
    paths, left_out = kept_paths(tmp_path, rows, groups=["p1", "p1", "p1", "p2", "p3"])
    assert paths == ["b", "c", "d", "e"]
    assert left_out == {"of a group that also stands in a split that judges": 1}


def test_a_fix_that_would_leave_a_class_nothing_to_train_with_is_an_error(tmp_path):
    rows = [Row("a", "cat", "train"), Row("b", "cat", "test"), Row("c", "dog", "test"), Row("d", "dog", "train")]
    with pytest.raises(DataError, match="no training images of cat would be left"):
        kept_paths(tmp_path, rows, groups=["p1", "p1", "", ""])


def test_a_fix_that_would_keep_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no image would be left"):
        kept_paths(tmp_path, [Row("a", "cat", code="empty"), Row("b", "dog", code="empty")])
