"""Whatever becomes of a child process, the parent gets an outcome with a reason."""

import os
import signal
import time
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

import pebble
import pytest

from pipeline.errors import InvalidUsage
from pipeline.records import ImageSpec, TrialTask
from pipeline.search.engine import LocalEngine, collect
from pipeline.search.store import StudyStore

TASK = TrialTask("study", attempt=7, number=3, rung=0, epochs=2, params={}, seed=1, seconds_limit=10.0)


def failed(error):
    future = Future()
    future.set_exception(error)
    return collect(TASK, future)


def expired(exitcode):
    error = pebble.ProcessExpired("Abnormal termination")
    error.exitcode = exitcode
    return error


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (expired(-9), "CRASHED", "its process died (signal 9, as the kernel sends when memory runs out)"),
        (expired(-11), "CRASHED", "its process died (signal 11)"),
        (expired(3), "CRASHED", "its process died (exit code 3)"),
        (TimeoutError(), "TIMEOUT", "still running 60 s after its limit of 10 s; killed"),
        (ValueError("no pickle"), "FAILED", "ValueError: no pickle"),
    ],
)
def test_an_end_without_a_result_becomes_an_outcome(error, state, reason):
    outcome = failed(error)
    assert (outcome.state, outcome.reason, outcome.score) == (state, reason, None)
    assert (outcome.attempt, outcome.number) == (7, 3)


def test_a_missing_backend_says_what_to_install(tmp_path):
    engine = LocalEngine(1, 1, tmp_path / "log")
    future = Future()
    future.set_exception(ModuleNotFoundError("No module named 'tensorflow'"))
    engine.warming = [future]
    with pytest.raises(InvalidUsage, match="pip install tensorflow-cpu"):
        engine.check()


@pytest.fixture
def study_folder(tmp_path):
    """A study of 40 noise images, ready for children to train on."""
    import numpy as np

    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8))
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "labels.npy", np.arange(40, dtype=np.int32) % 2)
    np.save(tmp_path / "data" / "splits.npy", np.repeat(np.array([0, 1, 2], np.uint8), (24, 8, 8)))
    store = StudyStore(tmp_path / "study.db")
    image = asdict(ImageSpec(8, 8, 1))
    store.create({"cache": str(tmp_path), "image": image, "classes": ["a", "b"], "mean": [128.0], "std": [74.0]})
    for number in range(4):
        store.add_trial(number, {}, 0, 0.0)
        store.start_attempt(number, 0, 2)
    store.close()
    return tmp_path


def task(folder: Path, number: int, **params) -> TrialTask:
    values = {"depth": 1, "filters": 8, "batch_size": 8, **params}
    return TrialTask(str(folder), number + 1, number, 0, 2, values, seed=1, seconds_limit=600.0)


def outcome_of(engine):
    while True:
        for outcome in engine.wait(0.1):
            return outcome


@pytest.mark.heavy
def test_children_train_fail_die_and_are_replaced(study_folder):
    before = dict(os.environ)
    engine = LocalEngine(1, 1, study_folder / "trials.log")
    engine.start()
    try:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # the parent never touches a GPU
        engine.submit(task(study_folder, 0))
        trained = outcome_of(engine)
        assert (trained.state, 0 <= trained.score <= 1) == ("COMPLETED", True)
        engine.submit(task(study_folder, 1, pooling="no such pooling", depth=2))
        raised = outcome_of(engine)
        assert (raised.state, "no such pooling" in raised.reason) == ("FAILED", True)
        engine.submit(task(study_folder, 2, head="flatten", dense_layers=1, dense_units=1_000_000_000))
        assert outcome_of(engine).state == "INFEASIBLE"
        engine.submit(task(study_folder, 3))
        for pid in pebble_children(engine):
            os.kill(pid, signal.SIGKILL)
        died = outcome_of(engine)
        assert (died.state, "its process died" in died.reason) == ("CRASHED", True)
        engine.submit(task(study_folder, 3))
        assert outcome_of(engine).state == "COMPLETED"  # by a new child
    finally:
        engine.stop()
        os.environ.clear()
        os.environ.update(before)
    rows = StudyStore(study_folder / "study.db").epochs(0)
    assert [row.step for row in rows] == [1, 2]


def pebble_children(engine):
    """Return the processes of the pool once one of them is there."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = list(engine.pool._pool_manager.worker_manager.workers)
        if found:
            return found
    raise AssertionError("no child started")
