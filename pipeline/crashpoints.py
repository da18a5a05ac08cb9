"""Named places at which a test can kill this process, to show that the state survives; they do nothing in use."""

import os
import signal

_VARIABLE = "PIPELINE_CRASH_AT"


def crashpoint(name: str) -> None:
    """Kill this process, as `kill -9` would, if the environment variable PIPELINE_CRASH_AT names this place.

    `NAME:N` means the N-th time that the place is reached.
    """
    wanted = os.environ.get(_VARIABLE)
    if wanted is None:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    if int(count or 1) > 1:
        os.environ[_VARIABLE] = f"{place}:{int(count) - 1}"
    else:
        os.kill(os.getpid(), signal.SIGKILL)
