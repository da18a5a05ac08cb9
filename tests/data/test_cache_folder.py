"""Cache folders are whole or rebuilt, bounded, and never cleared away under a process that reads them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.data import cache_folder

BLOCK = 1000


def write_folder(home, key, size=BLOCK):
    with cache_folder.building(home, key) as folder:
        (folder / "images.npy").write_bytes(os.urandom(size))
        (folder / "facts.npy").write_bytes(b"facts")
    return home / key


def names(home):
    return sorted(path.name for path in home.iterdir())


def test_a_folder_appears_whole_and_opens(tmp_path):
    folder = write_folder(tmp_path, "one")
    assert names(tmp_path) == ["one"]
    hold = cache_folder.open_whole(tmp_path, "one")
    assert hold is not None
    assert hold.folder == folder


def test_a_build_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="full"), cache_folder.building(tmp_path, "one"):
        raise OSError("full")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["images.npy", "facts.npy", "meta.json"])
@pytest.mark.parametrize("fault", ["flip", "cut", "zero", "gone", "extra"])
def test_a_damaged_folder_is_removed_and_not_trusted(tmp_path, name, fault):
    path = write_folder(tmp_path, "one") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": bytes(content), "cut": path.read_bytes()[: len(content) // 2], "zero": bytes(len(content))}
    if fault == "gone":
        path.unlink()
    elif fault == "extra":
        path.with_name("more.npy").write_bytes(b"x")
    else:
        path.write_bytes(damaged[fault])
    assert cache_folder.open_whole(tmp_path, "one") is None
    assert names(tmp_path) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, key in enumerate(("new", "old", "older")):
        os.utime(write_folder(tmp_path, key) / "meta.json", (time.time() - 1000 * age,) * 2)
    size = sum(path.stat().st_size for path in (tmp_path / "new").iterdir())
    assert cache_folder.make_room(tmp_path, size, 3 * size)
    assert names(tmp_path) == ["new", "old"]
    assert cache_folder.make_room(tmp_path, size, size)
    assert names(tmp_path) == []


def test_opening_counts_as_use(tmp_path):
    for key in ("first", "second"):
        os.utime(write_folder(tmp_path, key) / "meta.json", (1, 1))
    cache_folder.open_whole(tmp_path, "first").close()
    size = sum(path.stat().st_size for path in (tmp_path / "first").iterdir())
    cache_folder.make_room(tmp_path, size, 2 * size)
    assert names(tmp_path) == ["first"]


def test_a_folder_in_use_stays(tmp_path):
    write_folder(tmp_path, "one")
    hold = cache_folder.open_whole(tmp_path, "one")
    assert not cache_folder.make_room(tmp_path, BLOCK, BLOCK)
    assert names(tmp_path) == ["one"]
    hold.close()
    assert cache_folder.make_room(tmp_path, BLOCK, BLOCK)
    assert names(tmp_path) == []


def test_more_than_the_limit_never_fits(tmp_path):
    write_folder(tmp_path, "one")
    assert not cache_folder.make_room(tmp_path, 10, 9)
    assert names(tmp_path) == ["one"]  # nothing is cleared away in vain


def test_more_than_the_disk_holds_never_fits(tmp_path):
    assert not cache_folder.make_room(tmp_path, 1 << 60, 1 << 61)


KILLED = """
import pathlib, sys, time
from pipeline.data import cache_folder
with cache_folder.building(pathlib.Path(sys.argv[1]), "one") as folder:
    (folder / "images.npy").write_bytes(b"half")
    print("building", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_builder_left_is_swept_and_a_live_one_is_left_alone(tmp_path):
    builder = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert builder.stdout.readline() == "building\n"
        (left,) = names(tmp_path)
        write_folder(tmp_path, "two")
        assert names(tmp_path) == [left, "two"]  # its owner lives
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        builder.stdout.close()
    assert cache_folder.open_whole(tmp_path, "one") is None
    write_folder(tmp_path, "three")
    assert names(tmp_path) == ["three", "two"]


def test_the_second_of_two_builders_keeps_what_the_first_made(tmp_path):
    with cache_folder.building(tmp_path, "one") as slow:
        (slow / "images.npy").write_bytes(b"slow")
        slow.rename(slow.with_name(".one.tmp-other"))  # as if it belonged to another process
        write_folder(tmp_path, "one")
        slow.with_name(".one.tmp-other").rename(slow)
    hold = cache_folder.open_whole(tmp_path, "one")
    assert (hold.folder / "facts.npy").read_bytes() == b"facts"
