"""A search is killed at any moment, and ends as if it had not been."""

import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.bundle import read_bundle
from pipeline.errors import StoppedEarly
from pipeline.search.storage.attempts import Attempt
from pipeline.search.storage.store import StudyStore
from pipeline.states import AttemptState, TrainingKind
from tests.search import study_process
from tests.search.stubs import EPOCH_SECONDS, FAILING, ends

pytestmark = pytest.mark.heavy

NUM_TRIALS = 20
CRASH_POINTS = (
    "before-commit", "after-commit", "before-submit", "before-epoch", "after-epoch", "before-rename", "after-rename",
    "student-trained", "baseline-trained", "twin-trained", "final-trained", "facts-written", "before-adopt",
    "model-removed", "after-adopt",
)  # fmt: skip


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with all imports done: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.search.study_process"])
    return context


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory, processes) -> tuple[Path, float]:
    """The folder of a study that nobody disturbed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("unkilled") / "study"
    warm = processes.Process(target=os.getpid)
    warm.start()
    warm.join()
    began = time.monotonic()
    process = processes.Process(target=study_process.run, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - began


def attempts_of(folder: Path) -> list[Attempt]:
    """Return the attempts on disk; none before the study was created."""
    if not (folder / "study.db").exists():
        return []
    store = StudyStore(folder / "study.db")
    try:
        return store.attempts() if store.is_created() else []
    finally:
        store.close()


def check_progress(before: list[Attempt], after: list[Attempt]) -> None:
    """Check that what had ended is still there, unchanged."""
    kept = {attempt.id: attempt for attempt in after}
    assert all(kept.get(attempt.id) == attempt for attempt in before if attempt.ended is not None)


def check_same_end(folder: Path, unkilled: Path) -> None:
    """Check that two studies hold the same trials and the same model."""
    check_whole(folder)
    stores = [StudyStore(each / "study.db") for each in (folder, unkilled)]
    found, expected = (store.trials() for store in stores)
    assert ends(found) == ends(expected)
    models = [read_bundle(each / "model") for each in (folder, unkilled)]
    assert models[0].card == models[1].card
    for store in stores:
        store.close()


def check_whole(folder: Path) -> None:
    """Check that no trial is lost or there twice, that every rung was finished once, and that a winner was trained."""
    store = StudyStore(folder / "study.db")
    found = store.trials()
    assert [row.number for row in found] == list(range(NUM_TRIALS))
    assert len({repr(row.params) for row in found}) == NUM_TRIALS
    assert [row.number for row in found if row.state != "COMPLETED"] == sorted(FAILING)
    assert max(row.rung for row in found) == 2
    attempts = store.attempts()
    done = [(each.training, each.rung) for each in attempts if each.state == AttemptState.DONE]
    reached = [(row.number, rung) for row in found for rung in range(row.rung + 1)]
    assert len(set(done)) == len(done)
    assert {key for key in done if not isinstance(key[0], TrainingKind)} <= set(reached)
    assert [training for training, _ in done].count(TrainingKind.FINAL) == 1
    assert [training for training, _ in done].count(TrainingKind.BASELINE) == 1
    assert [training for training, _ in done].count(TrainingKind.STUDENT) == 1
    assert [training for training, _ in done].count(TrainingKind.SECOND_SEED) == 1
    assert "averaged" in store.get("ensemble")
    assert store.get("distillation")["reason"] == "no better on the validation images"
    baseline = store.get("baseline")
    assert (baseline["params"], baseline["epochs"], baseline["reason"]) == ({"filters": 16}, 9, "")
    assert not [each for each in attempts if each.state == AttemptState.STARTED]
    store.close()
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    # The last checkpoint stays if the kill came after the end of the study, until the next last training.
    left = {"trials.log", "study.db-wal", "study.db-shm", "checkpoints/final.npz", "checkpoints/baseline.npz",
            "checkpoints/student.npz", "checkpoints/twin.npz"}  # fmt: skip
    logits = {name for name in names if re.fullmatch(r"logits/t[-\d]+\.npz", name)}
    assert names - left - logits == {
        "study.db", "lock", "model/model.json", "model/model.keras", "teacher/weights.npz",
    }  # fmt: skip


@pytest.mark.parametrize("num_kills", [200, pytest.param(2000, marks=pytest.mark.faults)])
def test_a_search_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path, processes, unkilled, num_kills):
    for folder in killed_searches(tmp_path, processes, unkilled[1], num_kills):
        check_same_end(folder, unkilled[0])


@pytest.mark.parametrize("num_kills", [40, pytest.param(400, marks=pytest.mark.faults)])
def test_with_several_workers_no_trial_is_lost_or_trained_twice(tmp_path, processes, unkilled, num_kills):
    """Which trials go on depends on who ends first, so that a killed search may differ; what holds is counted."""
    for folder in killed_searches(tmp_path, processes, unkilled[1], num_kills, num_workers=3):
        check_whole(folder)


def killed_searches(tmp_path, processes, seconds, num_kills, num_workers=1):
    """Yield the folders of searches that reached their end though they were killed that often, all together."""
    rng = random.Random(num_kills)
    kills, limit = 0, seconds / 4
    for number in range(num_kills):
        folder = tmp_path / str(number)
        seen: list[Attempt] = []
        while True:
            process = processes.Process(target=study_process.run, args=(folder, NUM_TRIALS, num_workers))
            process.start()
            process.join(rng.uniform(0.0, limit))
            process.kill()
            process.join()
            now = attempts_of(folder)
            check_progress(seen, now)
            # A machine that became busier must not keep a search from ever getting past its start.
            limit = 1.5 * limit if now == seen else seconds / 4
            seen = now
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            kills += 1
        yield folder
        if kills >= num_kills:
            return


@pytest.mark.parametrize("place", CRASH_POINTS)
def test_a_search_that_dies_at_a_named_place_ends_as_if_it_had_not(tmp_path, processes, unkilled, place):
    reached = []
    for count in (1, 2, 17):
        folder = tmp_path / str(count)
        process = processes.Process(target=study_process.run, args=(folder,), kwargs={"crash_at": f"{place}:{count}"})
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        reached.append(process.exitcode != 0)
        seen = attempts_of(folder)
        process = processes.Process(target=study_process.run, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == 0
        check_progress(seen, attempts_of(folder))
        check_same_end(folder, unkilled[0])
    assert reached[0]  # the place exists


def living(session: int) -> list[int]:
    """Return the processes of a session that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, _group, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended while we looked
            continue
        if int(own) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def wait_until_gone(session: int) -> None:
    """Wait for the processes of a session to end."""
    end = time.monotonic() + 60
    while living(session):
        assert time.monotonic() < end, f"left behind: {living(session)}"
        time.sleep(0.02)


