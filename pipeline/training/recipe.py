"""How a network is trained: optimizer, learning-rate schedule and loss, from hyperparameters."""

from collections.abc import Mapping
from typing import Any

import keras

WARMUP_FRACTION = 0.2  # of the steps; airbench94 warms up for 0.23 of its epochs
ADAMW_WEIGHT_DECAY = 0.02  # decoupled (Loshchilov & Hutter 2019), on kernels only
SGD_WEIGHT_DECAY = 5e-4  # He et al. 2016 use 1e-4 to 5e-4 on CIFAR
MOMENTUM = 0.9


def one_cycle(peak: float, num_steps: int) -> Any:
    """Return a schedule that rises linearly to `peak` and falls to zero, by a cosine, at the last step."""
    warmup_steps = max(1, int(WARMUP_FRACTION * num_steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        warmup_target=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(1, num_steps - warmup_steps),
        alpha=0.0,
    )


def optimizer(values: Mapping[str, Any], num_steps: int) -> Any:
    """Return the optimizer that `values["optimizer"]` names, for a training of `num_steps` steps."""
    schedule = one_cycle(values["learning_rate"], num_steps)
    if values["optimizer"] == "sgd":
        chosen = keras.optimizers.SGD(schedule, momentum=MOMENTUM, nesterov=True, weight_decay=SGD_WEIGHT_DECAY)
    else:
        chosen = keras.optimizers.AdamW(schedule, weight_decay=ADAMW_WEIGHT_DECAY)
    chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def compile_model(model: keras.Model, values: Mapping[str, Any], num_steps: int) -> None:
    """Make a model ready for `fit`: cross-entropy of integer labels on logits."""
    model.compile(
        optimizer=optimizer(values, num_steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
