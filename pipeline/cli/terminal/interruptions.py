"""Ctrl-C and SIGTERM: the first one saves and ends with its exit code, the second one ends at once."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from pipeline.errors import Interrupted

_EXIT_SECONDS = 7.0  # from a signal until all is saved and sent, of 10 s; the rest is for a machine that is busy


class Interruptions:
    """What has arrived. While `is_deferred`, a signal is only noted: `check` acts on it where nothing is half done."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.received_at = 0.0
        self.is_deferred = False

    def note(self, number: int, _frame: object) -> None:
        """Take the first signal; the next one ends the process at once."""
        self.received, self.received_at = signal.Signals(number), time.monotonic()
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, lambda second, _frame: os._exit(128 + second))
        if not self.is_deferred:
            raise KeyboardInterrupt  # no Exception: the borders that record foreign errors must not catch it

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal was noted."""
        if self.received is not None:
            raise KeyboardInterrupt

    def seconds_left(self) -> float | None:
        """Return the seconds that an end may still take after a signal; None if there was no signal."""
        return None if self.received is None else max(0.0, self.received_at + _EXIT_SECONDS - time.monotonic())

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal during the block, which calls `check` where it can stop."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False


@contextlib.contextmanager
def interruptions(advice: Callable[[], str]) -> Iterator[Interruptions]:
    """Turn the first Ctrl-C or SIGTERM inside the block into exit code 130 or 143; `advice` says how to go on.

    Raises:
        Interrupted: one of the two came.
    """
    noted = Interruptions()
    previous = {number: signal.signal(number, noted.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    except KeyboardInterrupt as error:
        received = noted.received or signal.SIGINT
        raise Interrupted(
            f"stopped by {'Ctrl-C' if received == signal.SIGINT else received.name}; {advice()}", 128 + received
        ) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
