"""Cache folders are whole or rebuilt, bounded, and never cleared away under a process that reads them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.data.cache import folder as cache_folder

BLOCK = 1000


def write_folder(home, key, size=BLOCK):
    def fill(folder):
        (folder / "images.npy").write_bytes(os.urandom(size))
        (folder / "facts.npy").write_bytes(b"facts")

    hold = cache_folder.open_or_build(home, key, fill)
    hold.close()
    return hold.folder


@pytest.fixture
def home(tmp_path):
    """A home as a workspace has several side by side."""
    return tmp_path / "cache" / "images"


def names(home):
    return sorted(path.name for path in home.iterdir())


def test_a_folder_appears_whole_and_opens(home):
    folder = write_folder(home, "one")
    assert names(home) == ["one"]
    hold = cache_folder.open_whole(home, "one")
    assert hold is not None
    assert hold.folder == folder


def fill(folder):
    (folder / "images.npy").write_bytes(b"images")


def never(folder):
    raise AssertionError("built again")


def test_what_is_built_is_open_and_held_and_built_once(home):
    hold = cache_folder.open_or_build(home, "one", fill)
    assert (hold.folder / "images.npy").read_bytes() == b"images"
    assert not cache_folder.clear(home / "one")
    assert cache_folder.open_or_build(home, "one", never).folder == hold.folder


def test_a_damaged_folder_that_another_process_holds_stays_and_is_not_trusted(home):
    first = cache_folder.open_or_build(home, "one", fill)
    (home / "one" / "images.npy").write_bytes(b"damage")
    second = cache_folder.open_or_build(home, "one", fill)
    assert (first.folder / "images.npy").read_bytes() == b"damage"
    assert (second.folder / "images.npy").read_bytes() == b"images"
    assert cache_folder.clear(second.folder) is False
    first.close()
    second.close()
    repaired = cache_folder.open_or_build(home, "one", fill)
    assert (repaired.folder / "images.npy").read_bytes() == b"images"
    assert names(home) == ["one"]


def test_homes_side_by_side_share_the_limit_and_the_sweep(home):
    other = home.with_name("arrays")
    os.utime(write_folder(other, "old") / "meta.json", (1, 1))
    write_folder(home, "new")
    left = other / ".half.tmp-1"
    left.mkdir()
    (left / "in-use").touch()
    size = sum(path.stat().st_size for path in (home / "new").iterdir())
    assert cache_folder.make_room(home, size, 2 * size)
    write_folder(home, "newer")
    assert (names(home), names(other)) == (["new", "newer"], [])


def test_a_build_that_fails_leaves_nothing(home):
    def fail(folder):
        (folder / "images.npy").write_bytes(b"half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        cache_folder.open_or_build(home, "one", fail)
    assert names(home) == []


@pytest.mark.parametrize("name", ["images.npy", "facts.npy", "meta.json"])
@pytest.mark.parametrize("fault", ["flip", "cut", "zero", "gone", "extra"])
def test_a_damaged_folder_is_removed_and_not_trusted(home, name, fault):
    path = write_folder(home, "one") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": bytes(content), "cut": path.read_bytes()[: len(content) // 2], "zero": bytes(len(content))}
    if fault == "gone":
        path.unlink()
    elif fault == "extra":
        path.with_name("more.npy").write_bytes(b"x")
    else:
        path.write_bytes(damaged[fault])
    assert cache_folder.open_whole(home, "one") is None
    assert names(home) == []


def test_what_was_not_used_for_longest_goes_first(home):
    for age, key in enumerate(("new", "old", "older")):
        os.utime(write_folder(home, key) / "meta.json", (time.time() - 1000 * age,) * 2)
    size = sum(path.stat().st_size for path in (home / "new").iterdir())
    assert cache_folder.make_room(home, size, 3 * size)
    assert names(home) == ["new", "old"]
    assert cache_folder.make_room(home, size, size)
    assert names(home) == []


def test_opening_counts_as_use(home):
    for key in ("first", "second"):
        os.utime(write_folder(home, key) / "meta.json", (1, 1))
    cache_folder.open_whole(home, "first").close()
    size = sum(path.stat().st_size for path in (home / "first").iterdir())
    cache_folder.make_room(home, size, 2 * size)
    assert names(home) == ["first"]


def test_a_folder_in_use_stays(home):
    write_folder(home, "one")
    hold = cache_folder.open_whole(home, "one")
    assert not cache_folder.make_room(home, BLOCK, BLOCK)
    assert names(home) == ["one"]
    hold.close()
    assert cache_folder.make_room(home, BLOCK, BLOCK)
    assert names(home) == []


def test_more_than_the_limit_never_fits(home):
    write_folder(home, "one")
    assert not cache_folder.make_room(home, 10, 9)
    assert names(home) == ["one"]  # nothing is cleared away in vain


def test_more_than_the_disk_holds_never_fits(home):
    home.mkdir(parents=True)
    assert not cache_folder.make_room(home, 1 << 60, 1 << 61)


KILLED = """
import pathlib, sys, time
from pipeline.data.cache import folder as cache_folder

