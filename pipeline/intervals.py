"""How far a measured figure may be from the true one; nothing here knows what was measured.

A proportion has the score interval of Wilson, which is closer to 95 % than a percentile bootstrap for small samples and
near 0 and 1, where a bootstrap of equal images has no width at all. Everything else (differences between two models on
the same images, figures that are means over classes, losses) is bootstrapped: images are drawn with replacement. Images
of one kind are interchangeable, so that a draw of images is one draw of their numbers by kind from a multinomial
distribution: exact, and its cost does not grow with the number of images.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964  # the 97.5 % quantile of the normal distribution
_NUM_RESAMPLES = 2000  # the ends of a 95 % interval then vary by some 4 % of its width
_CHUNK = 4_000_000  # numbers of resamples that are held at once: 32 MB
_MANY = 20_000  # values, from which on their mean is normal to well below what a resample could show
_SEED = 20260101  # of all resamples: the same data give the same interval

Interval = tuple[float, float]


def wilson_interval(num_correct: float, num_total: float) -> Interval:
    """Return the 95 % score interval of a proportion (Wilson 1927), which stays inside [0, 1] also near the ends."""
    if num_total == 0:
        return 0.0, 1.0
    share = num_correct / num_total
    factor = _Z95**2 / num_total
    centre = (share + factor / 2) / (1 + factor)
    half = _Z95 / (1 + factor) * math.sqrt(share * (1 - share) / num_total + factor / (4 * num_total))
    return max(0.0, centre - half), min(1.0, centre + half)


def counts_interval(
    counts: NDArray[np.int64], statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]]
) -> tuple[Interval, float]:
    """Return the 95 % bootstrap interval, and the standard error, of a figure of counted kinds of images.

    `counts` (num_kinds,) are the images of each kind, at least one in all; `statistic` maps resampled counts
    (num_resamples, num_kinds) to one figure each, NaN where it is not defined.
    """
    rng = np.random.default_rng(_SEED)
    total = int(counts.sum())
    size = max(1, _CHUNK // len(counts))
    figures = [
        statistic(rng.multinomial(total, counts / total, min(size, _NUM_RESAMPLES - start)))
        for start in range(0, _NUM_RESAMPLES, size)
    ]
    return _percentiles(np.concatenate(figures))


def paired_interval(is_first: NDArray[np.bool_], is_second: NDArray[np.bool_]) -> tuple[Interval, float]:
    """Return the 95 % bootstrap interval, and the standard error, of the share in which the first is ahead.

    Both say of the same images (num_images,) whether a model is right; at least one image.
    """
    ahead, behind = int((is_first & ~is_second).sum()), int((~is_first & is_second).sum())
    total = len(is_first)
    counts = np.array([ahead, behind, total - ahead - behind])
    return counts_interval(counts, lambda drawn: (drawn[:, 0] - drawn[:, 1]) / total)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the 95 % interval of the mean of values (num_values,): bootstrapped, and normal from _MANY values on."""
    num_values = len(values)
    if num_values >= _MANY:
        return _normal_interval(float(values.mean()), float(values.std()) / math.sqrt(num_values))
    rng = np.random.default_rng(_SEED)
    size = max(1, _CHUNK // num_values)
    means = [
        values[rng.integers(0, num_values, (min(size, _NUM_RESAMPLES - start), num_values), np.int32)].mean(axis=1)
        for start in range(0, _NUM_RESAMPLES, size)
    ]
    return _percentiles(np.concatenate(means))[0]


def _normal_interval(value: float, standard_error: float) -> Interval:
    """Return the 95 % interval of a figure whose errors are normal."""
    return value - _Z95 * standard_error, value + _Z95 * standard_error


def _percentiles(figures: NDArray[np.float64]) -> tuple[Interval, float]:
    """Return the 2.5 % and 97.5 % quantiles of resampled figures and their standard deviation, NaNs left out.

    They are NaN if all figures are.
    """
    if np.isnan(figures).all():
        return (math.nan, math.nan), math.nan
    low, high = np.nanquantile(figures, (0.025, 0.975))
    return (float(low), float(high)), float(np.nanstd(figures))
