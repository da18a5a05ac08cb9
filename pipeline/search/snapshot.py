"""How far a study is, by its file and the heartbeats of its trainings: for the live board and other terminals."""

import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.card import num_networks
from pipeline.errors import DataError
from pipeline.files import lock_owner
from pipeline.heartbeat import read_beat
from pipeline.records import Objective, TrialRow
from pipeline.search.health import kind
from pipeline.search.ranking import winner
from pipeline.search.storage.attempts import Attempt
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import is_alive, open_study
from pipeline.search.timing.budget import DEFAULT_BUDGET
from pipeline.states import AttemptState, TrainingKind, TrialState
from pipeline.workspace import Workspace

FAILURES = (TrialState.FAILED, TrialState.INFEASIBLE, TrialState.CRASHED, TrialState.TIMEOUT)


@dataclass(frozen=True)
class RunningTrial:
    """How far a training is: `batch` batches of epoch `epoch` (from 1; 0 before the first step) of `num_epochs`.

    `trial` is None for the winner's last training, for that of the reference network beside it, and for that in which
    the winner's network learns from a better trial, or trains with a second seed. `num_networks` are trained one after
    the other in the last training. `seconds_since_step` is None before the first step, and on another machine than the
    one that trains.
    """

    trial: int | None
    rung: int
    epoch: int
    num_epochs: int
    batch: int
    num_batches: int
    fraction: float
    seconds_since_step: float | None
    is_baseline: bool = False
    is_student: bool = False
    has_second_seed: bool = field(default=False, metadata={"key": "is_twin"})
    num_networks: int = 1


