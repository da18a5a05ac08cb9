"""The loop of a search: ask, train, tell; and the trainings beside the trials. The winner's is in `finish`."""

import contextlib
from collections.abc import Callable
from typing import Protocol

from pipeline.crashpoints import crashpoint
from pipeline.heartbeat import write_beat
from pipeline.records import TrialRow
from pipeline.search.checkpoints import FREE_FLOOR_MB, drop_files
from pipeline.search.engines.base import Engine
from pipeline.search.events import EpochEnded, Event, Heartbeat, SplitOpened, TrainingEnded
from pipeline.search.health import Health, check_stop_file
from pipeline.search.jobs import TrainingJob, TrialOutcome
from pipeline.search.storage.openings import note_opening
from pipeline.search.study import Study
from pipeline.states import AttemptState, OutcomeState

_POLL_SECONDS = 0.5


class SearchCallback(Protocol):
    """Who follows a search: see `cli.board`."""

    def on_rung_end(self, outcome: TrialOutcome, row: TrialRow) -> None:
        """Show what became of a job."""

    def refresh(self, running: list[TrainingJob]) -> None:
        """Show how far the running jobs are; raise to end the search (KeyboardInterrupt)."""


def run_trials(
    study: Study,
    engine: Engine,
    callback: SearchCallback,
    goal: float | None = None,
    free_floor_mb: int = FREE_FLOOR_MB,
) -> None:
    """Ask, train and tell until the study has nothing left to ask and nothing is running, or the goal is reached.

    What ended and what starts next is one durable transaction; only then does it start.

    Raises:
        StoppedEarly: going on makes no sense; the running trials were stopped and go on with --resume.
    """
    health = Health(study.store.folder, free_floor_mb)
    ended: list[tuple[TrainingJob, TrialOutcome]] = []
    try:
        while True:
            health.check()
            jobs = _ask_all(study, engine.num_free())
            study.store.save()
            crashpoint("before-submit")
            show(study, ended, callback)
            for job in jobs:
                engine.submit(job)
            if not engine.running or _is_reached(study, goal):
                break
            ended = [(study.tell(outcome), outcome) for outcome in note(study, engine.poll(_POLL_SECONDS))]
            for _, outcome in ended:
                health.note(outcome)
            callback.refresh(engine.running)
    finally:
        for outcome in note(study, engine.interrupt()):
            study.tell(outcome)
        study.store.save()
    study.complete()
    study.store.save()


def note(study: Study, events: list[Event]) -> list[TrialOutcome]:
    """Keep what trainings told on their way, and return the outcomes of those that ended.

    Epochs become durable with the next `store.save`, openings of the test images at once.
    """
    outcomes: list[TrialOutcome] = []
    for event in events:
        if isinstance(event, EpochEnded):
            study.observe(event)
        elif isinstance(event, Heartbeat):
            with contextlib.suppress(OSError):  # for the eyes of other terminals only
                write_beat(study.store.folder.heartbeat(event.attempt), event.beat)
        elif isinstance(event, SplitOpened):
            note_opening(study.store.folder, event.attempt)
        elif isinstance(event, TrainingEnded):
            outcomes.append(event.outcome)
    return outcomes


def forget(study: Study, job: TrainingJob) -> None:
    """Delete the heartbeat of a training that has ended."""
    study.store.folder.heartbeat(job.attempt).unlink(missing_ok=True)


def _ask_all(study: Study, num_free: int) -> list[TrainingJob]:
    """Return a job for each child that is free, as far as there are jobs."""
    jobs: list[TrainingJob] = []
    while len(jobs) < num_free and (job := study.ask()):
        jobs.append(job)
    return jobs


def show(study: Study, ended: list[tuple[TrainingJob, TrialOutcome]], callback: SearchCallback) -> None:
    """Show what ended, and delete the files that nothing needs any more."""
    for job, outcome in ended:
        if (outcome.number, outcome.rung) not in study.waiting:
            drop_files(job)
        forget(study, job)
        callback.on_rung_end(outcome, study.rows[outcome.number])


def _is_reached(study: Study, goal: float | None) -> bool:
    """Tell whether some trial has reached the value that the user wanted."""
    if goal is None or study.leader is None or study.leader.score is None:
        return False
    return study.objective.sign * study.leader.score >= study.objective.sign * goal


def train_to_end(
    study: Study, engine: Engine, begin: Callable[[], TrainingJob], callback: SearchCallback
) -> tuple[TrialOutcome, TrainingJob]:
    """Train a job other than a trial; a process that dies is tried once more. Interrupted, it continues with --resume.

    An attempt that has no score is ended here; one that has is ended by the caller, when its result is kept.
    """
    while True:
        job = begin()
        study.store.save()
        engine.submit(job)
        try:
            while not (outcomes := note(study, engine.poll(_POLL_SECONDS))):
                study.store.save()
                callback.refresh(engine.running)
                check_stop_file(study.store.folder)
        except BaseException:
            for stopped in note(study, engine.interrupt()):
                study.end_attempt(study.attempt_of(stopped), AttemptState.STOPPED, stopped)
            study.store.save()
            raise
        outcome = outcomes[0]
        study.running.pop(outcome.attempt)
        if outcome.state == OutcomeState.COMPLETED:
            return outcome, job
        is_dead = outcome.state == OutcomeState.CRASHED
        study.end_attempt(study.attempt_of(outcome), AttemptState.after(outcome.state), outcome)
        study.store.save()
        if not is_dead or study.count(job.training, AttemptState.DIED) % 2 == 0:
            return outcome, job


def settle(study: Study, outcome: TrialOutcome, job: TrainingJob) -> str:
    """Record the end of a training other than a trial, and delete its files; return why it has no score, if so."""
    drop_files(job)
    forget(study, job)
    if outcome.state != OutcomeState.COMPLETED:
        return f"its training ended as {outcome.state}: {outcome.reason}"
    study.end_attempt(study.attempt_of(outcome), AttemptState.DONE, outcome)
    return ""
