"""What is looked at while a training runs: the sign of life, whether to stop, and whether it will end in time."""

import math
import time
from dataclasses import replace
from typing import Any

from pipeline.heartbeat import Heart
from pipeline.states import OutcomeState
from pipeline.training import stopping
from pipeline.training.images import Steps

CAUSES = {OutcomeState.STOPPED: "it was stopped", OutcomeState.PRUNED: "the time was over"}
# Judgements.
UNTIMED_PART, UNTIMED_STEPS = 0.1, 3  # of the first epoch that a process trains, and at least: it builds the step there
_TIMED_PART = 0.1  # of the time that is left: what was timed for less may have been a pause
_SLACK = 0.01  # of the steps that are left: a training that is later than that, more than noise, is shortened
_LEAST_PART = 0.05  # of the changes so far, planned for the rest however late it is: the rate should not drop at once


class TrainingMonitor:
    """Looks at each step that is fetched, and tells Keras to stop after the step that it is at.

    It hangs on the feed and not on Keras' batch callbacks, which would make each step wait for the one before. `steps`
    is the plan, which `shorten` changes.
    """

    def __init__(self, model: Any, steps: Steps, seconds_limit: float, wanted_end: float, heart: Heart) -> None:
        self.model = model
        self.steps = steps
        self.ends = time.monotonic() + seconds_limit
        self.wanted_end = wanted_end  # in seconds of time.monotonic()
        self.heart = heart
        self.first: int | None = None  # the first step that is fetched, counted over the epochs of the plan
        self.timed_from: tuple[int, float] | None = None  # a step and its time

    def on_step(self, epoch: int, step: int) -> None:
        """Note that a step of an epoch (both from 0) is fetched."""
        self.heart.batch(epoch + 1, self.steps.num_epochs, step + 1, self.steps.per_epoch)
        place = epoch * self.steps.per_epoch + step
        self.first = place if self.first is None else self.first
        untimed = max(UNTIMED_STEPS, UNTIMED_PART * self.steps.per_epoch)
        if self.timed_from is None and place - self.first >= untimed:
            self.timed_from = place, time.monotonic()
        if self.cause() is not None:
            self.model.stop_training = True  # fit looks at it after each step, on TensorFlow and on JAX

    def cause(self) -> OutcomeState | None:
        """Return the state that a training ends in if it must stop now."""
        if stopping.is_requested():
            return OutcomeState.STOPPED
        return OutcomeState.PRUNED if time.monotonic() > self.ends else None

    def shorten(self, num_epochs: int) -> bool:
        """Plan fewer steps after `num_epochs` if they would take longer than wanted; tell whether."""
        steps, now = self.steps, time.monotonic()
        left = (steps.num_epochs - num_epochs) * steps.num_batches
        if self.timed_from is None or math.isinf(self.wanted_end) or left == 0:
            return False
        timed, rest = now - self.timed_from[1], self.wanted_end - now
        if timed < _TIMED_PART * rest:
            return False
        num_timed = num_epochs * steps.per_epoch - self.timed_from[0]
        update_seconds = timed / max(num_timed, 1) * steps.num_parts
        least = math.ceil(_LEAST_PART * num_epochs * steps.num_batches)
        fitting = max(least, int(rest / update_seconds))
        if fitting >= (1 - _SLACK) * left:
            return False
        num_more = max(1, round(fitting / steps.num_batches))
        self.steps = replace(steps, num_epochs=num_epochs + num_more, num_batches=fitting // num_more)
        self.first = self.timed_from = None
        return True
