"""What this machine offers: cores, memory, GPUs, a Keras backend, children that end; nothing here imports a backend."""

import contextlib
import importlib.util
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

from pipeline.errors import InvalidUsage

BACKENDS = {"tensorflow": "tensorflow-cpu", "jax": "jax", "torch": "torch"}  # name in KERAS_BACKEND, package to install


_MAX_AUTO_WORKERS = 4  # more configurations at once are proposed knowing less of each other
_MEMORY_SHARE = 0.9  # of the available memory, for all children together
_CHILD_MB = 2500  # a child with TensorFlow and a middling network; fewer children than cores where memory is short
GPU_SHARE = 0.9  # of a GPU's memory, for its children together; the rest is CUDA's

AUTO = "auto"  # as the number of children of a GPU: as many as fit
# A judgement, unmeasured: a CUDA context and cuDNN's workspace take 0.5 to 1 GB, a small CNN at batch 128 1 to 2 more.
_GPU_CHILD_MB = 3000
# Small networks leave most of a GPU idle, large ones nothing: published gains of sharing are 0.7 to 4 times.
_MAX_AUTO_PER_GPU = 4
_GPU_QUERY = (
    "nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits",
)  # fmt: skip
GPU_QUERY_SECONDS = 10.0  # without its persistence mode the driver is loaded first


def num_cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block, and in children that it starts until they leave it to the parent.

    The whole terminal gets it, and a child that still imports would have no word for it but a traceback.
    """
    resource_tracker.ensure_running()  # its own start lets through what it held back itself
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_ctrl_c_to_parent() -> None:
    """Ignore Ctrl-C in this child process, and end without a word at SIGTERM, by which the parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def end_with_parent() -> None:
    """End this child process, whatever it does, as soon as its parent is gone: `kill -9` leaves the parent no time."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def limit_memory(num_bytes: int) -> None:
    """Let this process take at most `num_bytes` of address space beside what it has, and leave no core file."""
    limit = _address_space() + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    """Return the bytes of address space that this process takes already (its libraries); 0 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def describe_exit(exitcode: int | None) -> str:
    """Return what an exit code means: a signal, often the one of the kernel's out-of-memory killer, or a number."""
    if exitcode == -9:
        return "signal 9, which the kernel sends when memory runs out"
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


def check_backend() -> None:
    """Check, without importing it, that the Keras backend of this process is installed.

    Raises:
        InvalidUsage: KERAS_BACKEND is unknown, or names a package that is not there; the message says what to install.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise InvalidUsage(f"KERAS_BACKEND is {name!r}, but must be one of {', '.join(BACKENDS)}; change or unset it")
    if importlib.util.find_spec(name) is None:
        raise InvalidUsage(
            f"Keras needs {name}, which is not installed; install it (pip install {BACKENDS[name]}), or set "
            f"KERAS_BACKEND to one of {', '.join(BACKENDS)} that is"
        )


@dataclass(frozen=True)
class Resources:
    """What one child process may use.

    `cores` are the processors that it is pinned to (none: any), `gpu` is a value of CUDA_VISIBLE_DEVICES (None: as it
    is), `gpu_share` the part of that GPU's memory, `memory_mb` the most resident memory in MB (0: no limit).
    """

    num_threads: int
    cores: tuple[int, ...] = ()
    gpu: str | None = None
    gpu_share: float = 1.0
    memory_mb: float = 0.0


def available_memory_mb() -> float:
    """Return the memory in MB that this process and its children may still take; 0 where the kernel does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")) / 1e6)
    with contextlib.suppress(OSError, ValueError):
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        found.append((float(limit) - float(used)) / 1e6)  # "max" is no number: no limit
    return min(found, default=0.0)


