"""A sign of life in a small file: what a training child is at, written each batch and read by any other process.

The record is written in place with one `pwrite` (a few microseconds) and ends with a CRC, so that a reader that meets a
half-written one knows it. A memory map would be no faster here, and an I/O error in one is a signal that kills.
"""

import os
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("<5q2d")
_CHECK = struct.Struct("<I")
_NUM_INTERVALS = 31  # the median of so many steps rides out a pause and follows a change
_NUM_READS = 5  # a torn read is over in microseconds


@dataclass(frozen=True)
class PulseState:
    """What a child is at: `batch` batches of `num_batches` of epoch `epoch` (from 1) of `num_epochs` were fetched.

    A backend may have a few of them waiting. `beat` is the time of the last sign of life, in seconds of
    `time.monotonic()`, which all processes of a machine share until it boots. `step_seconds` is the median time from
    batch to batch of late; 0 before the second one.
    """

    pid: int
    epoch: int
    num_epochs: int
    batch: int
    num_batches: int
    beat: float
    step_seconds: float


class Pulse:
    """Writer of a pulse file; one a training. Without a path it beats for nobody."""

    def __init__(self, path: Path | None) -> None:
        self.descriptor = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.intervals: deque[float] = deque(maxlen=_NUM_INTERVALS)
        self.place = (0, 0, 0, 0)
        self.last_batch: float | None = None
        self.touch()

    def batch(self, epoch: int, num_epochs: int, batch: int, num_batches: int) -> None:
        """Say that batch `batch` (from 1) of an epoch was fetched, and learn how long a step takes."""
        now = time.monotonic()
        if self.last_batch is not None:
            self.intervals.append(now - self.last_batch)
        self.last_batch = now
        self.place = (epoch, num_epochs, batch, num_batches)
        self.write(now)

    def touch(self) -> None:
        """Say that the child lives while it does something other than steps, whose time is not a step's."""
        self.last_batch = None
        self.write(time.monotonic())

    def write(self, now: float) -> None:
        """Write the record over the old one."""
        if self.descriptor is None:
            return
        median = sorted(self.intervals)[len(self.intervals) // 2] if self.intervals else 0.0
        record = _RECORD.pack(os.getpid(), *self.place, now, median)
        os.pwrite(self.descriptor, record + _CHECK.pack(zlib.crc32(record)), 0)

    def close(self) -> None:
        """Close the file and leave it: who started the child deletes it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def going_on(path: Path) -> Pulse:
    """Return a writer for what follows a training, which stays where that ended."""
    last = read_pulse(path)
    pulse = Pulse(path)
    if last is not None:
        pulse.place = last.epoch, last.num_epochs, last.batch, last.num_batches
        pulse.touch()
    return pulse


def read_pulse(path: Path) -> PulseState | None:
    """Return what a child last wrote; None without a file, or if it holds no whole record."""
    for _ in range(_NUM_READS):
        try:
            content = path.read_bytes()
        except OSError:
            return None
        record, check = content[: _RECORD.size], content[_RECORD.size :]
        if len(record) == _RECORD.size and check == _CHECK.pack(zlib.crc32(record)):
            return PulseState(*_RECORD.unpack(record))
    return None
