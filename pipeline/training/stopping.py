"""Stopping a training from outside: SIGUSR1 to the child is a request that is looked at between two steps."""

import signal
from types import FrameType

SIGNAL = signal.SIGUSR1


class _StopRequest:
    """The handler of the signal, which keeps the request; the process's table of handlers is where it lives."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True


def listen() -> None:
    """Keep requests to stop from now on, also those that come before a training starts.

    To be called once in the main thread of a child, where pebble runs tasks too; without it the signal kills.
    """
    signal.signal(SIGNAL, _StopRequest())


def is_requested() -> bool:
    """Tell whether a request came that no training has followed yet; from any thread."""
    handler = signal.getsignal(SIGNAL)
    return isinstance(handler, _StopRequest) and handler.is_set


def clear() -> None:
    """Forget the request, because it was followed."""
    handler = signal.getsignal(SIGNAL)
    if isinstance(handler, _StopRequest):
        handler.is_set = False
