"""Who trains: child processes on this machine, each recycled after some tasks; it knows nothing of a study."""

import concurrent.futures
import math
import multiprocessing
import os
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.records import CRASHED, FAILED, TIMEOUT, TrialOutcome, TrialTask
from pipeline.search.worker import CHILD_ENVIRONMENT, prepare, run_task, warm_up

TASKS_PER_CHILD = 40  # Keras and TensorFlow leak some 9 MiB a trial; a new child costs the imports, about 9 s
GRACE_SECONDS = 60.0  # what a task may run over its own limit before its process is killed


class LocalEngine:
    """Child processes that train tasks; `submit` when there is room, `wait` for outcomes, `stop` at the end."""

    def __init__(self, num_workers: int, num_threads: int, log_path: Path) -> None:
        self.num_workers = num_workers
        self.num_threads = num_threads
        self.log_path = log_path
        self.environment: dict[str, str] = {}
        self.pool: Any = None
        self.running: dict[Future[TrialOutcome], TrialTask] = {}
        self.warming: list[Future[bool]] = []

    def start(self) -> None:
        """Start the children, which begin to import; then hide the GPUs from this process, which never uses one."""
        self.environment = dict(CHILD_ENVIRONMENT)
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            self.environment["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
        self.pool = self.make_pool()
        self.warming = [self.pool.schedule(warm_up) for _ in range(self.num_workers)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def make_pool(self) -> Any:
        """Return a new pool of children."""
        from pebble import ProcessPool

        return ProcessPool(
            max_workers=self.num_workers,
            max_tasks=TASKS_PER_CHILD,
            initializer=prepare,
            initargs=(self.environment, self.num_threads, str(self.log_path)),
            context=multiprocessing.get_context("spawn"),
        )

    def check(self) -> None:
        """Wait until the children can train.

        Raises:
            InvalidUsage: the Keras backend cannot be imported; the message says what to install.
            StoppedEarly: a child died on the way; the message says where it wrote why.
        """
        from pebble import ProcessExpired

        try:
            for future in self.warming:
                future.result()
        except ImportError as error:
            raise InvalidUsage(
                f"the Keras backend cannot be imported: {error}; expected TensorFlow or JAX beside Keras; "
                "install one: pip install tensorflow-cpu (or: pip install jax, and set KERAS_BACKEND=jax)"
            ) from error
        except (ProcessExpired, BrokenExecutor) as error:
            raise StoppedEarly(
                f"a training process died while it started ({error}); expected it to import Keras; what it wrote is in "
                f"{self.log_path}; free memory, or see `pipeline doctor`, and run the same command with --resume"
            ) from error

    def has_room(self) -> bool:
        """Tell whether a child is free."""
        return len(self.running) < self.num_workers

    def submit(self, task: TrialTask) -> None:
        """Hand a task to a free child; a pool that broke when an idle child died is replaced."""
        timeout = None if math.isinf(task.seconds_limit) else max(task.seconds_limit, 0) + GRACE_SECONDS
        try:
            future = self.pool.schedule(run_task, args=(task,), timeout=timeout)
        except RuntimeError:
            self.stop()
            self.pool = self.make_pool()
            future = self.pool.schedule(run_task, args=(task,), timeout=timeout)
        self.running[future] = task

    def wait(self, seconds: float) -> list[TrialOutcome]:
        """Return what ended, after at most `seconds`."""
        done, _ = concurrent.futures.wait(self.running, seconds, concurrent.futures.FIRST_COMPLETED)
        return [collect(self.running.pop(future), future) for future in done]

    def stop(self) -> None:
        """End the children, whatever they do."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
            self.pool = None


def collect(task: TrialTask, future: Future[TrialOutcome]) -> TrialOutcome:
    """Return the outcome of an ended task, also when its process died or had to be killed."""
    from pebble import ProcessExpired

    try:
        return future.result()
    except ProcessExpired as error:
        state, reason = CRASHED, f"its process died ({describe_exit(error.exitcode)})"
    except BrokenExecutor as error:
        state, reason = CRASHED, f"its process died ({error})"
    except TimeoutError:
        state, reason = (
            TIMEOUT,
            f"still running {GRACE_SECONDS:.0f} s after its limit of {task.seconds_limit:.0f} s; killed",
        )
    except Exception as error:  # noqa: BLE001  border: what could not even be sent to the child or back
        state, reason = FAILED, f"{type(error).__name__}: {error}"
    return TrialOutcome(task.attempt, task.number, task.rung, state, reason=reason)


def describe_exit(exitcode: int | None) -> str:
    """Return what an exit code means: a signal, often the one of the kernel's out-of-memory killer, or a number."""
    if exitcode == -9:
        return "signal 9, as the kernel sends when memory runs out"
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
