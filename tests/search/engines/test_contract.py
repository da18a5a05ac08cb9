"""What a search needs of whoever trains: the same tests for each engine."""

import os
import time

import pytest

from pipeline.machine import Resources
from pipeline.search.engines.local import LocalEngine, Work
from pipeline.search.events import EpochEnded, Heartbeat, TrainingEnded
from pipeline.search.loop import run_trials
from tests.search import fault_stubs, stubs
from tests.search.engines.thread_engine import ThreadEngine
from tests.search.stubs import NUM_IMAGES, Silence, ends, job_in, make_study, score_of, unlimited


def child_engine(folder, train, num_workers):
    return LocalEngine([Resources(1)] * num_workers, folder / "log", Work(train, fault_stubs.warm_up))


def thread_engine(folder, train, num_workers):
    return ThreadEngine(train, num_workers)


@pytest.fixture(
    params=[
        pytest.param(child_engine, id="children", marks=pytest.mark.heavy),
        pytest.param(thread_engine, id="threads"),
    ]
)
def begin(request, tmp_path, monkeypatch):
    """Start engines of a kind, which are stopped after the test."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # an engine sets it
    engines = []

    def begin_engine(train=fault_stubs.train, num_workers=1):
        engines.append(request.param(tmp_path, train, num_workers))
        engines[-1].start()
        engines[-1].check()
        return engines[-1]

    yield begin_engine
    for engine in engines:
        engine.stop()


def bidden(folder, fault, attempt=1):
    return job_in(folder, attempt, 3, 0, 100, {"fault": fault}, seconds_limit=600.0)


def events_until_end(engine, num_jobs=1):
    """Return all events until some jobs have ended."""
    events, deadline = [], time.monotonic() + 60.0
    while sum(isinstance(event, TrainingEnded) for event in events) < num_jobs:
        assert time.monotonic() < deadline
        events += engine.poll(1.0)
    return events


class TestEngine:
    def test_a_job_is_told_from_its_first_heartbeat_to_its_end(self, begin, tmp_path):
        engine = begin(stubs.train)
        assert (engine.num_free(), list(engine.running)) == (1, [])
        job = job_in(tmp_path, 7, 2, 0, 3 * NUM_IMAGES, {"filters": 8}, first_step=4)
        engine.submit(job)
        assert (engine.num_free(), list(engine.running)) == (0, [job])
        first, *events = events_until_end(engine)
        assert isinstance(first, Heartbeat)
        assert [event.row.step for event in events if isinstance(event, EpochEnded)] == [4, 5, 6]
        outcome = events[-1].outcome
        assert (outcome.attempt, outcome.training, outcome.rung) == (7, 2, 0)
        assert (outcome.state, outcome.score) == ("COMPLETED", score_of(job.params, 0))
        assert (engine.num_free(), list(engine.running)) == (1, [])

    def test_what_two_jobs_tell_at_once_carries_their_attempts(self, begin, tmp_path):
        engine = begin(stubs.train, num_workers=2)
        jobs = [job_in(tmp_path, number, number, 0, 9 * NUM_IMAGES, {"filters": number}) for number in (1, 2)]
        for job in jobs:
            engine.submit(job)
        events = events_until_end(engine, num_jobs=2)
        for job in jobs:
            rows = [event.row for event in events if isinstance(event, EpochEnded) and event.attempt == job.attempt]
            assert [row.step for row in rows] == list(range(1, 10))
            assert {row.val_accuracy for row in rows} == {score_of(job.params, 0)}

    def test_a_training_that_raises_has_failed_and_the_next_job_is_done(self, begin, tmp_path):
        engine = begin()
        engine.submit(bidden(tmp_path, "raise_an_error"))
        outcome = events_until_end(engine)[-1].outcome
        assert (outcome.state, outcome.reason, outcome.score) == ("FAILED", "ValueError: no such layer", None)
        engine.submit(bidden(tmp_path, "work_as_bidden", attempt=2))
        assert events_until_end(engine)[-1].outcome.score == 0.5

    def test_a_poll_ends_at_once_without_jobs_and_in_time_with_one_that_says_nothing(self, begin, tmp_path):
        engine = begin()
        started = time.monotonic()
        assert engine.poll(60.0) == []
        assert time.monotonic() - started < 10.0
        engine.submit(bidden(tmp_path, "wait_in_silence"))
        while not engine.poll(0.1):  # its first heartbeat
            pass
        assert engine.poll(0.1) == []
        assert len(engine.running) == 1
        engine.interrupt()

    def test_each_worker_answers_a_call_and_raises_what_it_raised(self, begin):
        engine = begin(num_workers=2)
        pids = [future.result(60.0) for future in engine.call_all(os.getpid)]
        assert len(pids) == 2
        for future in engine.call_all(int, "seven"):
            with pytest.raises(ValueError, match="seven"):
                future.result(60.0)

    def test_an_interruption_stops_all_jobs_at_the_next_batch(self, begin, tmp_path):
        engine = begin(num_workers=2)
        for attempt in (1, 2):
            engine.submit(bidden(tmp_path, "step_until_asked", attempt))
        begun = set()
        while begun != {1, 2}:
            begun |= {event.attempt for event in engine.poll(0.1) if isinstance(event, Heartbeat)}
        outcomes = [event.outcome for event in engine.interrupt() if isinstance(event, TrainingEnded)]
        assert sorted((each.attempt, each.state) for each in outcomes) == [(1, "STOPPED"), (2, "STOPPED")]
        assert (engine.num_free(), engine.poll(0.1)) == (2, [])

    def test_a_search_finds_the_same_on_each_engine(self, begin, tmp_path):
        def search(engine, folder):
            study = make_study(folder, unlimited(8))
            run_trials(study, engine, Silence(), free_floor_mb=0)
            with study.store:
                epochs = [[(row.step, row.val_accuracy) for row in study.store.epochs(number)] for number in study.rows]
                return ends(study.store.trials()), epochs

        expected = search(stubs.InstantEngine(stubs.train), tmp_path / "instant")
        assert search(begin(stubs.train), tmp_path / "other") == expected
