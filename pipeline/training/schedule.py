"""The learning rate over a training whose length may be cut while it runs."""

import math
from typing import Any

import keras

WARMUP_FRACTION = 0.2  # of the changes of the weights; airbench94 warms up for 0.23 of its epochs
_FIRST_PART = 0.1  # of the peak, where the warm-up begins
_LENGTH = "num_updates"  # name of the variable


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` and falls to zero, by a cosine, at the last of `num_updates` changes of the weights.

    Each takes `num_parts` steps: Keras 3.15 asks a schedule for the rate of a step, not of a change, while its weight
    decay and Adam's count go by changes. The length is a variable of the optimizer: it is kept with its state, can be
    changed between two epochs, and a compiled step serves trainings of any length.
    """

    def __init__(self, peak: float, num_updates: int, num_parts: int) -> None:
        self.peak = peak
        self.num_updates = num_updates
        self.num_parts = num_parts
        self.length: Any = None

    def bind(self, optimizer: Any) -> None:
        """Keep the length in an optimizer, before the first use."""
        length = keras.initializers.Constant(float(self.num_updates))
        self.length = optimizer.add_variable((), length, "float32", name=_LENGTH)

    def __call__(self, step: Any) -> Any:
        """Return the rate for a step, the same for all steps of one change."""
        ops = keras.ops
        update = ops.cast(ops.floor_divide(step, self.num_parts), "float32")
        length = ops.convert_to_tensor(self.length)
        warmup = ops.maximum(1.0, ops.floor(WARMUP_FRACTION * length))
        rising = _FIRST_PART + (1 - _FIRST_PART) * update / warmup
        fallen = ops.clip((update - warmup) / ops.maximum(1.0, length - warmup), 0.0, 1.0)
        falling = 0.5 * (1 + ops.cos(math.pi * fallen))
        return self.peak * ops.where(update < warmup, rising, falling)

    def get_config(self) -> dict[str, float]:
        """Return what the schedule is made of."""
        return {"peak": self.peak, "num_updates": self.num_updates, "num_parts": self.num_parts}


def set_length(optimizer: Any, num_updates: int) -> None:
    """Let the learning rate end at another change of the weights; one that a user's model brings stays as it is."""
    for variable in optimizer.variables:
        if variable.name == _LENGTH:
            variable.assign(float(num_updates))


def highest_rate(optimizer: Any) -> float:
    """Return the peak of an optimizer's OneCycle; of one that a user's model brings, the rate of the moment."""
    if any(variable.name == _LENGTH for variable in optimizer.variables):
        return float(optimizer.get_config()["learning_rate"]["config"]["peak"])
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
