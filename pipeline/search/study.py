"""A study: what to train next (ask) and what came of it (tell). It trains nothing and starts no process."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from pipeline.records import Objective, Params, TrialRow
from pipeline.search.events import EpochEnded
from pipeline.search.jobs import TrainingJob, TrainingPlan, TrialOutcome
from pipeline.search.ranking import knee, pareto_front, winner
from pipeline.search.scheduler import next_training
from pipeline.search.seeds import trial_seed
from pipeline.search.storage.attempts import Attempt, stored_number, trial_row
from pipeline.search.storage.store import StudyStore
from pipeline.search.timing.budget import LEADER_PART
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.spec import StudySpec
from pipeline.states import AttemptState, OutcomeState, TrainingId, TrainingKind, TrialState

_LAST_TRAININGS = (TrainingKind.FINAL, TrainingKind.BASELINE)  # on train + validation
_GOES_ON = (AttemptState.STOPPED, AttemptState.DIED, AttemptState.RETRIED)  # from the last checkpoint
_MAX_DEATHS = 2  # a trial whose process died this often is CRASHED and never run again
MICRO_BATCHES = 4  # into which a batch is cut that did not fit into memory


class Proposes(Protocol):
    """What a study needs of an oracle: see `oracles.Proposer`."""

    def propose(self, next_number: int | None, is_acceptable: Callable[[Any], bool]) -> Any:
        """Return the next acceptable proposal, or None; without `next_number` only of a trial that goes on."""

    def begin(self, number: int, rung: int, params: Params) -> None:
        """Count a training that the oracle did not propose in this process."""

    def report(self, number: int, rung: int, step: int, value: float) -> None:
        """Take an intermediate value."""

    def tell(self, number: int, rung: int, values: tuple[float, ...] | None) -> None:
        """Take the end of a rung; None for a failure."""


class Study:
    """The state of a search between processes. The store remembers all of it; `store.save` makes decisions durable.

    `make_oracle` is called when the oracle can promote or propose for the first time: it imports KerasTuner.
    """

    def __init__(
        self, store: StudyStore, make_oracle: Callable[[], Proposes], objective: Objective, estimates: TimeEstimates
    ) -> None:
        self.store = store
        self.make_oracle = make_oracle
        self.objective = objective
        self.estimates = estimates
        self.context, self.budget = estimates.context, estimates.budget
        self.rows: dict[int, TrialRow] = {row.number: row for row in store.trials()}
        self.leader = winner(list(self.rows.values()), objective)  # with one objective it would win now
        self.front = pareto_front(self.rows.values(), objective)  # with two, the trial at the knee of this
        self.attempts: dict[TrainingId, list[Attempt]] = {}
        self.waiting: deque[tuple[int, int]] = deque()
        self.running: dict[int, TrainingJob] = {}  # by attempt
        self.last_event = 0
        self.is_ending = False
        self.oracle: Proposes | None = None

    @cached_property
    def spec(self) -> StudySpec:
        """What the study is."""
        return self.store.spec()

    def recover(self) -> int:
        """Continue a study of an earlier process: queue what it did not finish; return the number of its trials."""
        for attempt in self.store.attempts():
            self.attempts.setdefault(attempt.training, []).append(attempt)
            self.last_event = max(self.last_event, attempt.id, attempt.ended or 0)
        for training, attempts in self.attempts.items():
            last = attempts[-1]
            if last.state == AttemptState.STARTED:
                last = self.end_attempt(last, AttemptState.STOPPED, reason="the search was killed")
            if not isinstance(training, TrainingKind):
                self.recover_trial(training, attempts, last)
        self.store.save()
        return len(self.rows)

    def recover_trial(self, number: int, attempts: list[Attempt], last: Attempt) -> None:
        """Continue a trial of an earlier process, of which `last` is the last attempt."""
        for attempt in attempts:
            if attempt.state == AttemptState.DONE:
                self.estimates.note(number, self.rows[number].params, attempt.samples, attempt.seconds, attempt.rung)
        if self.rows[number].state == TrialState.RUNNING:
            self.put_trial(replace(self.rows[number], state=self.resting_state(number)))
        if self.rows[number].state in (TrialState.PLANNED, TrialState.PAUSED) and last.state in _GOES_ON:
            self.waiting.append((number, last.rung))

    def consult(self) -> Proposes:
        """Return the oracle; a new one first learns all that happened, in the order in which it did."""
        if self.oracle is None:
            self.oracle = self.make_oracle()
            events: list[tuple[int, Attempt, bool]] = []
            for training, attempts in self.attempts.items():
                if not isinstance(training, TrainingKind):
                    events += [(attempt.id, attempt, False) for attempt in attempts]
                    events += [(attempt.ended, attempt, True) for attempt in attempts if attempt.ended is not None]
            begun: set[tuple[int, int]] = set()
            for _, attempt, is_end in sorted(events, key=lambda event: event[0]):
                key = (attempt.number, attempt.rung)
                if not is_end and key not in begun:
                    begun.add(key)
                    self.oracle.begin(*key, self.rows[attempt.number].params)
                elif is_end and self.is_final_for_oracle(attempt):
                    self.oracle.tell(*key, self.values(attempt))
        return self.oracle

    def is_final_for_oracle(self, attempt: Attempt) -> bool:
        """Tell whether an oracle hears of the end of an attempt: its rung is not tried again, nor cut off by time."""
        if attempt.state == AttemptState.DIED:
            deaths = [each.id for each in self.attempts[attempt.training] if each.state == AttemptState.DIED]
            return deaths.index(attempt.id) + 1 >= _MAX_DEATHS
        return attempt.state not in (AttemptState.STOPPED, AttemptState.PRUNED, AttemptState.RETRIED)

    def ask(self) -> TrainingJob | None:
        """Return the next job; None if the end of a running one must be waited for, or if all is done.

        The job must not run before `store.save`.
        """
        if self.is_ending:
            return None
        if self.waiting:
            return self.start(*self.waiting.popleft())
        chosen = next_training(self)
        if chosen is None:
            self.is_ending = not self.running
            return None
        number, rung, params = chosen
        if number not in self.rows:
            cost = self.context.cost(params)
            row = TrialRow(number, TrialState.PLANNED, None, params, cost.num_params, cost.mflops, 0.0, "", 0, 0)
            self.rows[number] = row
            self.store.add_trial(row)
        return self.start(number, rung)

    def time_left(self) -> float:
        """Return the seconds until the winner's last training must begin.

        With two objectives a cheap network wins as a rule, which needs less time; the best trial may yet win.
        """
        if not self.front:
            return self.estimates.time_left(self.leader)
        cheap = knee(self.front, self.objective)
        return min(self.estimates.time_left(cheap), self.estimates.time_left(self.leader, LEADER_PART))

    def start(self, number: int, rung: int) -> TrainingJob:
        """Decide on an attempt of a trial and return its job."""
        self.rows[number] = replace(self.rows[number], state=TrialState.RUNNING)
        self.store.put_trial(self.rows[number])
        params = self.rows[number].params
        samples = self.estimates.rung_samples(params, rung)
        limit = max(self.time_left(), 0.0) if self.budget.is_timed else math.inf
        if len(self.rows) == 1:  # the first trial runs, however short the time is
            limit = max(limit, 2 * self.estimates.training_seconds(params, samples))
        return self.begin(number, TrainingPlan(rung, samples, params, limit))

    def begin(self, training: TrainingId, plan: TrainingPlan) -> TrainingJob:
        """Decide on an attempt, before it runs, and return its job."""
        earlier = self.attempts.setdefault(training, [])
        attempt = Attempt(
            id=self.next_event(),
            training=training,
            rung=plan.rung,
            samples=plan.samples,
            epochs=self.num_epochs(training, plan.samples),
            first_step=1 + sum(attempt.epochs for attempt in earlier if attempt.state == AttemptState.DONE),
            num_micro_batches=self.num_micro_batches(training if plan.trial is None else plan.trial),
            state=AttemptState.STARTED,
        )
        earlier.append(attempt)
        self.store.put_attempt(attempt)
        job = TrainingJob(
            spec=self.spec,
            folders=self.store.folder.for_training,
            attempt=attempt.id,
            training=training,
            rung=plan.rung,
            samples=plan.samples,
            params=plan.params,
            seed=trial_seed(self.context.seed, stored_number(training), plan.rung),
            seconds_limit=plan.seconds_limit,
            first_step=attempt.first_step,
            num_micro_batches=attempt.num_micro_batches,
            seconds_wanted=plan.seconds_wanted,
            is_final=training in _LAST_TRAININGS,
            chosen=plan.chosen,
        )
        self.running[attempt.id] = job
        return job

    def num_epochs(self, training: TrainingId, samples: int) -> int:
        """Return the epochs of a training: the passes over its images, at least one."""
        images = self.context.num_final_images if training in _LAST_TRAININGS else self.context.num_images
        return max(1, round(samples / images))

    def num_micro_batches(self, training: TrainingId) -> int:
        """Return into how many parts batches are cut: a training that ran out of memory needs less of it."""
        return MICRO_BATCHES if self.count(training, AttemptState.RETRIED) else 1

    def last_state(self, training: TrainingId) -> AttemptState | None:
        """Return the state of a training's last attempt; after STOPPED the next one goes on from its checkpoint."""
        attempts = self.attempts.get(training)
        return attempts[-1].state if attempts else None

    def tell(self, outcome: TrialOutcome) -> TrainingJob:
        """Decide what becomes of a trial after an outcome, and return the job that ended.

        `store.save` makes the decision durable.
        """
        job = self.running.pop(outcome.attempt)
        row = self.rows[outcome.number]
        if (latency := outcome.findings.latency) is not None:
            row = self.rows[outcome.number] = replace(row, latency_ms=latency.one_core_ms)
        if outcome.state == OutcomeState.COMPLETED:
            self.tell_score(outcome, job)
        elif outcome.state == OutcomeState.STOPPED:
            self.end_attempt(self.attempt_of(outcome), AttemptState.STOPPED, outcome)
            self.put_trial(replace(row, state=self.resting_state(row.number)))
            self.waiting.appendleft((outcome.number, outcome.rung))
        elif outcome.state == OutcomeState.CRASHED and self.count(outcome.number, AttemptState.DIED) + 1 < _MAX_DEATHS:
            self.try_again(outcome, AttemptState.DIED, f"{outcome.reason}; tried again")
        elif self.is_first_shortage(outcome, job):
            self.try_again(
                outcome, AttemptState.RETRIED, f"{outcome.reason}; tried again with {MICRO_BATCHES} micro-batches"
            )
        else:
            self.tell_failure(outcome)
        self.store.put_later("elapsed", self.estimates.elapsed())
        return job

    def tell_score(self, outcome: TrialOutcome, job: TrainingJob) -> None:
        """Decide on the end of a rung."""
        attempt = self.end_attempt(self.attempt_of(outcome), AttemptState.DONE, outcome)
        is_top = outcome.rung == len(self.budget.rungs) - 1
        self.put_trial(replace(self.rows[outcome.number], state=TrialState.COMPLETED if is_top else TrialState.PAUSED))
        self.estimates.note(outcome.number, job.params, job.samples, outcome.seconds, outcome.rung)
        row = self.rows[outcome.number]
        self.leader = winner([each for each in (self.leader, row) if each is not None], self.objective)
        others = [each for each in self.front if each.number != row.number]
        self.front = pareto_front([*others, row], self.objective)
        self.tell_oracle(outcome, self.values(attempt))

    def try_again(self, outcome: TrialOutcome, attempt_state: AttemptState, reason: str) -> None:
        """Decide that a trial trains its rung once more, from its last checkpoint."""
        self.end_attempt(self.attempt_of(outcome), attempt_state, outcome)
        number = outcome.number
        self.put_trial(replace(self.rows[number], state=self.resting_state(number), reason=reason))
        self.waiting.append((number, outcome.rung))

    def tell_failure(self, outcome: TrialOutcome) -> None:
        """Decide on an end without a score; a trial that finished a lower rung keeps the score of that."""
        self.end_attempt(self.attempt_of(outcome), AttemptState.after(outcome.state), outcome)
        row, state, reason = self.rows[outcome.number], TrialState(outcome.state), outcome.reason
        if row.score is not None:
            state, reason = TrialState.COMPLETED, f"rung {outcome.rung} ended as {outcome.state}: {outcome.reason}"
        self.put_trial(replace(row, state=state, reason=reason))
        if outcome.state != OutcomeState.PRUNED:
            self.tell_oracle(outcome, None)

    def is_first_shortage(self, outcome: TrialOutcome, job: TrainingJob) -> bool:
        """Tell whether a trial ran out of memory with whole batches."""
        is_shortage = outcome.state == OutcomeState.INFEASIBLE and outcome.findings.is_out_of_memory
        return is_shortage and job.num_micro_batches == 1

    def tell_oracle(self, outcome: TrialOutcome, values: tuple[float, ...] | None) -> None:
        """Tell the oracle, if it is there already: it learns the rest when it is made."""
        if self.oracle is not None:
            self.oracle.tell(outcome.number, outcome.rung, values)

    def observe(self, event: EpochEnded) -> None:
        """Keep an epoch of a running training, and tell the oracle of it."""
        job = self.running[event.attempt]
        self.store.put_epoch(event.attempt, event.row)
        if self.oracle is not None and not isinstance(job.training, TrainingKind):
            self.oracle.report(job.number, job.rung, event.row.step, getattr(event.row, self.objective.name))

    def complete(self) -> None:
        """Decide that no trial goes on: those that wait at a rung are completed."""
        for row in list(self.rows.values()):
            if row.state == TrialState.PAUSED:
                self.put_trial(replace(row, state=TrialState.COMPLETED))

    def values(self, attempt: Attempt) -> tuple[float, ...] | None:
        """Return what an oracle learns of an attempt: objective and, with two objectives, the cost."""
        if attempt.state != AttemptState.DONE or attempt.score is None:
            return None
        cost = self.rows[attempt.number].cost(self.objective.minimise) if self.objective.minimise else None
        return (attempt.score,) if cost is None else (attempt.score, cost)

    def end_attempt(
        self, attempt: Attempt, state: AttemptState, outcome: TrialOutcome | None = None, reason: str = ""
    ) -> Attempt:
        """Decide on the end of an attempt and what follows for the trial's line of the leaderboard."""
        ended = replace(attempt, state=state, reason=reason, ended=self.next_event())
        if outcome is not None:
            ended = replace(ended, score=outcome.score, seconds=outcome.seconds, reason=outcome.reason)
        attempts = self.attempts[attempt.training]
        attempts[attempts.index(attempt)] = ended
        self.store.put_attempt(ended)
        if attempt.training in self.rows:
            self.rows[attempt.number] = trial_row(self.rows[attempt.number], attempts)
        return ended

    def put_trial(self, row: TrialRow) -> None:
        """Decide on the state and reason of a trial; what its attempts say stays as it is."""
        current = self.rows[row.number]
        self.rows[row.number] = replace(current, state=row.state, reason=row.reason, latency_ms=row.latency_ms)
        self.store.put_trial(self.rows[row.number])

    def resting_state(self, number: int) -> TrialState:
        """Return the state of a trial that waits to go on."""
        return TrialState.PAUSED if self.rows[number].score is not None else TrialState.PLANNED

    def attempt_of(self, outcome: TrialOutcome) -> Attempt:
        """Return the attempt that an outcome ends."""
        return next(attempt for attempt in self.attempts[outcome.training] if attempt.id == outcome.attempt)

    def count(self, training: TrainingId, state: AttemptState) -> int:
        """Return how many attempts of a training ended in a state."""
        return sum(attempt.state == state for attempt in self.attempts.get(training, []))

    def next_event(self) -> int:
        """Return the next number of the beginnings and ends of attempts."""
        self.last_event += 1
        return self.last_event
