"""One child process: started, given one job at a time, watched for hanging and for memory, replaced."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.heartbeat import Beat
from pipeline.machine import Resources, ctrl_c_held_back
from pipeline.search.engines.base import Result
from pipeline.search.events import Emit, Event, Heartbeat
from pipeline.search.jobs import TrainingJob, TrialOutcome
from pipeline.search.worker.main import prepare, train_in_child
from pipeline.states import OutcomeState


@dataclass(frozen=True)
class WatchdogTimeouts:
    """How many seconds a child gets before it is killed.

    `start` is for its imports, `build` for what comes before the first step. After that it is killed when there was no
    step for `silent` seconds or for `silent_steps` median steps, whichever is longer. A job may run over its own limit
    by `overtime`, but for a last training, whose test follows; between SIGTERM and SIGKILL are `term` seconds.
    """

    start: float = 300.0  # a slow disk
    build: float = 600.0  # compiling for a GPU can take minutes
    silent: float = 120.0
    silent_steps: float = 20.0
    overtime: float = 60.0
    term: float = 10.0


WATCHDOG_TIMEOUTS = WatchdogTimeouts()


class Child:
    """A process of a kept pool (pebble) of one worker; a new one takes its place after a death or on request.

    Pebble's own time limits follow the wall clock, which may jump; the limits here are monotonic.
    """

    def __init__(
        self,
        resources: Resources,
        log_path: Path,
        warm_up: Callable[[], int],
        timeouts: WatchdogTimeouts = WATCHDOG_TIMEOUTS,
    ) -> None:
        self.resources = resources
        self.log_path = log_path
        self.warm_up = warm_up
        self.timeouts = timeouts
        self.pool: Any = None
        self.warming: Future[int] | None = None
        self.job: TrainingJob | None = None
        self.future: Future[TrialOutcome] | None = None
        self.kill_reason: tuple[OutcomeState, str] | None = None
        self.num_tasks = 0
        self.first_mb = 0.0
        self.began = self.termed = 0.0
        self.beat: Beat | None = None  # the latest of the job
        self.heard = 0.0  # when it came, in seconds of time.monotonic()
        self.reader: Connection | None = None
        self.writer: Connection | None = None  # of the process; kept for one that pebble starts by itself

    def start(self) -> None:
        """Start the process, which begins to import."""
        from pebble import ProcessPool

        self.reader, self.writer = multiprocessing.Pipe(duplex=False)
        self.pool = ProcessPool(
            max_workers=1,
            initializer=prepare,
            initargs=(self.resources, str(self.log_path), self.writer),
            context=multiprocessing.get_context("spawn"),
        )
        with ctrl_c_held_back():
            self.warming = self.pool.schedule(self.warm_up)
        self.num_tasks, self.first_mb = 0, 0.0

    def end(self) -> None:
        """Begin to end the process, whatever it does; `stop` waits for it. A job is killed: its checkpoint stands."""
        if self.pool is not None:
            self.pool.stop()
            if self.job is not None:
                self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.pool is not None:
            self.end()
            self.pool.join()
            self.pool = None
            for end in (self.reader, self.writer):
                if end is not None:
                    end.close()
            self.reader = self.writer = None

    def restart(self) -> None:
        """Replace the process."""
        self.stop()
        self.start()

    def wait_until_warm(self) -> None:
        """Wait for the imports, and raise what they raised."""
        if self.warming is not None:
            self.warming.result(self.timeouts.start)

    @property
    def pid(self) -> int | None:
        """The number of the process, once it is warm."""
        if self.warming is None or not self.warming.done() or self.warming.exception() is not None:
            return None
        return self.warming.result()

    def submit(self, train: Callable[[TrainingJob, Emit], TrialOutcome], job: TrainingJob) -> None:
        """Hand over a job; a process that died while it was idle is replaced."""
        if self.pool is None or not self.is_alive():
            self.restart()
        self.drain()  # what a job that was killed had to say
        self.job, self.kill_reason, self.beat = job, None, None
        self.began, self.termed = time.monotonic(), 0.0
        self.future = self.pool.schedule(train_in_child, args=(train, job))

    def drain(self) -> list[Event]:
        """Return what the process has told of its job since the last time.

        What a process that is killed was about to tell is there whole or not at all: each event is one write of fewer
        bytes than a pipe takes at once.
        """
        events: list[Event] = []
        while self.reader is not None and self.reader.poll():
            event = self.reader.recv()
            if self.job is None or event.attempt != self.job.attempt:
                continue
            if isinstance(event, Heartbeat):
                self.beat, self.heard = event.beat, time.monotonic()
            events.append(event)
        return events

    def call(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Have a function called in the process, outside of any job."""
        return self.pool.schedule(function, args=arguments)

    def is_alive(self) -> bool:
        """Tell whether the process can take a job: it still imports, or it is there."""
        if self.warming is not None and not self.warming.done():
            return True
        return self.pid is not None and is_process(self.pid)

    def is_done(self) -> bool:
        """Tell whether the job has ended."""
        return self.future is not None and self.future.done()

    def release(self) -> tuple[TrainingJob, "Future[TrialOutcome]", tuple[OutcomeState, str] | None]:
        """Return the job, its future and why it was killed, and be free."""
        job, future, kill_reason = self.job, self.future, self.kill_reason
        if job is None or future is None:
            raise RuntimeError("a child without a job was released")
        self.job = self.future = self.kill_reason = None
        self.num_tasks += 1
        if self.num_tasks == 1:
            self.first_mb = self.memory_mb()
        return job, future, kill_reason

    def memory_mb(self) -> float:
        """Return the memory in MB that is the process's own: mapped images are not; 0 where the kernel does not say."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6

    def growth_mb(self) -> float:
        """Return by how much the process has grown since its first job."""
        return self.memory_mb() - self.first_mb if self.first_mb else 0.0

    def ask_to_stop(self) -> None:
        """Ask for a stop at the next batch."""
        if self.job is not None and self.pid is not None:
            self.signal(signal.SIGUSR1)

    def watch(self) -> None:
        """Kill the process if it hangs, runs over its time or takes more memory than its share: TERM, later KILL."""
        if self.job is None:
            return
        if self.pid is None:
            self.watch_start()
        elif self.kill_reason is None:
            self.kill_reason = self.judge(self.job)
            if self.kill_reason is not None:
                self.termed = time.monotonic()
                self.signal(signal.SIGTERM)
        elif time.monotonic() - self.termed > self.timeouts.term:
            self.signal(signal.SIGKILL)

    def watch_start(self) -> None:
        """Give up a process that hangs in its imports, or died there: the pool's next one would not be watched."""
        if self.warming is None or self.future is None:
            return
        if self.warming.done():
            self.kill_reason = OutcomeState.CRASHED, f"its process could not start: {self.warming.exception()}"
        elif time.monotonic() - self.began > self.timeouts.start:
            self.kill_reason = (
                OutcomeState.TIMEOUT,
                f"its process did not start within {self.timeouts.start:.0f} s; killed",
            )
        if self.kill_reason is not None:
            self.stop()
            self.future.cancel()

    def judge(self, job: TrainingJob) -> tuple[OutcomeState, str] | None:
        """Return (state, reason) if the process has to be killed."""
        memory_mb = self.memory_mb()
        if self.resources.memory_mb and memory_mb > self.resources.memory_mb:
            share = f"its share is {self.resources.memory_mb:,.0f} MB"
            return OutcomeState.INFEASIBLE, f"its process took {memory_mb:,.0f} MB of memory; {share}"
        now, timeouts = time.monotonic(), self.timeouts
        beat, silent = self.beat, now - max(self.began, self.heard)
        if beat is None or beat.batch == 0:
            limit = timeouts.build
        else:
            limit = max(timeouts.silent, timeouts.silent_steps * beat.step_seconds)
        if silent > limit:
            return OutcomeState.TIMEOUT, f"no step for {silent:.0f} s; killed"
        late = now - self.began - job.seconds_limit - timeouts.start * (beat is None)
        if late > timeouts.overtime and not job.is_final:
            overtime = f"{timeouts.overtime:.0f} s after its limit of {job.seconds_limit:.0f} s"
            return OutcomeState.TIMEOUT, f"still running {overtime}; killed"
        return None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is there."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def is_process(pid: int) -> bool:
    """Tell whether a process of this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
