"""How long a model takes for one image."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import keras
import numpy as np

_NUM_WARM_UPS = 3
_NUM_RUNS = 50
_SECONDS = 0.4  # for each of both figures, unless one run takes longer


def measure_latency(model: keras.Model) -> tuple[float, float | None]:
    """Return the milliseconds that one image takes at batch 1: with the threads of this process, and on one core.

    Both are medians of compiled predictions. The second is None where threads cannot be pinned to a core: off Linux.
    """
    image = np.zeros((1, *model.input_shape[1:]), model.inputs[0].dtype)
    on_all = milliseconds(model, image)
    if not sys.platform.startswith("linux"):
        return on_all, None
    with on_one_core():
        return on_all, milliseconds(model, image)


def milliseconds(model: keras.Model, image: np.ndarray) -> float:
    """Return the median time of a prediction, after some to warm up."""
    for _ in range(_NUM_WARM_UPS):
        model.predict_on_batch(image)
    times: list[float] = []
    while len(times) < _NUM_RUNS and sum(times) < _SECONDS:
        started = time.perf_counter()
        model.predict_on_batch(image)
        times.append(time.perf_counter() - started)
    return median(times) * 1000


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Keep all threads of this process on one of its cores for the length of the block; Linux only."""
    allowed = os.sched_getaffinity(0)
    before = {thread: os.sched_getaffinity(thread) for thread in threads()}
    core = sorted(allowed)[os.getpid() % len(allowed)]  # children that measure at once should not share it
    try:
        _pin({thread: {core} for thread in before})
        yield
    finally:
        _pin({thread: before.get(thread, allowed) for thread in threads()})


def threads() -> list[int]:
    """Return the kernel's numbers of the threads of this process."""
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _pin(cores: dict[int, set[int]]) -> None:
    """Set on which cores each thread may run; one that has ended meanwhile is passed over."""
    for thread, allowed in cores.items():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, allowed)
