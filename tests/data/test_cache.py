"""Decoded images on disk: right pixels, right labels, whole or absent, and bad files named."""

import os

import numpy as np
import pytest

from pipeline.data.cache import draft, prepare, read_split
from pipeline.data.sources import open_source
from pipeline.errors import DataError
from pipeline.records import ImageSpec
from tests.data.pictures import write_classes, write_picture


def prepared(root, workspace, **options):
    return prepare(draft(open_source(str(root), workspace), **options), workspace)


def test_pixels_labels_and_statistics(tmp_path):
    dataset = prepared(write_classes(tmp_path / "set", {"dark": 20, "light": 20}), tmp_path)
    assert dataset.spec == ImageSpec(10, 12, 1)
    assert dataset.counts == {"train": 28, "val": 4, "test": 8}
    assert dataset.class_counts == {"dark": 20, "light": 20}
    images, labels = read_split(dataset.folder, ("train",))
    assert images.shape == (28, 10, 12, 1)
    assert images.dtype == np.uint8
    brightness = images.mean(axis=(1, 2, 3))
    assert (np.abs(brightness - np.where(labels == 0, 40, 100)) < 8).all()
    assert dataset.mean == pytest.approx((images.mean(),), abs=1e-3)
    assert dataset.std == pytest.approx((images.std(),), abs=1e-3)
    both, _ = read_split(dataset.folder, ("train", "val"))
    assert len(both) == 32


def test_a_second_search_decodes_nothing_and_a_changed_file_is_noticed(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    first = prepared(root, tmp_path)
    stamp = (first.folder / "images.npy").stat().st_mtime_ns
    again = prepared(root, tmp_path)
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)
    assert (again.folder / "images.npy").stat().st_mtime_ns == stamp
    path = write_picture(root / "a" / "000.png", 200)
    os.utime(path, ns=(1, 1))
    changed = prepared(root, tmp_path)
    assert changed.folder != first.folder
    assert changed.fingerprint != first.fingerprint


def test_a_half_written_cache_is_never_trusted(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    first = prepared(root, tmp_path)
    (first.folder / "meta.json").unlink()
    (first.folder / "images.npy").write_bytes(b"half")
    again = prepared(root, tmp_path)
    assert again.fingerprint == first.fingerprint
    assert read_split(again.folder, ("train",))[0].shape[1:] == (10, 12, 1)


def test_bad_files_are_left_out_and_named(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 10, "b": 10})
    (root / "a" / "003.png").write_bytes(b"")
    (root / "b" / "004.png").write_text("no picture")
    whole = (root / "b" / "005.png").read_bytes()
    (root / "b" / "005.png").write_bytes(whole[: len(whole) // 2])
    dataset = prepared(root, tmp_path)
    assert sum(dataset.counts.values()) == 17
    assert {(item.path, item.code) for item in dataset.bad} == {
        ("a/003.png", "empty"),
        ("b/004.png", "unsupported"),
        ("b/005.png", "corrupt"),
    }


def test_a_folder_of_no_pictures_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            (tmp_path / "set" / name / f"{index}.txt").write_text("text")
    with pytest.raises(DataError, match="none of 10 probed files is a readable image"):
        prepared(tmp_path / "set", tmp_path)


def test_mostly_broken_files_are_refused(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 10, "b": 10})
    for path in sorted(root.glob("*/*.png"))[:11]:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="11 of 20 files are not usable images"):
        prepared(root, tmp_path)


def test_one_colour_picture_makes_three_channels(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    write_picture(root / "a" / "colour.png", 100, mode="RGB")
    assert prepared(root, tmp_path).spec.channels == 3


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [((200, 100), None, (32, 64)), ((200, 100), 20, (10, 20)), ((30, 30), None, (30, 30)), ((30, 30), 48, (48, 48))],
)
def test_images_keep_their_shape_up_to_64_pixels(tmp_path, size, wanted, expected):
    for name in ("a", "b"):
        for index in range(4):
            write_picture(tmp_path / "set" / name / f"{index}.png", 90, size=size)
    spec = prepared(tmp_path / "set", tmp_path, image_size=wanted).spec
    assert (spec.height, spec.width) == expected


def test_names_that_are_not_utf8_are_no_problem(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    (root / "a" / "000.png").rename(os.fsdecode(os.fsencode(root / "a") + b"/\xff.png"))
    (root / "b" / "000.png").write_bytes(b"")
    (root / "b" / "000.png").rename(os.fsdecode(os.fsencode(root / "b") + b"/\xfe.png"))
    dataset = prepared(root, tmp_path)
    assert sum(dataset.counts.values()) == 11
    assert [item.code for item in dataset.bad] == ["empty"]
