"""Ctrl-C and SIGTERM: the first one saves and ends with its exit code, the second one ends at once."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import NoReturn

from pipeline.errors import Interrupted


@contextlib.contextmanager
def interruptions(advice: Callable[[], str]) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM inside the block into exit code 130 or 143; `advice` says how to go on.

    Raises:
        Interrupted: one of the two came.
    """
    received = signal.SIGINT

    def stop(number: int, _frame: object) -> NoReturn:
        nonlocal received
        received = signal.Signals(number)
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, lambda second, _frame: os._exit(128 + second))
        raise KeyboardInterrupt  # no Exception: the borders that record foreign errors must not catch it

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped by {received.name}; {advice()}", 128 + received) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
