"""What this machine offers: cores and a Keras backend; nothing here imports one."""

import importlib.util
import os

from pipeline.errors import InvalidUsage

BACKENDS = {"tensorflow": "tensorflow-cpu", "jax": "jax", "torch": "torch"}  # name in KERAS_BACKEND, package to install


def num_cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_backend() -> None:
    """Check, without importing it, that the Keras backend of this process is installed.

    Raises:
        InvalidUsage: KERAS_BACKEND is unknown, or names a package that is not there; the message says what to install.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise InvalidUsage(f"KERAS_BACKEND is {name!r}; expected one of {', '.join(BACKENDS)}; change or unset it")
    if importlib.util.find_spec(name) is None:
        raise InvalidUsage(
            f"Keras needs {name}, which is not installed; install it (pip install {BACKENDS[name]}), or set "
            f"KERAS_BACKEND to one of {', '.join(BACKENDS)} that is"
        )
