"""The figures of labelled logits, each with the interval in which the true one lies; NumPy alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.intervals import Interval, counts_interval, mean_interval, normal_interval, wilson_interval
from pipeline.training.metrics import log_softmax, measure_logits


def measure_with_intervals(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> dict[str, dict[str, Any]]:
    """Return value and 95 % interval (`ci95`) of each figure of logits (num_images, num_classes) of at least one image.

    Accuracy: Wilson; loss, balanced accuracy and macro F1: bootstrap over the images; AUC: DeLong et al. 1988. The AUC
    is left out where there is one class only.
    """
    log_probabilities = log_softmax(logits)
    values = measure_logits(logits, labels)
    num_correct = round(values.accuracy * len(labels))
    balanced, macro_f1 = class_mean_intervals(logits.argmax(axis=1), labels, logits.shape[1])
    intervals: dict[str, Interval] = {
        "accuracy": wilson_interval(num_correct, len(labels)),
        "balanced_accuracy": balanced,
        "macro_f1": macro_f1,
        "loss": mean_interval(-log_probabilities[np.arange(len(labels)), labels]),
    }
    if math.isfinite(values.auc):
        low, high = normal_interval(values.auc, auc_error(log_probabilities, labels))
        intervals["auc"] = max(low, 0.0), min(high, 1.0)
    return {name: {"value": getattr(values, name), "ci95": list(ends)} for name, ends in intervals.items()}


def class_mean_intervals(
    predicted: NDArray[np.int64], labels: NDArray[np.int32], num_classes: int
) -> tuple[Interval, Interval]:
    """Return the 95 % intervals of balanced accuracy and macro F1, as `measure_logits` defines them."""
    kinds, counts = np.unique(labels.astype(np.int64) * num_classes + predicted, return_counts=True)
    truth, answer = np.divmod(kinds, num_classes)
    is_hit = truth == answer

    def sums(drawn: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return hits, labels and predictions of each class, (num_resamples, num_classes) each."""
        columns = (np.where(is_hit, truth, -1), truth, answer)
        return tuple(group_sums(drawn, column, num_classes) for column in columns)

    def balanced(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        hits, num_labels, _ = sums(drawn)
        return mean_where(hits / np.maximum(num_labels, 1), num_labels > 0)

    def macro_f1(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        hits, num_labels, num_predicted = sums(drawn)
        return mean_where(2 * hits / np.maximum(num_labels + num_predicted, 1), num_labels > 0)

    return counts_interval(counts, balanced)[0], counts_interval(counts, macro_f1)[0]


def group_sums(drawn: NDArray[np.int64], groups: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
    """Return the sums of columns (num_rows, num_columns) by group, (num_rows, num_groups); group -1 is left out."""
    order = np.argsort(groups, kind="stable")
    order = order[np.searchsorted(groups[order], 0) :]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    result = np.zeros((len(drawn), num_groups), np.int64)
    if len(order):
        result[:, groups[order][starts]] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return result


def mean_where(values: NDArray[np.float64], is_counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of each row over those columns that count."""
    return np.asarray((values * is_counted).sum(axis=1) / is_counted.sum(axis=1))


def auc_error(scores: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    """Return the standard error of the mean AUC of each class against the rest, from scores (num_images, num_classes).

    Every image has an influence on the mean: the share of the other side that it is ranked right against, less its
    expectation (DeLong, DeLong & Clarke-Pearson 1988); the variance of the influences gives that of the mean.
    """
    num_images = len(labels)
    influence, num_counted = np.zeros(num_images), 0
    for number in range(scores.shape[1]):
        is_own = labels == number
        num_own = int(is_own.sum())
        if not 0 < num_own < num_images:
            continue
        num_counted += 1
        own, rest = scores[is_own, number], scores[~is_own, number]
        right_own = share_below(own, np.sort(rest))
        right_rest = 1 - share_below(rest, np.sort(own))
        influence[is_own] += (right_own - right_own.mean()) * num_images / num_own
        influence[~is_own] += (right_rest - right_rest.mean()) * num_images / (num_images - num_own)
    return float(influence.std() / max(num_counted, 1) / math.sqrt(num_images))


def share_below(values: NDArray[np.float64], ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each value the share of sorted ones that are below it; equal ones count half."""
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(ranks / 2 / len(ordered))
