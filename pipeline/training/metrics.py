"""What logits are worth: the figures that trials are ranked by, in NumPy alone."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.targets import Labels, Logits, answers, class_scores, is_multi_label, is_of_class, is_right, losses


@dataclass(frozen=True)
class Metrics:
    """Figures of labelled logits. `loss` is the cross-entropy; the means over classes leave out those without an image.

    `auc` is the area under the curve of one class against the rest, the mean over the classes; NaN if there is one
    class only. Of several labels an image `accuracy` counts the images of which all are right, `loss` is the mean
    binary cross-entropy, and the balanced accuracy of a class is the mean of its two recalls: of images that have it,
    and of images that have not. It leaves out classes that all images have.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    auc: float


NOTHING = Metrics(math.nan, math.nan, math.nan, math.nan, math.nan)
"""Without images."""


class Counts(NamedTuple):
    """How many images have a class, are answered to have it, and both: int64 (..., num_classes) each.

    `total` is the number of images, and `rejects` tells that an image without a class is an answer of its own: where an
    image may have several labels.
    """

    total: int
    rejects: bool
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    hits: NDArray[np.int64]

    def balanced_accuracy(self) -> NDArray[np.float64]:
        """Return the mean recall of the classes, (...)."""
        recalls = self.hits / np.maximum(self.labels, 1)
        if not self.rejects:
            return mean_where(recalls, self.labels > 0)
        others = self.total - self.labels
        rejected = (others - self.answers + self.hits) / np.maximum(others, 1)
        return mean_where((recalls + rejected) / 2, (self.labels > 0) & (others > 0))

    def macro_f1(self) -> NDArray[np.float64]:
        """Return the mean F1 of the classes, (...)."""
        return mean_where(2 * self.hits / np.maximum(self.labels + self.answers, 1), self.labels > 0)


def measure_logits(logits: NDArray[np.float32], labels: Labels) -> Metrics:
    """Return the figures of logits (num_images, num_classes), for at least one image."""
    counts = count_classes(logits, labels)
    return Metrics(
        loss=float(losses(logits, labels).mean()),
        accuracy=float(is_right(logits, labels).mean()),
        balanced_accuracy=float(counts.balanced_accuracy()),
        macro_f1=float(counts.macro_f1()),
        auc=mean_auc(class_scores(logits, is_multi_label(labels)), labels),
    )


def count_classes(logits: Logits, labels: Labels) -> Counts:
    """Return how often each class is there, is answered, and both."""
    has_several, num_classes = is_multi_label(labels), logits.shape[1]
    found = answers(logits, has_several)
    if has_several:
        sums = (each.sum(axis=0, dtype=np.int64) for each in (labels, found, labels & found))
    else:
        sums = (np.bincount(each, minlength=num_classes) for each in (labels, found, labels[found == labels]))
    return Counts(len(labels), has_several, *sums)


def mean_where(values: NDArray[np.floating[Any]], is_counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean over the last axis of those values that count, NaN where none does."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values * is_counted).sum(axis=-1) / is_counted.sum(axis=-1))


def mean_auc(scores: NDArray[np.float64], labels: Labels) -> float:
    """Return the mean of the areas of each class against the rest, from scores (num_images, num_classes), by ranks.

    A class counts if some images are of it and some are not. Equal scores share their mean rank (Mann & Whitney 1947).
    """
    areas = []
    for number in range(scores.shape[1]):
        column = np.sort(scores[:, number])
        own = scores[is_of_class(labels, number), number]
        num_rest = len(column) - len(own)
        if len(own) and num_rest:
            ranks = (np.searchsorted(column, own, "left") + np.searchsorted(column, own, "right") + 1) / 2
            areas.append((ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * num_rest))
    return float(np.mean(areas)) if areas else math.nan
