"""How certain the mean AUC of classes is, each against the rest: intervals, errors, and differences of two models.

An AUC is the share of pairs of images, one of the class and one not, that are ranked right. So it gets the interval of
a proportion (Wilson 1927), of as many independent answers as would be just as uncertain: the effective sample size of
surveys (Korn & Graubard 1998). The uncertainty is the unbiased variance of DeLong, DeLong & Clarke-Pearson 1988 over
all classes at once, since they share the images. _FLOOR bounds it from below, because a network that errs may still
rank a few images all correctly. `benchmarks/auc_intervals.py` measures how often the intervals hold the true AUC.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.intervals import Interval, wilson_interval
from pipeline.targets import Labels, is_of_class

MIN_SIDE = 10  # images with a class, and as many without it: with fewer no interval is reliable
_FLOOR = 0.75  # of 4 A (1 - A) times the variance of random scores: that of Hanley & McNeil 1982 where A nears 1


class MeanAuc(NamedTuple):
    """The mean AUC of classes, the influence of each image on it (num_images,), and its error if scores were random.

    The sum of the squares of the influences is the unbiased variance of DeLong et al. 1988. `least_variance` is the
    least that is believed, as a share of the variance of a single answer that is right with the probability `value`.
    """

    value: float
    influence: NDArray[np.float64]
    chance_error: float
    least_variance: float

    def interval(self) -> Interval:
        """Return the 95 % interval, which is not empty even if all images are ranked correctly."""
        unit = self.unit_variance()
        return wilson_interval(self.value / unit, 1 / unit) if unit else (self.value, self.value)

    def adjusted_error(self) -> float:
        """Return the standard error in the middle of the interval, where it is not 0 by luck (Agresti & Coull 1998)."""
        middle = sum(self.interval()) / 2
        return math.sqrt(self.unit_variance() * middle * (1 - middle))

    def unit_variance(self) -> float:
        """Return the variance as a share of that of a single answer: one by the effective sample size."""
        single = self.value * (1 - self.value)
        return max(float(self.influence @ self.influence) / single if single > 0 else 0.0, self.least_variance)


def measure_auc(scores: NDArray[np.float64], labels: Labels) -> MeanAuc:
    """Return the mean AUC of scores (num_images, num_classes); there must be images on both sides of a class.

    Classes that all images or none have do not count. Equal scores share their mean rank, and count half.
    """
    owned, ranks, areas, influence = [], [], [], np.zeros(len(labels))
    for number in np.flatnonzero(smaller_sides(labels, scores.shape[1])):
        is_own = is_of_class(labels, int(number))
        rank, right = _rank(scores[:, number], is_own)
        owned.append(is_own)
        ranks.append(rank)
        areas.append(right[is_own].mean())
        influence[is_own] += _deviations(right[is_own])
        influence[~is_own] += _deviations(right[~is_own])
    exact, without_ties = _chance_variances(np.stack(owned, axis=1), np.stack(ranks, axis=1))
    return MeanAuc(float(np.mean(areas)), influence / len(areas), math.sqrt(exact), _FLOOR * 4 * without_ties)


def class_counts(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """Return how many images have each class, (num_classes,)."""
    return np.array([is_of_class(labels, number).sum() for number in range(num_classes)], np.int64)


def smaller_sides(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """Return for each class how many images are in it or outside it, whichever are fewer, (num_classes,)."""
    num_own = class_counts(labels, num_classes)
    return np.minimum(num_own, len(labels) - num_own)


def shortage(labels: Labels, num_classes: int) -> str:
    """Return why a mean AUC has no interval: too few images with or without each class; empty if one has enough."""
    most = int(smaller_sides(labels, num_classes).max(initial=0))
    if most >= MIN_SIDE:
        return ""
    return f"expected a class with at least {MIN_SIDE} images in it and {MIN_SIDE} outside it, found at most {most}"


def class_shortage(num_own: int, num_rest: int) -> str:
    """Return why the AUC of a class has no interval: too few images with it or without it; empty if it has one."""
    if min(num_own, num_rest) >= MIN_SIDE:
        return ""
    found = f"{num_own} in it" if num_own <= num_rest else f"{num_rest} outside it"
    return f"expected at least {MIN_SIDE} images in the class and {MIN_SIDE} outside it, found {found}"


def gain_interval(first: MeanAuc, second: MeanAuc, smaller_side: int) -> tuple[Interval, float]:
    """Return the 95 % interval, and the standard error, of the difference of two models on the same images.

    `smaller_side` is the number of images in a class or outside it, whichever are fewer, for the class where it is
    largest. Student's quantile has one degree of freedom less than that, as in Brunner & Munzel 2000 when the other
    side has far more images.
    """
    from scipy.special import stdtrit

    errors = first.adjusted_error(), second.adjusted_error()
    norms = float(np.linalg.norm(first.influence) * np.linalg.norm(second.influence))
    correlation = float(first.influence @ second.influence) / norms if norms > 0 else 0.0
    error = math.sqrt(max(errors[0] ** 2 + errors[1] ** 2 - 2 * correlation * errors[0] * errors[1], 0.0))
    gain, half = first.value - second.value, float(stdtrit(smaller_side - 1, 0.975)) * error
    return (max(gain - half, -1.0), min(gain + half, 1.0)), error


def _rank(values: NDArray[np.float64], is_own: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rank of each value, and the share of the other side that it is ranked right against."""
    order = np.argsort(values)
    ordered = values[order]
    is_new = np.append(True, ordered[1:] != ordered[:-1])  # the first of equal ones
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(values))
    below_own = np.append(0, np.cumsum(is_own[order]))
    place = np.empty(len(values), np.int64)
    place[order] = np.cumsum(is_new) - 1
    below = ((first + last) / 2)[place]  # with half of the equal ones, and so are those that follow
    own = ((below_own[first] + below_own[last]) / 2)[place]
    num_own = below_own[-1]
    return below, np.where(is_own, (below - own) / (len(values) - num_own), 1 - own / num_own)


def _deviations(right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the images of one side are from its mean; the squares add up to that mean's unbiased variance.

    An image that is alone on its side shows no variance: it is compared with the mean of random scores.
    """
    size = len(right)
    return (right - right.mean()) / math.sqrt(size * (size - 1)) if size > 1 else right - 0.5


def _chance_variances(owned: NDArray[np.bool_], ranks: NDArray[np.float64]) -> tuple[float, float]:
    """Return the variance of the mean AUC over all ways to give the labels of these images to these scores.

    `owned` tells which images have which class, (num_images, num_classes); `ranks` have the same shape. The first
    variance is exact, also for correlated labels or scores and for equal scores (Hoeffding 1951). The second one is as
    if no scores of a class were equal: for a single class that m images have and n have not, (m + n + 1) / (12 m n)
    (Mann & Whitney 1947).
    """
    num_images, num_classes = owned.shape
    num_own = owned.sum(axis=0)
    spread, own = ranks - ranks.mean(axis=0), owned - owned.mean(axis=0)
    covariances = (spread.T @ spread) * (own.T @ own) / (num_images - 1)
    weights = 1 / (num_own * (num_images - num_own) * num_classes)
    found = spread.std(axis=0)
    factors = np.divide(math.sqrt((num_images**2 - 1) / 12), found, out=np.zeros(num_classes), where=found > 0)
    variances = (weights @ covariances @ weights, (weights * factors) @ covariances @ (weights * factors))
    return max(float(variances[0]), 0.0), max(float(variances[1]), 0.0)
