"""What trainings in tests share."""

import signal

import pytest


@pytest.fixture
def deterministic():
    """TensorFlow is back to its fast sums after the test."""
    yield
    from tensorflow.python.framework.config import disable_op_determinism

    disable_op_determinism()


@pytest.fixture
def stoppable():
    """SIGUSR1 is a request to stop for the length of the test."""
    from pipeline.training import stopping

    before = signal.getsignal(stopping.SIGNAL)
    stopping.listen()
    yield
    signal.signal(stopping.SIGNAL, before)