def _visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; nothing is imported."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None:
        return [name for name in wanted.split(",") if name.strip() not in ("", "-1")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether a processor or GPU of this machine computes in bfloat16; of GPUs it is taken for granted."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return bool(_visible_gpus()) or "avx512_bf16" in flags or "amx_bf16" in flags


def hide_gpus() -> None:
    """Keep this process, which imports Keras but never trains, from taking memory of a GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _ask_nvidia() -> list[list[str]]:
    """Return what nvidia-smi says of each GPU: index, UUID, total and free MiB, as texts; nothing if it cannot."""
    try:
        process = subprocess.Popen(
            _GPU_QUERY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError:
        return []
    try:
        output, _ = process.communicate(timeout=GPU_QUERY_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # in a driver that hangs it may not even die
            process.communicate(timeout=1.0)
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    return [row for row in rows if len(row) == 4 and row[2].isdecimal() and row[3].isdecimal()]


def gpu_mb(gpus: Sequence[str]) -> tuple[float, float]:
    """Return the least total and the least free memory in MB of some GPUs, as CUDA_VISIBLE_DEVICES names them.

    0 is unknown. CUDA does not number GPUs as nvidia-smi does, so an index may mean any of them. Of a MIG slice
    nvidia-smi only tells the memory of the whole GPU.
    """
    rows, found = _ask_nvidia(), []
    for name in map(str.strip, gpus):
        meant = [row for row in rows if name.isdecimal() or row[1].startswith(name)]
        found.append([min((float(row[place]) for row in meant), default=0.0) for place in (2, 3)])
    total, free = (min(values) for values in zip(*found, strict=True)) if found else (0.0, 0.0)
    return total, free


def _fitting_per_gpu(gpus: Sequence[str], cores: int, memory_mb: float) -> int:
    """Return how many children a GPU can hold, by its free memory, the cores and the memory of the machine; at least 1.

    `memory_mb` 0 is unknown.
    """
    limits = [_MAX_AUTO_PER_GPU, cores // len(gpus), int(GPU_SHARE * gpu_mb(gpus)[1] // _GPU_CHILD_MB)]
    if memory_mb:
        limits.append(int(memory_mb // _CHILD_MB) // len(gpus))
    return max(1, min(limits))


def share_resources(num_workers: int | None, trials_per_gpu: int | str | None) -> list[Resources]:
    """Return what each child gets: on GPUs one child each unless told otherwise, on a CPU one child a core.

    Two children of one thread each train 1.13 to 1.26 times as many images as one of two threads (benchmarks/README.md,
    "Workers and threads"), as long as there is memory for them. `num_workers` None chooses; `trials_per_gpu` None is
    one, and AUTO as many as fit.
    """
    gpus, cores = _visible_gpus(), num_cores()
    memory_mb = available_memory_mb()
    if gpus:
        per_gpu = _fitting_per_gpu(gpus, cores, memory_mb) if trials_per_gpu == AUTO else int(trials_per_gpu or 1)
        names = (gpus * per_gpu)[: num_workers or None]
        threads = max(1, cores // len(names))
        share = _MEMORY_SHARE * memory_mb / len(names)
        shares = {name: GPU_SHARE / names.count(name) for name in names}
        return [Resources(threads, gpu=name, gpu_share=shares[name], memory_mb=share) for name in names]
    if num_workers is None:
        num_workers = min(cores, _MAX_AUTO_WORKERS, max(1, int(memory_mb // _CHILD_MB)) if memory_mb else cores)
    threads = max(1, cores // num_workers)
    share = _MEMORY_SHARE * memory_mb / num_workers
    pins = core_groups(num_workers, threads) if num_workers > 1 else [()]
    return [Resources(threads, cores=pin, gpu="" if gpus else None, memory_mb=share) for pin in pins]


def core_groups(num_workers: int, num_threads: int) -> list[tuple[int, ...]]:
    """Return the cores of each child; nothing is pinned if there are more children than cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if num_workers * num_threads > len(cores):
        return [()] * num_workers
    return [tuple(cores[index * num_threads : (index + 1) * num_threads]) for index in range(num_workers)]
