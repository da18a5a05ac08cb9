"""Processes that open, build and clear the same cache folders at once never fail, nor take a folder from another."""

import fcntl
import os
import subprocess
import sys

import pytest

from pipeline.data.cache import folder as cache_folder


def fill(folder):
    (folder / "images.npy").write_bytes(b"images")


def use(home, key):
    return cache_folder.open_or_build(home, key, fill)


def build(home, key):
    use(home, key).close()


def build_damaged(home):
    build(home, "one")
    (home / "one" / "images.npy").write_bytes(b"damage")


def build_and_clear(home):
    build(home, "one")
    cache_folder.clear(home / "one")


def make_room(home):
    cache_folder.make_room(home, 1000, 1000)


START = {
    "nothing is there": lambda home: None,
    "a whole folder is there": lambda home: build(home, "one"),
    "a damaged folder is there": build_damaged,
}
OTHERS = {
    "makes room": make_room,
    "builds the same and uses it": lambda home: use(home, "one"),
    "builds the same and clears it": build_and_clear,
    "builds another": lambda home: build(home, "two"),
}


def interrupted(line, intrude, call):
    """Call `call`, and `intrude` before line number `line` of those of cache_folder.py that it comes to.

    Return what both return, and whether it came so far.
    """
    left, intruded = line, None

    def at_line(frame, event, argument):
        nonlocal left, intruded
        left -= event == "line"
        if event == "line" and left == 0:
            intruded = intrude()
        return at_line

    def at_call(frame, event, argument):
        return at_line if frame.f_code.co_filename == cache_folder.__file__ else None

    tracer = sys.gettrace()
    sys.settrace(at_call)
    try:
        return call(), intruded, left <= 0
    finally:
        sys.settrace(tracer)


@pytest.mark.heavy
@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("other", OTHERS)
def test_another_process_may_come_between_any_two_lines(tmp_path, monkeypatch, start, other):
    """The other process is a call in between: a lock belongs to an open file, not to a process."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here
    home = tmp_path / "images"

    def build_here(folder):
        make_room(home)
        fill(folder)

    line, is_reached = 0, True
    while is_reached:
        line += 1
        build(home, "old")
        START[start](home)
        hold, kept, is_reached = interrupted(
            line, lambda: OTHERS[other](home), lambda: cache_folder.open_or_build(home, "one", build_here)
        )
        holds = [hold] if kept is None else [hold, kept]
        assert [(one.folder / "images.npy").read_bytes() for one in holds] == [b"images"] * len(holds)
        assert [cache_folder.clear(one.folder) for one in holds] == [False] * len(holds)
        names = {path.name for path in home.iterdir()}
        assert names <= {"old", "two", *(one.folder.name for one in holds)}
        assert "one" in names
        for one in holds:
            one.close()
            cache_folder.clear(one.folder)
        cache_folder.clear(home / "two")
    assert line > 40  # else no line was seen


def test_a_builder_that_gives_up_takes_nothing_from_one_that_clears_its_folder_away(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    home = tmp_path / "images"

    def fail(folder):
        fill(folder)
        raise OSError("full")

    def give_up():
        with pytest.raises(OSError, match="full"):
            cache_folder.open_or_build(home, "one", fail)

    def begin_to_clear():
        return [cache_folder.take(folder, fcntl.LOCK_EX) for folder in home.glob(".*.tmp-*")]

    line, is_reached, num_taken = 0, True, 0
    while is_reached:
        line += 1
        _, taken, is_reached = interrupted(line, begin_to_clear, give_up)
        for hold in filter(None, taken or ()):
            num_taken += 1
            assert (hold.folder / cache_folder.LOCK).exists()
            hold.close()
            assert cache_folder.clear(hold.folder)
    assert num_taken > 0
    assert list(home.iterdir()) == []


PROCESS = """
import pathlib, random, sys
from pipeline.data.cache import folder as cache_folder

home = pathlib.Path(sys.argv[1])
dice = random.Random(sys.argv[2])
num_bytes, limit_bytes = 1000, 4000
for _ in range(300):
    key = f"key{dice.randrange(6)}"

    def build(folder):
        cache_folder.make_room(home, num_bytes, limit_bytes)
        (folder / "images.npy").write_bytes(key.encode() * (num_bytes // len(key)))

    hold = cache_folder.open_or_build(home, key, build)
    place = hold.folder.stat().st_ino
    dice.random() < 0.5 and cache_folder.make_room(home, num_bytes, limit_bytes)
    assert (hold.folder / "images.npy").read_bytes() == key.encode() * (num_bytes // len(key))
    assert hold.folder.stat().st_ino == place
    hold.close()
print("no error")
"""


@pytest.mark.heavy
def test_two_processes_share_a_cache_that_is_too_small_for_both(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, tmp_path / "images", str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    assert [process.communicate() for process in both] == [("no error\n", "")] * 2
