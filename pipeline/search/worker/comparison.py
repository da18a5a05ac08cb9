"""By how much one model is better than another on the same images, with interval and error."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.card import (
    Baseline,
    Comparison,
    SearchGain,
)
from pipeline.intervals import Interval, counts_interval, paired_interval
from pipeline.targets import Labels, Logits, answers, class_scores, is_multi_label, is_right
from pipeline.training.auc import gain_interval, measure_auc, shortage, smaller_sides
from pipeline.training.certainty import UNDEFINED
from pipeline.training.metrics import mean_where, measure_logits

_Floats = NDArray[np.float64]
_Gain = tuple[float, Interval, float]
"""A difference of two models, its 95 % interval and its standard error."""

_COMPARED = {"val_balanced_accuracy": "balanced_accuracy", "val_macro_f1": "balanced_accuracy", "val_auc": "auc"}
"""What models are compared by, by objective, where a good one may have less accuracy than always the largest class."""


def compare(logits: NDArray[np.float32], other: NDArray[np.float32], labels: Labels, objective: str) -> Comparison:
    """Return by how much one model is better than another on the same images, by the logits of both.

    What is compared is the accuracy, or the balanced accuracy where the objective is a mean over classes, or the AUC
    where it is that. The standard error is that of a paired bootstrap, for the AUC of `auc.gain_interval`. If every
    class has too few images for an AUC, the interval and the error are None.
    """
    metric = _COMPARED.get(objective, "accuracy")
    own, value = (float(getattr(measure_logits(each, labels), metric)) for each in (logits, other))
    if math.isnan(value):
        return Comparison(metric, None, None, None, None, UNDEFINED[metric])
    if metric == "auc" and (reason := shortage(labels, logits.shape[1])):
        return Comparison(metric, value, own - value, None, None, reason)
    gain, interval, error = _GAINS[metric](logits, other, labels)
    return Comparison(metric, value, gain, interval, error)


def _accuracy_gain(logits: Logits, other: Logits, labels: Labels) -> _Gain:
    """Return by how much the accuracy of one model is above that of another, with interval and error."""
    first, second = is_right(logits, labels), is_right(other, labels)
    return (int(first.sum()) - int(second.sum())) / len(labels), *paired_interval(first, second)


def _auc_gain(logits: Logits, other: Logits, labels: Labels) -> _Gain:
    """Return by how much the AUC of one model is above that of another, with interval and error."""
    first, second = (measure_auc(class_scores(each, is_multi_label(labels)), labels) for each in (logits, other))
    smaller_side = int(smaller_sides(labels, logits.shape[1]).max())
    return first.value - second.value, *gain_interval(first, second, smaller_side)


def _balanced_gain(logits: Logits, other: Logits, labels: Labels) -> _Gain:
    """Return by how much the balanced accuracy of one model is above that of another, with interval and error."""
    counts, of_side, ahead = (_sides_of_rows if is_multi_label(labels) else _sides_of_classes)(logits, other, labels)

    def gain(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        weights = drawn.astype(np.float64)
        num_images = weights @ of_side
        return mean_where(weights @ (of_side * ahead) / np.maximum(num_images, 1), num_images > 0)

    return float(gain(counts[None])[0]), *counts_interval(counts, gain)


def _sides_of_classes(logits: Logits, other: Logits, labels: Labels) -> tuple[NDArray[np.int64], _Floats, _Floats]:
    """Return kinds of images: how many there are, on which side they are, and by how many right answers one is ahead.

    The sides are those whose recalls a balanced accuracy is the mean of: the classes. The arrays are (num_kinds,),
    (num_kinds, num_sides) of 0 and 1, and (num_kinds, 1) of -1, 0 and 1.
    """
    ahead = is_right(logits, labels).astype(np.int64) - is_right(other, labels)
    kinds, counts = np.unique(labels.astype(np.int64) * 3 + ahead + 1, return_counts=True)
    classes, value = np.divmod(kinds, 3)
    of_side = classes[:, None] == np.unique(classes)
    return counts, of_side.astype(np.float64), (value[:, None] - 1).astype(np.float64)


def _sides_of_rows(logits: Logits, other: Logits, labels: Labels) -> tuple[NDArray[np.int64], _Floats, _Floats]:
    """Return the same for several labels an image: there are two sides a class, the images with it and those without.

    The last array is (num_kinds, num_sides).
    """
    first, second = (answers(each, has_several=True) == labels for each in (logits, other))
    has_both = (labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)
    columns = [labels.astype(np.int8), first.astype(np.int8) - second]
    kinds, counts = np.unique(np.concatenate(columns, axis=1)[:, np.tile(has_both, 2)], axis=0, return_counts=True)
    truth, ahead = np.split(kinds.astype(np.float64), 2, axis=1)
    return counts, np.concatenate([truth, 1 - truth], axis=1), np.tile(ahead, 2)


_GAINS: dict[str, Callable[[Logits, Logits, Labels], _Gain]] = {
    "accuracy": _accuracy_gain, "balanced_accuracy": _balanced_gain, "auc": _auc_gain,
}  # fmt: skip


def search_gain(
    baseline: Baseline, logits: NDArray[np.float32], other: NDArray[np.float32], labels: Labels, objective: str
) -> SearchGain:
    """Return what a search gained: logits (num_images, num_classes) of the winner against the reference network's.

    It is a gain only if the whole 95 % interval of the difference is above 0: two equally good networks show one in
    2.5 % of all cases.
    """
    found = compare(logits, other, labels, objective)
    reason, is_gain = found.reason or "", found.ci95 is not None and found.ci95[0] > 0
    return SearchGain(replace(baseline, reason=reason), replace(found, reason=reason), is_gain)


def gain_text(found: SearchGain) -> str:
    """Return in words what a search gained, or why that was not measured."""
    baseline, comparison = found.baseline, found.comparison
    if baseline.reason or comparison is None or comparison.ci95 is None:
        return f"not measured: {baseline.reason}"
    low, high = (100 * end for end in comparison.ci95)
    gain, name = 100 * (comparison.gain or 0.0), metric_name(comparison.metric)
    network = f"{comparison.value:.2%} {name}, {baseline.num_params:,} params, {baseline.epochs} epochs"
    than = f"over the reference network ({network})"
    if found.is_gain:
        return f"search gain {gain:+.1f} points ({low:.1f} to {high:.1f}) {than}"
    if high < 0:
        return f"no gain: {gain:+.1f} points ({low:.1f} to {high:.1f}) {than}, which is better"
    return f"no gain ({low:+.1f} to {high:+.1f} points) {than}"


def metric_name(metric: str) -> str:
    """Return the name of a figure for reading."""
    return "AUC" if metric == "auc" else metric.replace("_", " ")