@dataclass(frozen=True)
class Failure:
    """The commonest reason of trials that ended without a score: the latest of its kind, and how many there are."""

    reason: str
    count: int


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment. `state` is running, stopped, finished, or created (no trial has begun).

    `trials` counts them by state, in small letters. `budget_seconds` is None without a time limit, `eta_seconds` where
    nobody can say.
    """

    study: str
    state: str
    trials: dict[str, int]
    running: tuple[RunningTrial, ...] = ()
    objective: str = Objective.name
    best: TrialRow | None = None
    commonest_failure: Failure | None = None
    elapsed_seconds: float = 0.0
    budget_seconds: float | None = None
    eta_seconds: float | None = None


class StudyMonitor:
    """Looks at one study again and again; a look reads only the trials that changed since the last one."""

    def __init__(self, store: StudyStore) -> None:
        self.store = store
        self.study: str = store.get("study")
        self.objective = Objective(store.get("objective"), store.get("minimise"))
        options = store.get("options") or {}
        limits = [options.get(name) for name in ("budget", "trials", "epochs")]
        self.max_trials: int | None = options.get("trials")
        self.budget: float | None = DEFAULT_BUDGET if limits == [None] * 3 else options.get("budget")
        self.change = 0
        self.states: dict[int, TrialState] = {}
        self.counts: Counter[TrialState] = Counter()
        self.unfinished: dict[int, TrialRow] = {}  # those whose state is RUNNING
        self.reasons: Counter[str] = Counter()  # by kind
        self.examples: dict[str, str] = {}  # the latest reason of each kind
        self.best: TrialRow | None = None

    def look(self, state: str, elapsed: float, is_here: bool = True) -> Snapshot:
        """Return where the study is; `is_here` says that this machine trains it, whose clock the heartbeats follow."""
        self.catch_up()
        counts = self.counts.copy()
        running: list[RunningTrial] = []
        if state == "running":
            open_attempts = [self.store.attempts(number)[-1:] for number in self.unfinished]
            started = [each for last in open_attempts for each in last if each.state == AttemptState.STARTED]
            started += self.store.open_last_trainings()
            running = [self.place(attempt, is_here) for attempt in started]
        else:  # what a killed search left goes on from where it was
            for row in self.unfinished.values():
                counts.update(
                    {TrialState.RUNNING: -1, TrialState.PLANNED if row.score is None else TrialState.PAUSED: 1}
                )
        return Snapshot(
            study=self.study,
            state=state,
            trials={name.lower(): counts[name] for name in TrialState},
            running=tuple(running),
            objective=self.objective.name,
            best=self.best,
            commonest_failure=self.commonest_failure(),
            elapsed_seconds=round(elapsed, 1),
            budget_seconds=self.budget,
            eta_seconds=self.eta(elapsed) if state == "running" else None,
        )

    def catch_up(self) -> None:
        """Take in the trials that changed; one that changes meanwhile is read again the next time."""
        rows, self.change = self.store.changed(self.change)
        for row in rows:
            before = self.states.get(row.number)
            if row.state != before:
                self.counts[row.state] += 1
                if before is not None:
                    self.counts[before] -= 1
                if row.state in FAILURES:
                    self.reasons[kind(row.reason)] += 1
                    self.examples[kind(row.reason)] = row.reason
            self.states[row.number] = row.state
            self.unfinished.pop(row.number, None)
            if row.state == TrialState.RUNNING:
                self.unfinished[row.number] = row
            self.best = winner([each for each in (self.best, row) if each is not None], self.objective)

    def place(self, attempt: Attempt, is_here: bool) -> RunningTrial:
        """Return how far a training is, by its latest heartbeat."""
        training = attempt.training
        number = training if isinstance(training, int) else None
        roles: dict[str, Any] = {
            "is_baseline": training == TrainingKind.BASELINE,
            "is_student": training == TrainingKind.STUDENT,
            "has_second_seed": training == TrainingKind.SECOND_SEED,
        }
        if training == TrainingKind.FINAL:
            roles["num_networks"] = num_networks(self.store.ensemble())
        stored = read_beat(self.store.folder.heartbeat(attempt.id))
        if stored is None or stored.beat.batch == 0:
            return RunningTrial(number, attempt.rung, 0, attempt.epochs, 0, 0, 0.0, None, **roles)
        beat = stored.beat
        fraction = (beat.epoch - 1 + beat.batch / beat.num_batches) / beat.num_epochs
        since = round(max(time.monotonic() - stored.heard, 0.0), 1) if is_here else None
        place = (beat.epoch, beat.num_epochs, beat.batch, beat.num_batches)
        return RunningTrial(number, attempt.rung, *place, round(min(fraction, 1.0), 4), since, **roles)

    def commonest_failure(self) -> Failure | None:
        """Return why most of the trials failed that did."""
        if not self.reasons:
            return None
        name, count = self.reasons.most_common(1)[0]
        return Failure(self.examples[name], count)

    def eta(self, elapsed: float) -> float | None:
        """Return the seconds until the end: by the budget, and by the pace of the trials if their number is limited."""
        left = [] if self.budget is None else [self.budget - elapsed]
        num_ended = len(self.states) - self.counts[TrialState.PLANNED] - self.counts[TrialState.RUNNING]
        if self.max_trials is not None and 0 < num_ended < self.max_trials:
            left.append(elapsed / num_ended * (self.max_trials - num_ended))
        return round(max(min(left), 0.0), 1) if left else None


def read_snapshot(workspace: Path, study: str) -> Snapshot:
    """Return where a study is, without its lock and without writing anything.

    Raises:
        DataError: there is no such study.
    """
    is_running = is_alive(workspace, study)
    try:
        store = open_study(workspace, study, is_read_only=True)
    except DataError:
        if not is_running:
            raise
        return Snapshot(study, "running", {name.lower(): 0 for name in TrialState})  # its images are being decoded
    with store:
        monitor = StudyMonitor(store)
        result: dict[str, Any] | None = store.get("result")
        monitor.catch_up()
        state = "finished" if result else "running" if is_running else "stopped" if monitor.states else "created"
        return monitor.look(state, float(store.get("elapsed") or 0.0), is_running and is_here(workspace, study))


def is_here(workspace: Path, study: str) -> bool:
    """Tell whether this machine is the one that works on a running study."""
    return lock_owner(Workspace(workspace).study(study).lock).endswith(f" on {socket.gethostname()}")
