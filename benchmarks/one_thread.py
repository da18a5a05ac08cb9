"""Training by one thread, so that two benchmarks side by side do not share cores."""

import os


def pin_to(core: int) -> None:
    """Let this process compute on one core with one thread, and TensorFlow be silent; before it is imported."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.sched_setaffinity(0, {core})
