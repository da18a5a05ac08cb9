"""One attempt at a training, as the file of a study keeps it, and the line of the leaderboard that follows."""

import dataclasses
import json
import sqlite3
from dataclasses import dataclass

from pipeline.records import TrialRow
from pipeline.states import AttemptState, TrainingId, TrainingKind, TrialState, trial_number

_STORED_NUMBERS = {
    TrainingKind.FINAL: -2, TrainingKind.BASELINE: -3, TrainingKind.STUDENT: -4, TrainingKind.SECOND_SEED: -5,
}  # fmt: skip
"""The number under which a study stores a training other than a trial."""


@dataclass(frozen=True)
class Attempt:
    """One training to the end of a rung, or up to where it was stopped.

    `id` and `ended` number the beginnings and ends of all attempts in the order in which they happened.
    """

    id: int
    training: TrainingId
    rung: int
    samples: int
    epochs: int
    first_step: int
    num_micro_batches: int
    state: AttemptState
    score: float | None = None
    seconds: float = 0.0
    reason: str = ""
    ended: int | None = None

    @property
    def number(self) -> int:
        """The number of the trial, if it is one."""
        return trial_number(self.training)


def stored_number(training: TrainingId) -> int:
    """Return the number under which a training is kept."""
    return _STORED_NUMBERS[training] if isinstance(training, TrainingKind) else training


def _training_of(number: int) -> TrainingId:
    """Return which training is kept under a number."""
    return next((kind for kind, stored in _STORED_NUMBERS.items() if stored == number), number)


def attempt_of(row: sqlite3.Row) -> Attempt:
    """Return an attempt as it is stored."""
    values = {name: row[name] for name in row.keys() if name not in ("trial", "started")}  # noqa: SIM118
    return Attempt(**values | {"training": _training_of(row["trial"]), "state": AttemptState(row["state"])})


def stored_row(row: sqlite3.Row) -> TrialRow:
    """Return a trial as it is stored, without what follows from its attempts."""
    params = json.loads(row["params"])
    costs = (row["num_params"], row["mflops"])
    return TrialRow(
        row["number"], TrialState(row["state"]), None, params, *costs, 0.0, row["reason"], 0, 0,
        latency_ms=row["latency_ms"],
    )  # fmt: skip


def trial_row(row: TrialRow, attempts: list[Attempt]) -> TrialRow:
    """Return a line of the leaderboard: a trial with what follows from its attempts."""
    seconds = round(sum(attempt.seconds for attempt in attempts), 3)
    best = max(
        (attempt for attempt in attempts if attempt.state == AttemptState.DONE),
        key=lambda done: done.rung,
        default=None,
    )
    if best is None:
        return dataclasses.replace(row, seconds=seconds)
    return dataclasses.replace(
        row, seconds=seconds, score=best.score, rung=best.rung, samples=best.samples, epochs=best.epochs,
        best_epoch=best.first_step + best.epochs - 1,
    )  # fmt: skip
