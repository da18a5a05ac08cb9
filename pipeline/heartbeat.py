"""Signs of life of a training: its process sends them, the parent keeps the latest in a small file for other terminals.

The record is written in place with one `pwrite` (a few microseconds) and ends with a CRC, so that a reader that meets a
half-written one knows it. A memory map would be no faster here, and an I/O error in one is a signal that kills.
"""

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("<5q2d")
_CHECK = struct.Struct("<I")
_NUM_INTERVALS = 31  # the median of so many steps rides out a pause and follows a change
_NUM_READS = 5  # a torn read is over in microseconds
SEND_SECONDS = 0.5  # between two heartbeats, however short the steps are
NUM_FIRST = 6  # batches of a training that are each told: Keras fetches two, builds the step, and begins anew


@dataclass(frozen=True)
class Beat:
    """Where a training is: `batch` batches of `num_batches` of epoch `epoch` (from 1) of `num_epochs` were fetched.

    A backend may have a few of them waiting. `step_seconds` is the median time from batch to batch of late; 0 before
    the second one.
    """

    epoch: int = 0
    num_epochs: int = 0
    batch: int = 0
    num_batches: int = 0
    step_seconds: float = 0.0


@dataclass(frozen=True)
class StoredBeat:
    """What the parent last heard of a training, and when, in seconds of its own `time.monotonic()`."""

    beat: Beat
    heard: float


class Heart:
    """Beats for one training: `send` gets where it is, at most every SEND_SECONDS once the first steps are done."""

    def __init__(self, send: Callable[[Beat], None]) -> None:
        self.send = send
        self.intervals: deque[float] = deque(maxlen=_NUM_INTERVALS)
        self.place = (0, 0, 0, 0)
        self.num_batches = 0  # of this process
        self.last_batch: float | None = None
        self.last_sent = float("-inf")
        self.touch()

    def batch(self, epoch: int, num_epochs: int, batch: int, num_batches: int) -> None:
        """Note that batch `batch` (from 1) of an epoch was fetched, and learn how long a step takes."""
        now = time.monotonic()
        if self.last_batch is not None:
            self.intervals.append(now - self.last_batch)
        self.last_batch = now
        self.place = (epoch, num_epochs, batch, num_batches)
        self.num_batches += 1
        self._beat(now, is_due=self.num_batches <= NUM_FIRST)

    def touch(self) -> None:
        """Note that the training lives while it does something other than steps, whose time is not a step's."""
        self.last_batch = None
        self._beat(time.monotonic())

    def _beat(self, now: float, is_due: bool = False) -> None:
        if not is_due and now - self.last_sent < SEND_SECONDS:
            return
        self.last_sent = now
        median = sorted(self.intervals)[len(self.intervals) // 2] if self.intervals else 0.0
        self.send(Beat(*self.place, median))


def write_beat(path: Path, beat: Beat) -> None:
    """Keep a heartbeat in the file of its training, over the one before."""
    path.parent.mkdir(exist_ok=True)
    place = (beat.epoch, beat.num_epochs, beat.batch, beat.num_batches)
    record = _RECORD.pack(os.getpid(), *place, time.monotonic(), beat.step_seconds)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, record + _CHECK.pack(zlib.crc32(record)), 0)
    finally:
        os.close(descriptor)


def read_beat(path: Path) -> StoredBeat | None:
    """Return the heartbeat that was kept last; None without a file, or if it holds no whole record."""
    for _ in range(_NUM_READS):
        try:
            content = path.read_bytes()
        except OSError:
            return None
        record, check = content[: _RECORD.size], content[_RECORD.size :]
        if len(record) == _RECORD.size and check == _CHECK.pack(zlib.crc32(record)):
            _, epoch, num_epochs, batch, num_batches, heard, step_seconds = _RECORD.unpack(record)
            return StoredBeat(Beat(epoch, num_epochs, batch, num_batches, step_seconds), heard)
    return None
