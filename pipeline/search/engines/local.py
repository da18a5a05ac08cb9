"""Who trains: child processes on this machine, each watched and recycled; nothing here knows of a study."""

import contextlib
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.machine import Resources, describe_exit, hide_gpus
from pipeline.search.engines.base import Engine, Result
from pipeline.search.engines.child import WATCHDOG_TIMEOUTS, Child, WatchdogTimeouts
from pipeline.search.events import Emit, Event, TrainingEnded
from pipeline.search.jobs import Findings, TrainingJob, TrialOutcome
from pipeline.search.worker.main import run_job, warm_up
from pipeline.states import OutcomeState

TASKS_PER_CHILD = 100  # then a fresh child, should a library leak; it costs the imports, some 3 s of a core
_GROWTH_MB = 1024  # a child that grew by more since its first job is replaced as well
_POLL_SECONDS = 0.05
LOG_BYTES = 10_000_000  # of what children print; what is older is kept once, in a second file of at most this size
_STOP_SECONDS = 5.0  # what children get to stop at a batch and to save; an interrupted search ends within 10 s


@dataclass(frozen=True)
class Work:
    """What a child does: `train` a job, after `warm_up` imported what that needs. Tests put stubs here."""

    train: Callable[[TrainingJob, Emit], TrialOutcome] = run_job
    warm_up: Callable[[], int] = warm_up


class LocalEngine:
    """Child processes that train jobs; `submit` when there is room, `wait` for outcomes, `stop` at the end."""

    def __init__(
        self,
        resources: list[Resources],
        log_path: Path,
        work: Work = Work(),
        timeouts: WatchdogTimeouts = WATCHDOG_TIMEOUTS,
    ) -> None:
        self.children = [Child(each, log_path, work.warm_up, timeouts) for each in resources]
        self.log_path = log_path
        self.work = work

    def start(self) -> None:
        """Start the children, which begin to import; then hide the GPUs from this process, which never uses one."""
        for child in self.children:
            child.start()
        hide_gpus()

    def check(self) -> None:
        """Wait until the children can train.

        Raises:
            InvalidUsage: the Keras backend cannot be imported; the message says what to install.
            StoppedEarly: a child died on the way; the message says where it wrote why.
        """
        from pebble import ProcessExpired

        try:
            for child in self.children:
                child.wait_until_warm()
        except ImportError as error:
            raise InvalidUsage(
                f"the Keras backend cannot be imported: {error}; expected TensorFlow or JAX beside Keras; "
                "install one: pip install tensorflow-cpu (or: pip install jax, and set KERAS_BACKEND=jax)"
            ) from error
        except (ProcessExpired, BrokenExecutor, TimeoutError) as error:
            raise StoppedEarly(
                f"a training process died while it started ({error}); expected it to import Keras; what it wrote is in "
                f"{self.log_path}; free memory, or see `pipeline doctor`, and run the same command again"
            ) from error

    def call_all(self, function: Callable[..., Result], *arguments: object) -> list["Future[Result]"]:
        """Have a function called in every child at once, outside of any job."""
        return [child.call(function, *arguments) for child in self.children]

    def num_free(self) -> int:
        """Return how many children are free."""
        return sum(child.job is None for child in self.children)

    @property
    def running(self) -> list[TrainingJob]:
        """The jobs that are being trained."""
        return [child.job for child in self.children if child.job is not None]

    def submit(self, job: TrainingJob) -> None:
        """Hand a job to a free child; one that has worked long enough is replaced first."""
        child = next(child for child in self.children if child.job is None)
        if child.num_tasks >= TASKS_PER_CHILD or child.growth_mb() > _GROWTH_MB:
            child.restart()
        child.submit(self.work.train, job)

    def poll(self, seconds: float) -> list[Event]:
        """Return what happened, after at most `seconds`; a child that hangs or takes too much memory is killed."""
        end = time.monotonic() + seconds
        while self.running:
            bound_log(self.log_path)
            if (events := self.listen()) or time.monotonic() > end:
                return events
            for child in self.children:
                child.watch()
            time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        return []

    def listen(self) -> list[Event]:
        """Return what the children have told, and the outcomes of those that are done, after all that they told."""
        events: list[Event] = []
        for child in self.children:
            is_done = child.is_done()
            events += child.drain()
            if is_done:
                events.append(TrainingEnded(self.collect(child)))
        return events

    def collect(self, child: Child) -> TrialOutcome:
        """Return the outcome of a child that is done, and free it; one that died is started anew."""
        job, future, kill_reason = child.release()
        outcome = _outcome_of(job, future, kill_reason)
        if outcome.state in (OutcomeState.CRASHED, OutcomeState.TIMEOUT) or kill_reason is not None:
            child.restart()
        return outcome

    def interrupt(self, seconds: float = _STOP_SECONDS) -> list[Event]:
        """Ask all children to stop at the next batch and to save; return what they say within some seconds.

        Those that say nothing are killed; their last checkpoint stands.
        """
        for child in self.children:
            child.ask_to_stop()
        end = time.monotonic() + seconds
        events: list[Event] = []
        while self.running and time.monotonic() < end:
            events += self.poll(_POLL_SECONDS)
        silent = [child for child in self.children if child.job is not None]
        for child in silent:
            child.end()
        for child in silent:
            events += child.drain()
            job, _, _ = child.release()
            reason = "stopped before it could save; it goes on from its last checkpoint"
            stopped = TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.STOPPED, reason=reason)
            events.append(TrainingEnded(stopped))
            child.stop()
        return events

    def stop(self) -> None:
        """End the children, whatever they do: all at once, since each may take a while."""
        for child in self.children:
            child.end()
        for child in self.children:
            child.stop()
        bound_log(self.log_path)


