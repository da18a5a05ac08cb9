"""The ten thousandth trial costs what the first did; benchmarks/search_overhead.py measures the seconds."""

import sys

import pytest

from pipeline.search.loop import run_trials
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from tests.search.stubs import InstantEngine, Silence, make_study, train_at_once, unlimited

pytestmark = pytest.mark.heavy

BLOCK = 200


class Effort(Silence):
    """Counts, for the first and the last block of trials, Python's calls and thousands of steps of SQLite's machine."""

    def __init__(self, study, num_trials: int) -> None:
        self.study = study
        self.starts = {BLOCK: "first", num_trials - BLOCK: "last"}  # after a warm-up, and before the end game
        self.calls: dict[str, int] = {}
        self.steps: dict[str, int] = {}
        self.block = ""
        study.store.connection.set_progress_handler(self.count_steps, 1000)

    def refresh(self, _running):
        block = next((name for start, name in self.starts.items() if 0 <= len(self.study.rows) - start < BLOCK), "")
        if block != self.block:
            self.block = block
            sys.setprofile(self.count_call if block else None)

    def count_call(self, _frame, event, _argument):
        if event in ("call", "c_call"):
            self.calls[self.block] = self.calls.get(self.block, 0) + 1

    def count_steps(self):
        if self.block:
            self.steps[self.block] = self.steps.get(self.block, 0) + 1
        return 0


@pytest.mark.parametrize("num_trials", [2_000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_a_trial_costs_the_same_at_the_end_of_a_long_search(tmp_path, num_trials):
    study = make_study(tmp_path, unlimited(num_trials))
    effort = Effort(study, num_trials)
    tracer = sys.getprofile()
    try:
        run_trials(study, InstantEngine(train_at_once), effort)
    finally:
        sys.setprofile(tracer)
    assert len(study.store.trials()) == num_trials
    assert effort.calls["last"] < 1.5 * effort.calls["first"]
    assert effort.steps["last"] < 1.5 * effort.steps["first"] + 5
    study.store.close()
    statements: list[str] = []
    store = StudyStore(tmp_path / "study.db")
    store.connection.set_trace_callback(statements.append)
    again = Study(store, study.make_oracle, study.objective, study.estimates)
    assert again.recover() == num_trials
    assert len(statements) < 20
