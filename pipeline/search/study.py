"""A study: what to train next (ask) and what came of it (tell). It trains nothing and starts no process."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.models.cost import Cost, ImpossibleNetwork, measure
from pipeline.records import COMPLETED, CRASHED, PAUSED, PLANNED, TrialOutcome, TrialRow, TrialTask
from pipeline.search.budget import (
    MIN_STRETCH,
    NUM_FINALISTS,
    SECONDS_PER_TRIAL,
    Budget,
    correction,
    estimate_seconds,
)
from pipeline.search.store import DIED, DONE, FINAL_TRIAL, STOPPED, StudyStore, ranked
from pipeline.space import SearchSpace

MAX_DEATHS = 2  # a trial whose process died this often is CRASHED and never run again
SCREENING, FINALISTS = 0, 1


class Proposes(Protocol):
    """What a study needs of an oracle: see `oracles.Proposer`."""

    def propose(self, number: int, is_acceptable: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """Return the next acceptable configuration, or None."""

    def replay(self, number: int, params: Mapping[str, Any]) -> None:
        """Count a trial of an earlier process."""

    def tell(self, number: int, score: float | None) -> None:
        """Report a score, or None for a failure."""


@dataclass(frozen=True)
class Terms:
    """What is fixed for a study: space, images, seed and machine.

    `num_images` are those that trials train on, `num_final_images` those of the winner's last training.
    """

    space: SearchSpace
    image_shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    num_final_images: int
    seed: int
    num_threads: int
    starts_with_default: bool = True

    def cost(self, params: Mapping[str, Any]) -> Cost:
        """Return what the network of a configuration costs."""
        return measure(params, self.image_shape, self.num_classes)

    def estimate(self, params: Mapping[str, Any], epochs: int) -> float:
        """Return the estimated seconds of a trial, uncorrected."""
        return estimate_seconds(self.cost(params), params, self.num_images, epochs, self.num_threads)


class Study:
    """The state of a search between processes: trials proposed, running and told; the store remembers all of it."""

    def __init__(
        self,
        store: StudyStore,
        proposer: Proposes,
        terms: Terms,
        budget: Budget,
        elapsed: Callable[[], float],
    ) -> None:
        self.store = store
        self.proposer = proposer
        self.terms = terms
        self.budget = budget
        self.elapsed = elapsed
        self.waiting: deque[tuple[int, int]] = deque()
        self.running: set[int] = set()
        self.is_screening = True

    def recover(self) -> int:
        """Continue a study of an earlier process: replay its trials, queue what it did not finish; return their number.

        A trial that was running when that process died starts its rung again.
        """
        for attempt in self.store.unfinished_attempts():
            outcome = TrialOutcome(
                attempt["id"], attempt["trial"], attempt["rung"], CRASHED, reason="the search was killed"
            )
            self.store.end_attempt(outcome, STOPPED, PLANNED, self.reason_so_far(attempt["trial"]))
        scores = self.store.scores(SCREENING)
        rows = self.store.trials()
        for row in rows:
            self.proposer.replay(row.number, row.params)
            if row.number in scores or row.state != PLANNED:
                self.proposer.tell(row.number, scores.get(row.number))
            elif row.state == PLANNED:
                self.waiting.append((row.number, SCREENING))
        finalists = self.store.get("finalists")
        if finalists is not None:
            self.is_screening = False
            unfinished = [row.number for row in rows if row.number in finalists and row.state in (PLANNED, PAUSED)]
            self.waiting.extend((number, FINALISTS) for number in unfinished)
        return len(rows)

    def ask(self) -> TrialTask | None:
        """Return the next task; None if the end of a running one must be waited for, or if all is done."""
        if self.is_screening and not self.waiting:
            number = self.propose()
            if number is not None:
                return self.start(number, SCREENING)
            if self.running:
                return None
            self.end_screening()
        while self.waiting:
            number, rung = self.waiting.popleft()
            if rung == SCREENING or self.leaves_time_for_winner(number):
                return self.start(number, rung)
            self.store.set_state(number, COMPLETED)  # it keeps the score of its screening
        return None

    def propose(self) -> int | None:
        """Add the next configuration as a planned trial, or return None when screening is over or must wait."""
        rows = self.store.trials()
        number = len(rows)
        if self.budget.max_trials is not None and number >= self.budget.max_trials:
            return None
        remaining = self.budget.screening_until - self.elapsed()
        if number and remaining < 0.5 * self.budget.trial_seconds:
            return None
        params = self.first_params(number) or self.proposer.propose(number, self.acceptance(rows, remaining))
        if params is None and number == 0:  # too short a budget for many trials: then one that fits
            whole = 0.4 * (self.budget.end - self.elapsed())
            params = self.proposer.propose(number, lambda params: self.is_affordable(params, 1.0, whole))
        if params is None:
            return None
        cost = self.terms.cost(params)
        self.store.add_trial(number, params, cost.num_params, cost.mflops)
        return number

    def first_params(self, number: int) -> dict[str, Any] | None:
        """Return the space's default configuration for the first trial, if it can be built and the oracle allows it."""
        params = self.terms.space.defaults()
        if (
            number != 0
            or not self.terms.starts_with_default
            or not self.is_affordable(params, 1.0, self.budget.slowest_trial)
        ):
            return None
        self.proposer.replay(number, params)
        return params

    def acceptance(self, rows: list[TrialRow], remaining: float) -> Callable[[Mapping[str, Any]], bool]:
        """Return the check that a proposal must pass: a possible network that is quick enough for the budget."""
        by_number = {row.number: row for row in rows}
        done = [(by_number[number], epochs, seconds) for number, epochs, seconds in self.store.timings() if number >= 0]
        factor = correction(
            [self.terms.estimate(row.params, epochs) for row, epochs, _ in done],
            [seconds for _, _, seconds in done],
        )
        limit = min(self.budget.slowest_trial, remaining if rows else math.inf)
        return lambda params: self.is_affordable(params, factor, limit)

    def is_affordable(self, params: Mapping[str, Any], factor: float, limit: float) -> bool:
        """Tell whether a configuration is a possible network that trains in at most `limit` seconds."""
        try:
            seconds = factor * self.terms.estimate(params, self.budget.epochs)
        except ImpossibleNetwork:
            return False
        return seconds <= limit

    def end_screening(self) -> None:
        """Queue the finalists for a longer training, if there is time, and complete the others."""
        self.is_screening = False
        paused = ranked([row for row in self.store.trials() if row.state == PAUSED])
        finalists, stretch = paused[:NUM_FINALISTS], 0.0
        while finalists and not stretch:
            stretch = self.budget.stretch(self.elapsed(), [row.seconds for row in finalists])
            if int(self.budget.epochs * stretch) < MIN_STRETCH * self.budget.epochs:
                finalists.pop()
                stretch = 0.0
        if not paused:
            return  # nothing to decide: a resumed study screens again
        with self.store.transaction():
            self.store.put("finalists", [row.number for row in finalists])
            self.store.put("finalist_epochs", int(self.budget.epochs * stretch))
            for row in paused[len(finalists) :]:
                self.store.set_state(row.number, COMPLETED)
        self.waiting.extend((row.number, FINALISTS) for row in finalists)

    def start(self, number: int, rung: int) -> TrialTask:
        """Record that a trial starts a rung and return the task."""
        epochs = self.budget.epochs if rung == SCREENING else self.store.get("finalist_epochs")
        limit = self.budget.end - self.elapsed()
        if rung == SCREENING:
            limit = min(limit, 2 * self.budget.slowest_trial)
        else:
            limit -= self.final_seconds(number, epochs)
        row = next(row for row in self.store.trials() if row.number == number)
        self.running.add(number)
        return self.begin(number, rung, epochs, row.params, limit)

    def begin(self, number: int, rung: int, epochs: int, params: dict[str, Any], limit: float) -> TrialTask:
        """Record an attempt, before it runs, and return its task."""
        attempt, first_step = self.store.start_attempt(number, rung, epochs)
        return TrialTask(
            study_path=str(self.store.path.parent),
            attempt=attempt,
            number=number,
            rung=rung,
            epochs=epochs,
            params=params,
            seed=trial_seed(self.terms.seed, number, rung),
            seconds_limit=limit,
            first_step=first_step,
            is_final=number == FINAL_TRIAL,
        )

    def epoch_seconds(self, number: int) -> float:
        """Return the seconds that an epoch of a trial took, over its finished rungs, without their start-up."""
        done = [(epochs, seconds) for trial, epochs, seconds in self.store.timings() if trial == number]
        training = sum(max(seconds - SECONDS_PER_TRIAL, 0.0) for _, seconds in done)
        return max(training / max(sum(epochs for epochs, _ in done), 1), 1e-6)

    def final_seconds(self, number: int, epochs: int) -> float:
        """Return the seconds that a trial will take on train + validation."""
        return epochs * self.epoch_seconds(number) * self.terms.num_final_images / self.terms.num_images

    def leaves_time_for_winner(self, number: int) -> bool:
        """Tell whether a finalist can train and the slowest of the finalists after it, on train + validation."""
        epochs = self.store.get("finalist_epochs")
        slowest = max(self.final_seconds(finalist, epochs) for finalist in self.store.get("finalists"))
        needed = epochs * self.epoch_seconds(number) + slowest + 2 * SECONDS_PER_TRIAL
        return self.elapsed() + needed <= self.budget.end

    def final_task(self, row: TrialRow) -> TrialTask:
        """Return the winner's last training: on train + validation, for the epochs that won, or what time allows."""
        least = min(row.epochs, self.budget.epochs)
        affordable = (self.budget.end - self.elapsed()) / self.final_seconds(row.number, 1)
        epochs = row.epochs if math.isinf(affordable) else max(least, min(row.epochs, round(affordable)))
        return self.begin(FINAL_TRIAL, FINALISTS, epochs, row.params, math.inf)

    def tell(self, outcome: TrialOutcome) -> None:
        """Record an outcome: in one transaction the attempt's end and what becomes of the trial."""
        self.running.discard(outcome.number)
        if outcome.state == CRASHED:
            self.tell_death(outcome)
        elif outcome.state == COMPLETED:
            state = PAUSED if outcome.rung == SCREENING else COMPLETED
            self.store.end_attempt(outcome, DONE, state, self.reason_so_far(outcome.number))
            self.tell_oracle(outcome, outcome.score)
        else:
            self.tell_failure(outcome, outcome.state)
        self.store.put("elapsed", self.elapsed())

    def tell_death(self, outcome: TrialOutcome) -> None:
        """Record that the process of a trial died: once is tried again, twice is CRASHED."""
        deaths = self.store.count_deaths(outcome.number) + 1
        if deaths >= MAX_DEATHS:
            self.tell_failure(outcome, CRASHED, DIED)
            return
        reason = f"{outcome.reason}; tried again"
        self.store.end_attempt(outcome, DIED, PLANNED, reason)
        self.waiting.append((outcome.number, outcome.rung))

    def tell_failure(self, outcome: TrialOutcome, state: str, attempt_state: str | None = None) -> None:
        """Record an end without a score; a finalist keeps the score of its screening."""
        if outcome.rung == SCREENING:
            self.store.end_attempt(outcome, attempt_state or state, state, outcome.reason)
        else:
            reason = f"the longer training ended as {state}: {outcome.reason}"
            self.store.end_attempt(outcome, attempt_state or state, COMPLETED, reason)
        self.tell_oracle(outcome, None)

    def tell_oracle(self, outcome: TrialOutcome, score: float | None) -> None:
        """Tell the oracle the score of a screening; a finalist's is not comparable with it."""
        if outcome.rung == SCREENING:
            self.proposer.tell(outcome.number, score)

    def reason_so_far(self, number: int) -> str:
        """Return what was noted of a trial before, so that a success after a death keeps the note."""
        return next((row.reason for row in self.store.trials() if row.number == number), "")


def trial_seed(seed: int, number: int, rung: int) -> int:
    """Return the seed of one training: a hash of the study's seed, the trial and the rung, in [0, 2^31)."""
    digest = hashlib.sha256(f"{seed} {number} {rung}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