def local_engine(resources: list[Resources], log_path: Path) -> Engine:
    """Return an engine of child processes, one for each share of this machine; what they print goes to a file."""
    return LocalEngine(resources, log_path)


def bound_log(path: Path) -> None:
    """Empty a log that has become too long, and keep its end beside it as NAME.1; an error is no reason to stop.

    Children hold it open to append, so what they print next is at its new end; what they print at this moment is lost.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            with contextlib.suppress(OSError), path.open("rb") as log:  # on a full disk it is emptied all the same
                log.seek(-LOG_BYTES, os.SEEK_END)
                path.with_name(f"{path.name}.1").write_bytes(log.read(LOG_BYTES))
            os.truncate(path, 0)


def _outcome_of(
    job: TrainingJob, future: Future[TrialOutcome], kill_reason: tuple[OutcomeState, str] | None
) -> TrialOutcome:
    """Return the outcome of a job that ended, also when its process died or was killed, by `kill_reason`."""
    from pebble import ProcessExpired

    try:
        return checked(job, future.result())
    except ProcessExpired as error:
        state, reason = kill_reason or (OutcomeState.CRASHED, f"its process died ({describe_exit(error.exitcode)})")
    except BrokenExecutor as error:
        state, reason = kill_reason or (OutcomeState.CRASHED, f"its process died ({error})")
    except CancelledError:
        state, reason = kill_reason or (OutcomeState.CRASHED, "its process was stopped")
    except (Exception, SystemExit) as error:  # noqa: BLE001  border: what could not even be sent to the child or back
        state, reason = OutcomeState.FAILED, f"{type(error).__name__}: {error}"[:500]
    findings = Findings(is_out_of_memory=state == OutcomeState.INFEASIBLE)
    return TrialOutcome(job.attempt, job.training, job.rung, state, reason=reason, findings=findings)


def checked(job: TrainingJob, outcome: object) -> TrialOutcome:
    """Return what a child sent, if it is an outcome with a finite score; else what is wrong with it, as an outcome."""
    if not isinstance(outcome, TrialOutcome):
        reason = f"the training returned {outcome!r:.80}; expected an outcome"
        return TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.FAILED, reason=reason)
    score = outcome.score
    if score is not None and not (isinstance(score, float) and math.isfinite(score)):
        reason = f"the score became {score!r:.80}; expected a finite number"
        return TrialOutcome(
            job.attempt, job.training, job.rung, OutcomeState.FAILED, reason=reason, seconds=outcome.seconds
        )
    return outcome