def start(folder: Path, *options: str) -> subprocess.Popen:
    """Start a search with real children in a session of its own."""
    command = [sys.executable, "-m", "tests.search.study_process", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, EPOCH_SECONDS: "0.01"},
    )  # fmt: skip


def child_of(process: subprocess.Popen) -> int | None:
    """Return the process that trains for a search, once it is there."""
    for pid in living(process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            return pid
    return None


def wait_for_training(process: subprocess.Popen, folder: Path, num_ended: int) -> None:
    """Wait until a search has ended more attempts than that, or has itself ended."""
    end = time.monotonic() + 120
    while process.poll() is None and sum(each.ended is not None for each in attempts_of(folder)) <= num_ended:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("num_kills", [15, pytest.param(150, marks=pytest.mark.faults)])
def test_a_search_whose_processes_are_killed_leaves_none_behind_and_ends_the_same(tmp_path, unkilled, num_kills):
    """One kill in five hits a child; never twice the same study, since a trial that dies twice is CRASHED."""
    rng = random.Random(num_kills)
    kills = children_killed = 0
    for number in range(num_kills):
        folder = tmp_path / str(number)
        seen: list[Attempt] = []
        has_lost_child = False
        while True:
            process = start(folder, "--children")
            if rng.random() < 0.75:
                wait_for_training(process, folder, sum(each.ended is not None for each in seen) + rng.randrange(6))
            time.sleep(rng.uniform(0.0, 0.2))
            child = None if has_lost_child else child_of(process)
            if child is not None:
                os.kill(child, signal.SIGKILL)
                has_lost_child = True
                kills += 1
                children_killed += 1
                wait_for_training(process, folder, len(attempts_of(folder)) + 1)
            process.kill()
            errors = process.communicate()[1]
            wait_until_gone(process.pid)
            now = attempts_of(folder)
            check_progress(seen, now)
            seen = now
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, errors
            kills += 1
        check_same_end(folder, unkilled[0])
        if kills >= num_kills:
            break
    assert children_killed > num_kills / 15


# ---- locks and clocks -----------------------------------------------------------------------------------------------


def test_of_two_processes_on_a_study_one_works_and_the_other_names_it(tmp_path, processes, unkilled):
    folder = tmp_path / "study"
    first = start(folder, "--children")
    wait_for_training(first, folder, 2)
    began = time.monotonic()
    with pytest.raises(StoppedEarly, match=rf"study study is in use by process {first.pid} on {socket.gethostname()};"):
        study_process.run(folder)
    assert time.monotonic() - began < 1.0
    first.kill()
    first.communicate()
    process = processes.Process(target=study_process.run, args=(folder,))  # the lock of a dead process does not block
    process.start()
    process.join()
    assert process.exitcode == 0
    check_same_end(folder, unkilled[0])
    wait_until_gone(first.pid)


def test_many_that_begin_at_once_work_one_after_the_other_or_not_at_all(tmp_path, processes, unkilled):
    folder = tmp_path / "study"
    group = [processes.Process(target=study_process.run, args=(folder,)) for _ in range(6)]
    for process in group:
        process.start()
    for process in group:
        process.join()
    codes = {process.exitcode for process in group}
    assert codes in ({0, 1}, {0})  # the second where each was done before the next one began
    check_same_end(folder, unkilled[0])


def test_a_wall_clock_that_jumps_by_days_changes_nothing(tmp_path, unkilled):
    process = start(tmp_path / "study", "--children", "--workers", "1", "--jump-clock")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    check_same_end(tmp_path / "study", unkilled[0])
    attempts = attempts_of(tmp_path / "study")
    assert {attempt.state for attempt in attempts} == {AttemptState.DONE, AttemptState.FAILED}
    assert json.loads(output)["epochs"] == 3 * 9  # of three networks
