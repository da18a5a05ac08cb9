"""A disk that is full stops a search with a message; what was done stays, and the search goes on when there is room."""

import errno
import os
import shutil
import sqlite3
import subprocess

import numpy as np
import pytest

from pipeline.errors import StoppedEarly
from pipeline.files import is_disk_full
from pipeline.machine import Resources
from pipeline.search.engines.local import LocalEngine, Work
from pipeline.search.finish import finish
from pipeline.search.health import clean_disk_errors
from pipeline.search.loop import run_trials
from pipeline.search.storage.store import StudyStore
from tests.search.fault_stubs import train_on_disk, warm_up
from tests.search.stubs import InstantEngine, Silence, ends, make_study, unlimited

DISK_MB = 16
STEP = 9 * 4096  # bytes that are free more each time: some 25 places at which the disk is full
BUDGET = unlimited(4, rungs=(1000, 3000))


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk that can be filled needs the right to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, num_free: int) -> None:
    """Fill a disk up to some bytes."""
    with (disk / "ballast").open("wb") as file:
        room = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - num_free)


def search(folder, engine=None, free_floor_mb: int = 0):
    """Search to the end, as the command does, or go on with what is there; return what it found."""
    with clean_disk_errors(folder):
        engine = engine or InstantEngine(train_on_disk)
        study = make_study(folder, BUDGET)
        try:
            if not study.store.has_final_model():
                run_trials(study, engine, Silence(), free_floor_mb=free_floor_mb)
            finished = finish(study, engine, Silence())
            return ends(study.store.trials()), finished.winner.number, finished.card.evaluation.test
        finally:
            study.store.close()


def done(folder) -> set:
    """Return what a study holds that must not be lost; no trial failed because of the disk."""
    if not (folder / "study.db").exists():
        return set()
    store = StudyStore(folder / "study.db", is_read_only=True)
    try:
        attempts = store.attempts() if store.is_created() else []
    finally:
        store.close()
    assert {attempt.state for attempt in attempts} <= {"STARTED", "DONE", "STOPPED"}
    return {(each.id, each.training, each.rung, each.score) for each in attempts if each.state == "DONE"}


@pytest.mark.heavy
def test_a_search_survives_a_full_disk_wherever_it_happens(disk, tmp_path):
    expected = search(tmp_path / "elsewhere")
    messages: list[str] = []
    for num_free in range(0, 4_000_000, STEP):
        folder = disk / str(num_free)
        fill(disk, num_free)
        try:
            found = search(folder)
        except StoppedEarly as error:
            messages.append(str(error))
            (disk / "ballast").unlink()
            before = done(folder)
            found = search(folder)
            assert before <= done(folder)
        assert found == expected
        shutil.rmtree(folder)
        if (disk / "ballast").exists():  # it went through at once: there was room enough
            break
    assert len(messages) > 10
    assert [text for text in messages if "--resume" not in text or "free some space" not in text] == []
    places = ("database or disk is full", "no checkpoint can be written", "the last training of trial")
    assert [place for place in places if not any(place in text for text in messages)] == []


def test_a_search_does_not_begin_below_the_floor_of_free_space(disk, tmp_path):
    fill(disk, 6_000_000)
    with pytest.raises(StoppedEarly, match=r"disk: 6 MB of disk are free, and at least 8 MB are needed.*--resume"):
        search(disk, free_floor_mb=8)
    store = StudyStore(disk / "study.db")
    assert (store.trials(), store.attempts()) == ([], [])
    store.close()
    (disk / "ballast").unlink()
    assert search(disk, free_floor_mb=8) == search(tmp_path / "elsewhere")


@pytest.mark.heavy
def test_a_child_that_meets_a_full_disk_is_not_blamed(disk, tmp_path):
    def search_with_children(folder):
        engine = LocalEngine([Resources(1)] * 2, tmp_path / "log", Work(train_on_disk, warm_up))
        engine.start()
        try:
            return search(folder, engine)
        finally:
            engine.stop()

    fill(disk, 350_000)  # for the study and one checkpoint, not for two
    with pytest.raises(StoppedEarly, match=r"disk is full.*free some space.*--resume"):
        search_with_children(disk)
    (disk / "ballast").unlink()
    before = done(disk)
    rows, _, test = search_with_children(disk)
    assert before <= done(disk)
    assert [(row[0], row[2]) for row in rows] == [(number, "COMPLETED") for number in range(4)]
    assert test.num_images == 97


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("1000000 requested and 8176 written"),
        OSError(errno.EROFS, "Read-only file system"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("attempt to write a readonly database"),
    ],
)
def test_what_a_disk_refuses_is_told_and_bugs_keep_their_traceback(tmp_path, error):
    with pytest.raises(StoppedEarly, match="free some space, or allow writing") as told, clean_disk_errors(tmp_path):
        raise error
    assert str(error) in str(told.value)
    bug = sqlite3.OperationalError("no such column: epoch.lr")
    with pytest.raises(sqlite3.OperationalError), clean_disk_errors(tmp_path):
        raise bug


def test_numpy_says_that_a_disk_is_full_in_its_own_words(disk):
    fill(disk, 100_000)
    with pytest.raises(OSError, match="requested and") as caught:
        np.save(disk / "array.npy", np.zeros(1_000_000))
    assert is_disk_full(caught.value)
