"""How a network is trained: optimizer, learning-rate schedule and loss, from hyperparameters."""

from collections.abc import Mapping
from typing import Any

import keras

from pipeline.training.images import Steps

WARMUP_FRACTION = 0.2  # of the steps; airbench94 warms up for 0.23 of its epochs
ADAMW_WEIGHT_DECAY = 0.02  # decoupled (Loshchilov & Hutter 2019), on kernels only
SGD_WEIGHT_DECAY = 5e-4  # He et al. 2016 use 1e-4 to 5e-4 on CIFAR
MOMENTUM = 0.9


class EachUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule over changes of the weights for an optimizer that adds up the gradients of several steps.

    Keras 3.15 asks a schedule for the rate of a step, not of a change; its weight decay and Adam's count go by changes.
    """

    def __init__(self, schedule: Any, num_parts: int) -> None:
        self.schedule = schedule
        self.num_parts = num_parts

    def __call__(self, step: Any) -> Any:
        """Return the rate for a step, the same for all steps of one change."""
        return self.schedule(keras.ops.floor_divide(step, self.num_parts))


def one_cycle(peak: float, num_updates: int) -> Any:
    """Return a schedule that rises linearly to `peak` and falls to zero, by a cosine, at the last change."""
    warmup_steps = max(1, int(WARMUP_FRACTION * num_updates))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        warmup_target=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(1, num_updates - warmup_steps),
        alpha=0.0,
    )


def optimizer(values: Mapping[str, Any], steps: Steps) -> Any:
    """Return the optimizer that `values["optimizer"]` names, for a training of so many steps."""
    schedule, parts = one_cycle(values["learning_rate"], steps.num_updates), {}
    if steps.num_parts > 1:
        schedule = EachUpdate(schedule, steps.num_parts)
        parts = {"gradient_accumulation_steps": steps.num_parts}
    if values["optimizer"] == "sgd":
        chosen = keras.optimizers.SGD(
            schedule, momentum=MOMENTUM, nesterov=True, weight_decay=SGD_WEIGHT_DECAY, **parts
        )
    else:
        chosen = keras.optimizers.AdamW(schedule, weight_decay=ADAMW_WEIGHT_DECAY, **parts)
    chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def compile_model(model: keras.Model, values: Mapping[str, Any], steps: Steps) -> None:
    """Make a model ready for `fit`: cross-entropy of integer labels on logits; a compiled one keeps its optimizer.

    The optimizer gets its variables here: where a step makes them, TensorFlow traces that step twice.
    """
    model.compile(
        optimizer=model.optimizer if model.compiled else optimizer(values, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)


def forget_parts(model: keras.Model, values: Mapping[str, Any], steps: Steps) -> None:
    """Give a trained model Keras' own schedule back, so that a file of it loads without this package."""
    if steps.num_parts > 1:
        model.optimizer.learning_rate = one_cycle(values["learning_rate"], steps.num_updates)