def build(folder):
    (folder / "images.npy").write_bytes(b"half")
    print("building", flush=True)
    time.sleep(60)

cache_folder.open_or_build(pathlib.Path(sys.argv[1]), "one", build)
"""


@pytest.mark.heavy
def test_what_a_killed_builder_left_is_swept_and_a_live_one_is_left_alone(home):
    builder = subprocess.Popen([sys.executable, "-c", KILLED, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert builder.stdout.readline() == "building\n"
        (left,) = names(home)
        write_folder(home, "two")
        assert names(home) == [left, "two"]  # its owner lives
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        builder.stdout.close()
    assert cache_folder.open_whole(home, "one") is None
    write_folder(home, "three")
    assert names(home) == ["three", "two"]


def test_a_folder_without_its_lock_file_is_built_again(home):
    (write_folder(home, "one") / "in-use").unlink()
    hold = cache_folder.open_or_build(home, "one", fill)
    assert (hold.folder / "images.npy").read_bytes() == b"images"
    assert not cache_folder.clear(home / "one")
    assert names(home) == ["one"]


def test_where_no_lock_can_be_relied_on_nothing_is_built(home, monkeypatch):
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)  # a disk that numbers a file anew at each look
    with pytest.raises(OSError, match="images: a file there cannot be locked; expected a file system with locks"):
        cache_folder.open_or_build(home, "one", never)


def test_the_second_of_two_builders_takes_what_the_first_made(home):
    """Both have one process id, as in two containers."""

    def build_slowly(folder):
        fill(folder)
        (folder / "facts.npy").write_bytes(b"slow")
        write_folder(home, "one")

    hold = cache_folder.open_or_build(home, "one", build_slowly)
    assert (hold.folder / "facts.npy").read_bytes() == b"facts"
    assert not cache_folder.clear(home / "one")
    assert names(home) == ["one"]


READER = """
import os, pathlib
from pipeline.data.cache import folder as cache_folder
from pipeline.files import is_locked
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
home = pathlib.Path("images")
assert not os.access(home / "one" / cache_folder.LOCK, os.W_OK)
hold = cache_folder.open_whole(home, "one")
print((hold.folder / "images.npy").read_text(), cache_folder.clear(home / "one"), is_locked(home / "one" / "in-use"))
"""


@pytest.mark.heavy
def test_a_folder_that_can_only_be_read_is_opened_and_held(home):
    cache_folder.open_or_build(home, "one", fill).close()
    for path in (*(home / "one").iterdir(), home / "one", home):
        path.chmod(0o555)
    home.parent.chmod(0o755)
    reader = subprocess.run([sys.executable, "-c", READER], cwd=home.parent, capture_output=True, text=True)
    home.chmod(0o755)
    (home / "one").chmod(0o755)
    assert (reader.stdout, reader.stderr) == ("images False False\n", "")
