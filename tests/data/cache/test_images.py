"""Decoded images on disk: right pixels, whole or rebuilt, bad files named, one decoding for all searches."""

import os
import signal
import time

import numpy as np
import pytest

from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
from pipeline.data.readers.registry import open_source
from pipeline.data.splits.dataset import split_dataset
from pipeline.errors import DataError
from pipeline.records import ImageSpec
from tests.cli.workspace import started
from tests.data.pictures import write_classes, write_picture

pytestmark = pytest.mark.heavy
LIMIT = 1 << 30


def prepared(root, workspace, limit=LIMIT, **options):
    source = open_source(str(root), workspace)
    return open_cache(source, choose_spec(source, SpecOptions(**options)), workspace, limit)


def test_pixels_and_moments(tmp_path):
    cache = prepared(write_classes(tmp_path / "set", {"dark": 20, "light": 20}), tmp_path)
    assert cache.spec == ImageSpec(10, 12, 1)
    images = cache.images()
    assert images.shape == (40, 10, 12, 1)
    assert images.dtype == np.uint8
    brightness = images.mean(axis=(1, 2, 3))
    assert (np.abs(brightness - np.repeat([40, 100], 20)) < 8).all()
    assert cache.moments[:, 0, 0] == pytest.approx(brightness, rel=1e-5)
    assert cache.moments[:, 1, 0] == pytest.approx(np.square(images.astype(float)).mean(axis=(1, 2, 3)), rel=1e-5)
    assert (cache.facts["height"][0], cache.facts["width"][0], cache.facts["bands"][0]) == (10, 12, 1)


def test_what_is_known_of_each_image_is_mapped_from_disk(tmp_path):
    cache = prepared(write_classes(tmp_path / "set", {"a": 6, "b": 6}), tmp_path)
    columns = (cache.facts, cache.moments, cache.clusters.exact, cache.clusters.near)
    assert [is_mapped(column) for column in columns] == [True] * 4
    assert not any(column.flags.writeable for column in columns)


def is_mapped(array):
    return array is not None and (isinstance(array, np.memmap) or is_mapped(array.base))


def test_a_second_search_decodes_nothing_and_a_changed_file_is_noticed(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    first = prepared(root, tmp_path)
    stamp = (first.folder / "images.npy").stat().st_mtime_ns
    again = prepared(root, tmp_path)
    assert again.folder == first.folder
    assert (again.folder / "images.npy").stat().st_mtime_ns == stamp
    path = write_picture(root / "a" / "000.png", 200)
    os.utime(path, ns=(1, 1))
    assert prepared(root, tmp_path).folder != first.folder


def test_a_file_of_the_same_size_and_time_is_still_noticed(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    first = prepared(root, tmp_path)
    path = root / "a" / "000.png"
    status, content = path.stat(), bytearray(path.read_bytes())
    path.write_bytes(content[:-20] + bytes(20))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = prepared(root, tmp_path)
    assert changed.folder != first.folder
    assert [item.path for item in changed.bad] == ["a/000.png"]


def test_a_damaged_cache_is_rebuilt(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    first = prepared(root, tmp_path)
    whole = np.array(first.images())
    first.lock.close()
    with (first.folder / "images.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x00\x01")
    again = prepared(root, tmp_path)
    assert np.array_equal(again.images(), whole)


def test_another_size_is_another_cache_and_the_oldest_makes_room(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 20, "b": 20})
    small = prepared(root, tmp_path)
    small.lock.close()
    bytes_taken = sum(path.stat().st_size for path in small.folder.iterdir())
    large = prepared(root, tmp_path, limit=bytes_taken + 40 * 24 * 20, image_size=24)
    assert large.spec.shape == (20, 24, 1)
    assert large.folder != small.folder
    assert small.folder.is_dir()
    large.lock.close()
    other = prepared(root, tmp_path, limit=bytes_taken + 10_000, image_size=16)
    assert not other.is_streamed
    assert not small.folder.is_dir()


@pytest.mark.parametrize("delay", [0.35, 0.6, 0.9])
def test_a_kill_at_any_time_leaves_a_usable_cache(tmp_path, delay):
    root = write_classes(tmp_path / "set", {"a": 400, "b": 400})
    with started(tmp_path, "data", "check", "set") as process:
        time.sleep(delay)  # somewhere between the imports and the commit
        process.send_signal(signal.SIGKILL)
    cache = prepared(root, tmp_path)
    assert len(cache.images()) == 800
    assert not cache.bad
    assert not list(cache.folder.parent.glob(".*"))


def test_bad_files_are_left_out_and_named(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 10, "b": 10})
    (root / "a" / "003.png").write_bytes(b"")
    (root / "b" / "004.png").write_text("no picture")
    whole = (root / "b" / "005.png").read_bytes()
    (root / "b" / "005.png").write_bytes(whole[: len(whole) // 2])
    cache = prepared(root, tmp_path)
    assert cache.is_usable.sum() == 17
    assert {(item.path, item.code) for item in cache.bad} == {
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
    cache = prepared(root, tmp_path)
    with pytest.raises(DataError, match="11 of 20 files are not usable images"):
        split_dataset(open_source(str(root), tmp_path), cache, tmp_path)


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
    spec = choose_spec(open_source(str(tmp_path / "set"), tmp_path), SpecOptions(image_size=wanted))
    assert (spec.height, spec.width) == expected


def test_names_that_are_not_utf8_are_no_problem(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    (root / "a" / "000.png").rename(os.fsdecode(os.fsencode(root / "a") + b"/\xff.png"))
    (root / "b" / "000.png").write_bytes(b"")
    (root / "b" / "000.png").rename(os.fsdecode(os.fsencode(root / "b") + b"/\xfe.png"))
    cache = prepared(root, tmp_path)
    assert cache.is_usable.sum() == 11
    assert [item.code for item in cache.bad] == ["empty"]


def test_one_picture_of_other_bands_does_not_stop_the_others(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 6, "b": 6})
    np.save(root / "a" / "five.npy", np.zeros((10, 12, 5), np.uint8))
    cache = prepared(root, tmp_path)
    assert cache.spec.channels == 1
    assert [(item.path, item.code) for item in cache.bad] == [("a/five.npy", "unsupported")]
