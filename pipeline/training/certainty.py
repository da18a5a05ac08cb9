"""The figures of labelled logits, each with the interval in which the true one lies; NumPy alone."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.card import ClassFigures, Figure
from pipeline.intervals import Interval, counts_interval, mean_interval, wilson_interval
from pipeline.targets import Labels, Logits, answers, class_scores, is_multi_label, is_of_class, losses
from pipeline.training.auc import class_shortage, measure_auc, shortage
from pipeline.training.metrics import Counts, count_classes, mean_auc, measure_logits

_Recount = Callable[[NDArray[np.int64]], Counts]
"""Resampled numbers of each kind of images (num_resamples, num_kinds) to counts (num_resamples, num_classes)."""


_NO_SIDES = "not defined: every class has all of the images or none of them"
UNDEFINED = {"balanced_accuracy": _NO_SIDES, "auc": _NO_SIDES, "macro_f1": "not defined: no image has a label"}
"""Why a figure of finite logits may have no value."""


def measure_with_intervals(logits: NDArray[np.float32], labels: Labels) -> dict[str, Figure]:
    """Return each figure of logits (num_images, num_classes) of at least one image, with its 95 % interval.

    Accuracy: Wilson; loss, balanced accuracy and macro F1: bootstrap over the images; AUC: `auc.MeanAuc`, or None and
    the `reason` where each class has too few images. A figure that is not defined, such as the AUC where there is one
    class only, is None too, with its `reason`.
    """
    values = measure_logits(logits, labels)
    num_correct = round(values.accuracy * len(labels))
    balanced, macro_f1 = class_mean_intervals(logits, labels)
    intervals: dict[str, Interval] = {
        "accuracy": wilson_interval(num_correct, len(labels)),
        "balanced_accuracy": balanced,
        "macro_f1": macro_f1,
        "loss": mean_interval(losses(logits, labels)),
    }
    figures = {name: Figure(getattr(values, name), ends) for name, ends in intervals.items()}
    scores = class_scores(logits, is_multi_label(labels))
    figures["auc"] = Figure(values.auc, *_auc_interval(scores, labels, shortage(labels, scores.shape[1])))
    return {
        name: figure
        if figure.value is not None and math.isfinite(figure.value)
        else Figure(None, None, UNDEFINED[name])
        for name, figure in figures.items()
    }


def measure_by_class(logits: Logits, labels: Labels) -> list[ClassFigures]:
    """Return for each class how many images have it, and how well logits (num_images, num_classes) tell it."""
    counts, scores = count_classes(logits, labels), class_scores(logits, is_multi_label(labels))
    found = []
    for number, (num_images, num_answers, num_hits) in enumerate(zip(*counts[2:], strict=True)):
        column, own = scores[:, [number]], is_of_class(labels, number)[:, None].astype(np.uint8)
        auc = mean_auc(column, own)
        ci95, reason = _auc_interval(column, own, class_shortage(int(num_images), len(labels) - int(num_images)))
        precision, precision_ci95 = _share(int(num_hits), int(num_answers))
        recall, recall_ci95 = _share(int(num_hits), int(num_images))
        shares = (precision, recall, precision_ci95, recall_ci95)
        found.append(ClassFigures(int(num_images), auc if math.isfinite(auc) else None, ci95, *shares, reason))
    return found


def _share(num_hits: int, num_images: int) -> tuple[float, Interval] | tuple[None, None]:
    """Return a share of images with its Wilson interval; None without images."""
    return (num_hits / num_images, wilson_interval(num_hits, num_images)) if num_images else (None, None)


def _auc_interval(scores: NDArray[np.float64], labels: Labels, reason: str) -> tuple[Interval | None, str | None]:
    """Return the interval of the mean AUC, or the reason why there is none."""
    return (None, reason) if reason else (measure_auc(scores, labels).interval(), None)


def count_answers(logits: Logits, labels: Labels) -> NDArray[np.int64]:
    """Return how many images of a class, the row, got which answer, the column: (num_classes, num_classes).

    Each image has one label.
    """
    num_classes = logits.shape[1]
    pairs = labels.astype(np.int64) * num_classes + answers(logits, has_several=False)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_mean_intervals(logits: Logits, labels: Labels) -> tuple[Interval, Interval]:
    """Return the 95 % intervals of balanced accuracy and macro F1, as `Metrics` defines them."""
    counts, recount = (_kinds_of_rows if is_multi_label(labels) else _kinds_of_pairs)(logits, labels)
    balanced, _ = counts_interval(counts, lambda drawn: recount(drawn).balanced_accuracy())
    macro_f1, _ = counts_interval(counts, lambda drawn: recount(drawn).macro_f1())
    return balanced, macro_f1


def _kinds_of_pairs(logits: Logits, labels: Labels) -> tuple[NDArray[np.int64], _Recount]:
    """Return how many images have each pair of label and answer, and how to count classes in resamples of them."""
    num_classes = logits.shape[1]
    kinds, counts = np.unique(
        labels.astype(np.int64) * num_classes + answers(logits, has_several=False), return_counts=True
    )
    truth, answer = np.divmod(kinds, num_classes)
    columns = (truth, answer, np.where(truth == answer, truth, -1))

    def recount(drawn: NDArray[np.int64]) -> Counts:
        sums = (group_sums(drawn, column, num_classes) for column in columns)
        return Counts(len(labels), False, *sums)

    return counts, recount


def _kinds_of_rows(logits: Logits, labels: Labels) -> tuple[NDArray[np.int64], _Recount]:
    """Return how many images have each pair of label and answer rows, and how to count classes in resamples of them."""
    pairs = np.concatenate([labels, answers(logits, has_several=True)], axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    truth, answer = np.split(kinds.astype(np.float64), 2, axis=1)  # products of floats are exact, and far faster

    def recount(drawn: NDArray[np.int64]) -> Counts:
        sums = ((drawn.astype(np.float64) @ each).astype(np.int64) for each in (truth, answer, truth * answer))
        return Counts(len(labels), True, *sums)

    return counts, recount


def group_sums(drawn: NDArray[np.int64], groups: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
    """Return the sums of columns (num_rows, num_columns) by group, (num_rows, num_groups); group -1 is left out."""
    order = np.argsort(groups, kind="stable")
    order = order[np.searchsorted(groups[order], 0) :]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    result = np.zeros((len(drawn), num_groups), np.int64)
    if len(order):
        result[:, groups[order][starts]] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return result
