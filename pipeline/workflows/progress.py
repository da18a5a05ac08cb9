"""Who hears how a workflow goes on, and who may interrupt it. Nothing is printed here."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pipeline.search.snapshot import Snapshot

_REPORT_SECONDS = 5.0

Count = Callable[[int, int, int], None]
"""Called with (files done, files in all, files without a label)."""


class Progress(Protocol):
    """Hears how a workflow goes on."""

    def say(self, text: str, level: int = 0) -> None:
        """Take a line of text; 1 is the level of details."""

    def following(self, look: Callable[[], "Snapshot"]) -> AbstractContextManager[Callable[[], None]]:
        """Follow a search during the block, which often calls the function that it gets; `look` reads the study."""

    def counting(self) -> AbstractContextManager[Count]:
        """Follow a scoring during the block, which calls the function that it gets after every batch."""


class StopSignal(Protocol):
    """Says whether the user has asked for an end."""

    def check(self) -> None:
        """Raise KeyboardInterrupt if the end was asked for."""

    def deferred(self) -> AbstractContextManager[None]:
        """Only note a signal during the block, which calls `check` where nothing is half done."""

    def seconds_left(self) -> float | None:
        """Return the seconds that an end may still take after a signal; None if there was no signal."""


class Silent:
    """The Progress of callers that want to hear nothing."""

    def say(self, text: str, level: int = 0) -> None:
        """Drop it."""

    @contextmanager
    def following(self, look: Callable[[], "Snapshot"]) -> Iterator[Callable[[], None]]:
        """Follow nothing."""
        yield lambda: None

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count nothing."""
        yield lambda done, total, errors: None


class NoSignals:
    """The StopSignal of callers that handle no signals: Python's own KeyboardInterrupt ends a workflow at once."""

    def check(self) -> None:
        """Go on."""

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer nothing."""
        yield

    def seconds_left(self) -> float | None:
        """There was no signal."""
        return None


SILENT = Silent()
NO_SIGNALS = NoSignals()


def decoding_report(progress: Progress) -> Callable[[int, int], None]:
    """Return a function that says every few seconds how many images are decoded."""
    reported = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported > _REPORT_SECONDS:
            reported = now
            progress.say(f"  decoded {done:,} of {total:,}")

    return report
