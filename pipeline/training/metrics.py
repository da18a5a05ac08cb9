"""What logits are worth: the figures that trials are ranked by, in NumPy alone."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """Figures of labelled logits. `loss` is the cross-entropy; the means over classes leave out those without an image.

    `auc` is the area under the curve of one class against the rest, the mean over the classes; NaN if there is one
    class only.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    auc: float


NOTHING = Metrics(math.nan, math.nan, math.nan, math.nan, math.nan)
"""Without images."""


def measure_logits(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> Metrics:
    """Return the figures of logits (num_images, num_classes), for at least one image."""
    log_probabilities = log_softmax(logits)
    predicted, num_classes = logits.argmax(axis=1), logits.shape[1]
    num_labels = np.bincount(labels, minlength=num_classes)
    num_predicted = np.bincount(predicted, minlength=num_classes)
    num_hits = np.bincount(labels[predicted == labels], minlength=num_classes)
    present = num_labels > 0
    return Metrics(
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        accuracy=float(num_hits.sum() / len(labels)),
        balanced_accuracy=float((num_hits[present] / num_labels[present]).mean()),
        macro_f1=float((2 * num_hits[present] / (num_labels + num_predicted)[present]).mean()),
        auc=mean_auc(log_probabilities, labels),
    )


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def mean_auc(scores: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    """Return the mean of the areas of each class against the rest, from scores (num_images, num_classes), by ranks.

    A class counts if some images are of it and some are not. Equal scores share their mean rank (Mann & Whitney 1947).
    """
    areas = []
    for number in range(scores.shape[1]):
        column = np.sort(scores[:, number])
        own = scores[labels == number, number]
        num_rest = len(column) - len(own)
        if len(own) and num_rest:
            ranks = (np.searchsorted(column, own, "left") + np.searchsorted(column, own, "right") + 1) / 2
            areas.append((ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * num_rest))
    return float(np.mean(areas)) if areas else math.nan
