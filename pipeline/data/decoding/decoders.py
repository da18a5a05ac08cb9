"""Disposable children that decode: a file that kills, stalls or bloats one costs that child, and the file is named."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pipeline.data.decoding.chunks import Chunk
from pipeline.data.source import Location
from pipeline.errors import StoppedEarly
from pipeline.machine import (
    ctrl_c_held_back,
    describe_exit,
    end_with_parent,
    leave_ctrl_c_to_parent,
    limit_memory,
    num_cores,
)

CHUNK = 64  # images a task; a task costs ~0.2 ms beside its decoding (benchmarks/data.py)
_CHUNKS_AHEAD = 3  # tasks that wait for each child, so that none is idle while results are worked in
_CHUNK_BYTES = 16 << 20  # of pixels in a task
_MEMORY_BYTES = 4 << 30  # what decoding may take: a 50-megapixel RGB picture takes 0.15 GB, its float copies 1.8 GB
CHUNK_SECONDS = 120.0
FILE_SECONDS = 30.0  # for a file that is tried alone; 50 megapixels take 1 to 3 s
_NUM_TRIES = 3  # of an image whose pool breaks before its turn
_TASKS_PER_CHILD = 2000  # then a fresh child, should a codec leak

Result = TypeVar("Result")


class Killed(str):
    """Why a single image could not be decoded to the end: its child died, or took too long."""

    __slots__ = ()


def prepare_child() -> None:
    """Limit this child's memory, threads and life, leave Ctrl-C to the parent, drop what codecs print about files."""
    from threadpoolctl import threadpool_limits

    end_with_parent()
    threadpool_limits(
        1
    )  # a child is one of as many as there are cores; idle threads of BLAS spin (measured: 3 x slower)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    leave_ctrl_c_to_parent()
    limit_memory(_MEMORY_BYTES)


def _is_ready() -> bool:
    """Be the first task of a child: it shows that children can start at all."""
    return True


class Decoders:
    """A few children that work on chunks of images; use it as a context, so that none is left behind."""

    def __init__(self, num_workers: int | None = None) -> None:
        self.num_workers = num_workers or num_cores()
        self.start()

    def start(self) -> None:
        """Make a pool and give it the task that shows whether a child can start."""
        from pebble import ProcessPool

        self.pool: Any = ProcessPool(
            max_workers=self.num_workers,
            max_tasks=_TASKS_PER_CHILD,
            initializer=prepare_child,
            context=multiprocessing.get_context("spawn"),
        )
        with ctrl_c_held_back():
            self.started: Future[bool] | None = self.pool.schedule(_is_ready, timeout=CHUNK_SECONDS)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the children, whatever they do."""
        self.pool.stop()
        self.pool.join()

    def map(self, work: Callable[[Chunk], Result], chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Result | Killed]]:
        """Yield each chunk with what `work` returned for it, in order; work goes on while the caller uses a result.

        A chunk whose child died or took too long is tried once more, image by image: these come as chunks of one, and
        the culprit as Killed. An exception of `work` itself is raised here.
        """
        waiting: deque[tuple[Chunk, Future[Result]]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, self.submit(work, chunk)))
                if len(waiting) >= _CHUNKS_AHEAD * self.num_workers:
                    yield from self.collect(work, *waiting.popleft())
            while waiting:
                yield from self.collect(work, *waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def check_started(self) -> None:
        """Wait for the first child, once: where none can start, no file is to blame. One that was killed is replaced.

        Raises:
            StoppedEarly: children die before they do anything.
        """
        if self.started is None:
            return
        if self.started.exception() is not None:
            self.stop()
            self.start()
        try:
            self.started.result()
        except Exception as error:  # whatever it is, the message names it
            raise StoppedEarly(
                f"the process that decodes images cannot start ({type(error).__name__}: {error}); expected a Python "
                "that can start another one; free memory, or see `pipeline doctor`, and run the same command again"
            ) from error
        self.started = None

    def submit(self, work: Callable[[Chunk], Result], chunk: Chunk) -> "Future[Result]":
        """Hand a chunk to a child; a pool that broke when an idle child died is replaced."""
        seconds = CHUNK_SECONDS if len(chunk.locations) > 1 else FILE_SECONDS
        try:
            future: Future[Result] = self.pool.schedule(work, args=(chunk,), timeout=seconds)
        except RuntimeError:
            self.stop()
            self.start()
            future = self.pool.schedule(work, args=(chunk,), timeout=seconds)
        return future

    def collect(
        self, work: Callable[[Chunk], Result], chunk: Chunk, future: "Future[Result]"
    ) -> Iterator[tuple[Chunk, Result | Killed]]:
        """Yield the result of a chunk, or those of its images one by one."""
        self.check_started()
        with suppress(BrokenExecutor):
            result = _outcome(future)
            if not isinstance(result, Killed):
                yield chunk, result
                return
        for place, location in enumerate(chunk.locations):
            single = Chunk(chunk.first + place, [location])
            yield single, self.alone(work, single)

    def alone(self, work: Callable[[Chunk], Result], single: Chunk) -> Result | Killed:
        """Return the result of one image, or why there is none.

        A pool that breaks before the image had its turn is made anew.
        """
        for _ in range(_NUM_TRIES):
            with suppress(BrokenExecutor):
                return _outcome(self.submit(work, single))
        return Killed(f"the decoder could not be started again in {_NUM_TRIES} tries")


def _outcome(future: "Future[Result]") -> Result | Killed:
    """Return the result of a task, or why there is none; an exception of the task itself is raised here.

    Raises:
        BrokenExecutor: a child died that had no task; the task has not begun.
    """
    from pebble import ProcessExpired

    try:
        return future.result()
    except ProcessExpired as error:
        return Killed(f"the decoder died ({describe_exit(error.exitcode)})")
    except TimeoutError:
        return Killed("the decoder did not end in time")


def chunks_of(
    location: Callable[[int], Location], rows: Sequence[int], image_bytes: int, most: int = CHUNK
) -> Iterator[Chunk]:
    """Yield the images of `rows` in chunks of at most `most`, numbered by their place in `rows`.

    An image decodes to `image_bytes`.
    """
    size = max(1, min(most, _CHUNK_BYTES // image_bytes))
    for start in range(0, len(rows), size):
        yield Chunk(start, [location(row) for row in rows[start : start + size]])
