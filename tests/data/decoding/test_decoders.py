"""Whatever a file does to the child that decodes it, the others are decoded and the culprit is named."""

import ctypes
import os
import signal
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import pytest

from pipeline.data.decoding import decoders
from pipeline.data.decoding.chunks import Chunk
from pipeline.data.decoding.decoders import Decoders, Killed, chunks_of
from pipeline.data.source import FileLocation
from pipeline.errors import StoppedEarly

pytestmark = pytest.mark.heavy


def hostile(chunk):
    """Do what the name of each location says, and return the names."""
    names = [location.path for location in chunk.locations]
    if "die" in names:
        os.kill(os.getpid(), signal.SIGKILL)
    if "crash" in names:
        ctypes.string_at(0)
    if "hang" in names:
        time.sleep(600)
    if "bloat" in names:
        return [len(bytearray(6 << 30))]
    if "raise" in names:
        raise OSError(28, "No space left on device")
    return names


def run(*names, size=4):
    with Decoders(1) as pool:
        chunks = [
            Chunk(start, [FileLocation(name) for name in names[start : start + size]])
            for start in range(0, len(names), size)
        ]
        return list(pool.map(hostile, chunks))


def test_results_come_in_order_while_children_work():
    names = [f"{number}.png" for number in range(200)]
    with Decoders(2) as pool:
        found = list(pool.map(hostile, chunks_of(lambda row: FileLocation(names[row]), range(200), 1 << 20)))
    assert [chunk.first for chunk, _ in found] == list(range(0, 200, 16))  # 16 MiB of pixels a task
    assert [name for _, result in found for name in result] == names


@pytest.mark.parametrize(("kind", "signal_number"), [("die", 9), ("crash", 11)])
def test_a_file_that_kills_its_child_is_found_among_its_neighbours(kind, signal_number):
    found = run("a", kind, "c", "d", "e", "f")
    results = {chunk.first: result for chunk, result in found}
    assert results[0] == ["a"]
    assert isinstance(results[1], Killed)
    assert results[1].startswith(f"the decoder died (signal {signal_number}")
    assert [results[2], results[3], results[4]] == [["c"], ["d"], ["e", "f"]]


def test_a_file_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(decoders, "CHUNK_SECONDS", 1.0)
    monkeypatch.setattr(decoders, "FILE_SECONDS", 1.0)
    found = run("a", "hang", "c")
    assert [result for _, result in found] == [["a"], "the decoder did not end in time", ["c"]]


def test_a_child_cannot_take_all_memory():
    with pytest.raises(MemoryError):
        run("bloat")


def test_an_error_of_the_machine_is_raised_here():
    with pytest.raises(OSError, match="No space left"):
        run("a", "raise")


def test_a_chunk_holds_at_most_64_small_images():
    chunks = list(chunks_of(lambda row: FileLocation(str(row)), range(100), 3072))
    assert [(chunk.first, len(chunk.locations)) for chunk in chunks] == [(0, 64), (64, 36)]


def unable_once(marker):
    if not marker.exists():
        marker.touch()
        os._exit(3)


@pytest.mark.parametrize("size", [1, 4])
def test_a_child_that_is_killed_while_it_starts_is_replaced_and_no_file_is_blamed(monkeypatch, tmp_path, size):
    monkeypatch.setattr(decoders, "prepare_child", partial(unable_once, tmp_path / "died"))
    names = [f"{number}.png" for number in range(6)]
    found = run(*names, size=size)
    assert (tmp_path / "died").exists()
    assert [name for _, result in found for name in result] == names
    assert not any(isinstance(result, Killed) for _, result in found)


def test_a_pool_that_breaks_before_the_turn_of_an_image_does_not_blame_it():
    with Decoders(1) as pool:
        pool.check_started()
        broken, good = Future(), pool.submit
        broken.set_exception(BrokenProcessPool("an idle child died"))
        pending = [broken, broken]
        pool.submit = lambda work, chunk: pending.pop() if pending else good(work, chunk)
        ((_, result),) = pool.map(hostile, [Chunk(0, [FileLocation("a")])])
        assert result == ["a"]
        pending += [broken] * 4
        ((_, result),) = pool.map(hostile, [Chunk(0, [FileLocation("a")])])
        assert result == "the decoder could not be started again in 3 tries"


def unable():
    os._exit(3)


def test_children_that_cannot_start_are_no_fault_of_the_files(monkeypatch):
    monkeypatch.setattr(decoders, "prepare_child", unable)
    with pytest.raises(StoppedEarly, match="the process that decodes images cannot start"):
        run("a", "b")
