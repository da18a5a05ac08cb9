"""What a training tells whoever started it, in order; plain values that another process or machine can send."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.heartbeat import Beat, Heart
from pipeline.records import EpochRow
from pipeline.search.jobs import TrialOutcome


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of an attempt is over; after a resume those before it are told again."""

    attempt: int
    row: EpochRow


@dataclass(frozen=True)
class Heartbeat:
    """The training of an attempt lives; no clock is part of it, since machines share none."""

    attempt: int
    beat: Beat


@dataclass(frozen=True)
class SplitOpened:
    """The test images are about to be opened, which counts even if the training fails afterwards."""

    attempt: int


@dataclass(frozen=True)
class TrainingEnded:
    """A training is over; nothing more is heard of its attempt."""

    outcome: TrialOutcome


Event = EpochEnded | Heartbeat | SplitOpened | TrainingEnded
Emit = Callable[[EpochEnded | Heartbeat | SplitOpened], None]


@dataclass(frozen=True)
class Reporter:
    """What a training calls on its way: at the end of an epoch, before it opens the test images, and while it lives."""

    epoch: Callable[[EpochRow], None]
    opening: Callable[[], None]
    heart: Heart


def reporter_of(attempt: int, emit: Emit) -> Reporter:
    """Return the reporter of an attempt, which turns all calls into events."""
    return Reporter(
        lambda row: emit(EpochEnded(attempt, row)),
        lambda: emit(SplitOpened(attempt)),
        Heart(lambda beat: emit(Heartbeat(attempt, beat))),
    )
