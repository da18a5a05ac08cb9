"""What is looked at between two steps: whether to stop, and the sign of life."""

import time
from typing import Any

from pipeline.pulse import Pulse
from pipeline.records import PRUNED, STOPPED
from pipeline.training import stopping
from pipeline.training.images import Steps

CAUSES = {STOPPED: "it was stopped", PRUNED: "the time was over"}


class Watch:
    """Looks at each step that is fetched, and tells Keras to stop after the step that it is at.

    It hangs on the feed and not on Keras' batch callbacks, which would make each step wait for the one before.
    """

    def __init__(self, model: Any, steps: Steps, seconds_limit: float, pulse: Pulse) -> None:
        self.model = model
        self.steps = steps
        self.ends = time.monotonic() + seconds_limit
        self.pulse = pulse

    def on_step(self, epoch: int, step: int) -> None:
        """Note that a step of an epoch (both from 0) is fetched."""
        self.pulse.batch(epoch + 1, self.steps.num_epochs, step + 1, self.steps.per_epoch)
        if self.cause() is not None:
            self.model.stop_training = True  # fit looks at it after each step, on TensorFlow and on JAX

    def cause(self) -> str | None:
        """Return the state that a training ends in if it must stop now."""
        if stopping.is_requested():
            return STOPPED
        return PRUNED if time.monotonic() > self.ends else None
