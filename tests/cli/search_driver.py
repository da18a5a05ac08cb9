"""A search without Keras, run as a process of its own: a real study and callback, and trainings that only pretend.

Usage: search_driver.py WORKSPACE NUM_TRIALS [raise]; with `raise` the engine fails when half of the trials are done.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from pipeline.cli.main import fail
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.errors import PipelineError
from pipeline.files import locked
from pipeline.heartbeat import Beat
from pipeline.records import Objective
from pipeline.search.events import Heartbeat, TrainingEnded
from pipeline.search.health import forget_stop
from pipeline.search.jobs import TrainingJob, TrialOutcome
from pipeline.search.loop import run_trials
from pipeline.search.storage.attempts import stored_number
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.budget import Budget
from pipeline.search.timing.estimates import StudyContext, TimeEstimates
from pipeline.space import load_space
from pipeline.states import OutcomeState
from pipeline.workflows.callback import following
from pipeline.workspace import StudyFolder, Workspace
from tests.search import stubs

STEP_SECONDS = 0.05
NUM_EPOCHS, NUM_BATCHES, NUM_CHILDREN = 3, 5, 2
FACTS = {
    **stubs.FACTS,
    "study": "photos-1",
    "dataset": "photos",
    "options": {"budget": None, "trials": 100, "epochs": None},
}


@dataclass
class PretendEngine:
    """Two children that count batches; every fifth trial has no memory."""

    halt_at: float = math.inf
    step_seconds: float = STEP_SECONDS
    running: list[TrainingJob] = field(default_factory=list)
    steps: Counter[int] = field(default_factory=Counter)
    num_done: int = 0

    def num_free(self):
        return NUM_CHILDREN - len(self.running)

    def submit(self, job):
        self.running.append(job)

    def poll(self, seconds):
        time.sleep(self.step_seconds)
        if self.num_done >= self.halt_at:
            raise RuntimeError("a bug in the engine")
        return [self.step(job) for job in list(self.running)]

    def step(self, job):
        epoch, batch = divmod(self.steps[job.attempt], NUM_BATCHES)
        self.steps[job.attempt] += 1
        number = stored_number(job.training)
        is_too_large = number % 5 == 4
        if is_too_large and epoch == 1:
            reason = f"\x1b[31mno memory\x1b[0m at [bold]batch[/bold] {number}"
            return self.end(job, OutcomeState.INFEASIBLE, reason=reason)
        if epoch == NUM_EPOCHS:
            return self.end(job, OutcomeState.COMPLETED, score=0.5 + number % 50 / 100)
        return Heartbeat(job.attempt, Beat(epoch + 1, NUM_EPOCHS, batch + 1, NUM_BATCHES))

    def end(self, job, state, **facts):
        self.running.remove(job)
        self.num_done += 1
        return TrainingEnded(TrialOutcome(job.attempt, job.training, job.rung, state, seconds=1.0, **facts))

    def interrupt(self):
        return [self.end(job, OutcomeState.STOPPED, reason="stopped") for job in list(self.running)]


@dataclass
class SampledProposals:
    """An oracle that proposes new configurations only."""

    limit: int

    def propose(self, next_number, is_acceptable):
        if next_number is None or next_number >= self.limit:
            return None
        params = {
            "depth": 1 + next_number % 3,
            "learning_rate": 0.001 * (next_number + 1),
            "batch_size": 32,
            "filters": 8,
        }
        return SimpleNamespace(number=next_number, rung=0, params=params)

    def begin(self, number, rung, params):
        pass

    report = tell = begin


def make_study(folder: Path, num_trials: int, elapsed) -> Study:
    store = StudyStore(folder / "study.db")
    if not store.is_created():
        store.create(FACTS)
    context = StudyContext(load_space("tiny"), (8, 8, 1), 10, num_images=100, num_final_images=120, seed=3, typical={})
    estimates = TimeEstimates(context, Budget(math.inf, None, (300,), math.inf, math.inf), elapsed, probed=1.0)
    study = Study(store, lambda: SampledProposals(num_trials), Objective(), estimates)
    study.recover()
    return study


def main(workspace: Path, num_trials: int, halt_at: float) -> None:
    folder = Workspace(workspace).studies / "photos-1"
    started = time.monotonic()
    try:
        with locked(folder / "lock", "study photos-1"), interruptions(lambda: "it can be resumed") as stop:
            forget_stop(StudyFolder(folder))
            study = make_study(folder, num_trials, lambda: time.monotonic() - started)
            with stop.deferred(), following(study, study.estimates.elapsed, stop, TerminalProgress()) as callback:
                run_trials(study, PretendEngine(halt_at), callback)
    except PipelineError as error:
        fail(str(error), error.exit_code)
    print("the result")


if __name__ == "__main__":
    count = int(sys.argv[2])
    main(Path(sys.argv[1]), count, count / 2 if "raise" in sys.argv else math.inf)
