"""A child process: how it is made ready, and how a job that it does becomes an outcome."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.errors import TrialFailed
from pipeline.files import is_disk_full
from pipeline.machine import GPU_SHARE, Resources, end_with_parent, gpu_mb, leave_ctrl_c_to_parent
from pipeline.search.events import Emit, Reporter, reporter_of
from pipeline.search.jobs import Findings, TooSlow, TrainingJob, TrialOutcome
from pipeline.search.worker.final import train_default, train_final
from pipeline.search.worker.rung import train_rung
from pipeline.search.worker.student import train_student
from pipeline.states import OutcomeState, TrainingId, TrainingKind

Train = Callable[[TrainingJob, Reporter], tuple[float, Findings]]  # to the score and what else was found

# What child processes are started with; the parent sets none of it for itself.
_CHILD_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
# What Keras imports for tools that no training uses: 1.4 of the 3.7 s that its import takes.
_NEEDLESS_IMPORTS = ("matplotlib", "pandas", "sklearn")
_CHANNEL: list[Connection] = []  # to the parent, the one thing that a process pool cannot hand over with a job
_KILL_ME_FIRST = "500"  # of -1000 to 1000: when memory runs out the kernel kills a child rather than the search


def prepare(resources: Resources, log_path: str, channel: Connection) -> None:
    """Make this child ready: its cores, GPU and threads, its chatter to a file, and Ctrl-C left to the parent.

    It ends with its parent.
    """
    end_with_parent()
    _CHANNEL.append(channel)
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    leave_ctrl_c_to_parent()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until a training knows how to stop
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILL_ME_FIRST)
    if resources.cores:
        os.sched_setaffinity(0, resources.cores)
    os.environ.update(_CHILD_ENVIRONMENT)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(resources.num_threads))
    if resources.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = resources.gpu
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{resources.gpu_share:.2f}"  # for JAX; `warm_up` limits TensorFlow


def warm_up() -> int:
    """Import what every job needs, so that it overlaps with what the parent does; return the number of the process."""
    with absent(_NEEDLESS_IMPORTS):
        import pipeline.training.stopping
        import pipeline.training.trial
    from pipeline.training.compute import limit_gpu_memory

    gpu, share = os.environ.get("CUDA_VISIBLE_DEVICES"), float(os.environ.get("XLA_CLIENT_MEM_FRACTION", GPU_SHARE))
    if gpu and share < GPU_SHARE:  # another child has the rest
        limit_gpu_memory(share * gpu_mb([gpu])[0])

    pipeline.training.stopping.listen()
    return os.getpid() if pipeline.training.trial else 0


@contextlib.contextmanager
def absent(names: Iterable[str]) -> Iterator[None]:
    """Let packages look as if they were not installed; one that is imported already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an ImportError, says the import system
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def run_job(job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Train, tell what happens on the way, and return the outcome; it needs no study, only what the job holds."""
    others: dict[TrainingId, Train] = {
        TrainingKind.FINAL: train_final, TrainingKind.BASELINE: train_default, TrainingKind.STUDENT: train_student,
    }  # fmt: skip
    return outcome_of(others.get(job.training, train_rung), job, emit)


def train_in_child(train: Callable[[TrainingJob, Emit], TrialOutcome], job: TrainingJob) -> TrialOutcome:
    """Do a job in a child process, whose events go to the parent through the channel that `prepare` got."""
    (channel,) = _CHANNEL
    return train(job, channel.send)


def outcome_of(train: Train, job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Return the outcome of a training: every exception becomes one, with its reason.

    A full disk is no fault of the trial: it goes on when there is room.
    """
    started, score, findings = time.monotonic(), None, Findings()
    try:
        score, findings = train(job, reporter_of(job.attempt, emit))
        state, reason = OutcomeState.COMPLETED, ""
    except TrialFailed as error:
        latency = error.latency if isinstance(error, TooSlow) else None
        findings = Findings(latency, is_out_of_memory=error.is_out_of_memory)
        state, reason = error.state, error.reason
    except (Exception, SystemExit) as error:  # noqa: BLE001  border: what a training raises is recorded with its reason
        state, reason = OutcomeState.FAILED, f"{type(error).__name__}: {error}"[:500]
        if is_disk_full(error):
            findings, state = Findings(is_disk_full=True), OutcomeState.STOPPED
            reason = f"the disk is full; free some space ({reason})"
    seconds = time.monotonic() - started
    return TrialOutcome(job.attempt, job.training, job.rung, state, score, reason, seconds, findings)
