"""What a training makes smaller and what it reports, by the kind of labels: losses and metrics of logits."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras

from pipeline.training.distillation import SHARE

Loss = Callable[[Any, Any], Any]
"""Of labels and logits (batch, num_classes), to (batch,)."""


def loss_of(share: float, offsets: Sequence[float], has_several: bool, is_taught: bool) -> Loss:
    """Return the cross-entropy with labels of which a share is spread over all answers alike.

    Labels are integers (batch,), or 0 and 1 (batch, num_classes) where an image `has_several`; with `is_taught` they
    are what `distillation.beside` makes of these. `offsets`, one a class or one for all, are added to the logits while
    training, not after.
    """
    if has_several:
        loss = smoothed_binary_crossentropy(share, offsets)
    else:
        loss = (_soft_crossentropy if is_taught else smoothed_crossentropy)(share, offsets)
    return (lambda labels, logits: loss(_mixed(labels), logits)) if is_taught else loss


def metrics_of(has_several: bool, is_taught: bool) -> list[keras.metrics.Metric]:
    """Return `accuracy` and `likelihood` by the given labels: without smoothing, offsets or a teacher."""
    if has_several:
        functions: dict[str, Loss] = {"accuracy": all_right, "likelihood": smoothed_binary_crossentropy(0.0)}
    else:
        likelihood = partial(keras.losses.sparse_categorical_crossentropy, from_logits=True)
        functions = {"accuracy": keras.metrics.sparse_categorical_accuracy, "likelihood": likelihood}
    if is_taught:
        functions = {name: _by_given(function, has_several) for name, function in functions.items()}
    return [keras.metrics.MeanMetricWrapper(function, name) for name, function in functions.items()]


def _mixed(both: Any) -> Any:
    """Return the labels that are learnt, (batch, num_classes), from both halves of what `distillation.beside` made."""
    given, taught = keras.ops.split(both, 2, axis=-1)
    return (1 - SHARE) * given + SHARE * taught


def _by_given(function: Loss, has_several: bool) -> Loss:
    """Return a function of the given half of labels that `distillation.beside` made."""

    def found(labels: Any, logits: Any) -> Any:
        given = keras.ops.split(labels, 2, axis=-1)[0]
        return function(given if has_several else keras.ops.argmax(given, axis=-1), logits)

    return found


def smoothed_crossentropy(share: float, offsets: Sequence[float] = (0.0,)) -> Loss:
    """Return the cross-entropy of a softmax with classes as integers (batch,)."""

    def loss(labels: Any, logits: Any) -> Any:
        log_probabilities = _log_softmax(logits, offsets)
        places = keras.ops.reshape(keras.ops.cast(labels, "int32"), (-1, 1))
        hit = keras.ops.take_along_axis(log_probabilities, places, axis=1)[:, 0]
        return -(1 - share) * hit - share * keras.ops.mean(log_probabilities, axis=1)

    return loss


def _soft_crossentropy(share: float, offsets: Sequence[float] = (0.0,)) -> Loss:
    """Return the cross-entropy of a softmax with probabilities (batch, num_classes)."""

    def loss(labels: Any, logits: Any) -> Any:
        log_probabilities = _log_softmax(logits, offsets)
        hit = keras.ops.sum(labels * log_probabilities, axis=1)
        return -(1 - share) * hit - share * keras.ops.mean(log_probabilities, axis=1)

    return loss


def _log_softmax(logits: Any, offsets: Sequence[float]) -> Any:
    """Return the logarithms of probabilities, float32, of logits and what is added to them."""
    return keras.ops.log_softmax(keras.ops.cast(logits, "float32") + keras.ops.convert_to_tensor(offsets, "float32"))


def smoothed_binary_crossentropy(share: float, offsets: Sequence[float] = (0.0,)) -> Loss:
    """Return the mean over the classes of the cross-entropy of sigmoids with labels in [0, 1] (batch, num_classes).

    The share of each label is spread over yes and no alike.
    """

    def loss(labels: Any, logits: Any) -> Any:
        adjusted = keras.ops.cast(logits, "float32") + keras.ops.convert_to_tensor(offsets, "float32")
        smooth = (1 - share) * keras.ops.cast(labels, "float32") + share / 2
        softplus = keras.ops.log1p(keras.ops.exp(-keras.ops.abs(adjusted))) + keras.ops.relu(adjusted)
        return keras.ops.mean(softplus - smooth * adjusted, axis=-1)

    return loss


def all_right(labels: Any, logits: Any) -> Any:
    """Return 1 for images of which every label, 0 or 1 (batch, num_classes), is answered right, else 0."""
    is_same = keras.ops.equal(keras.ops.cast(labels, "bool"), logits >= 0)
    return keras.ops.cast(keras.ops.all(is_same, axis=-1), "float32")
