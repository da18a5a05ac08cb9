"""Intervals hold what they say: they cover the true figure in about 95 of 100 samples, and are the same each time."""

import numpy as np
import pytest

from pipeline.intervals import counts_interval, mean_interval, paired_interval, wilson_interval


def share_covered(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_the_interval_of_a_proportion_stays_inside_and_has_width_at_the_ends():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Newcombe 1998, table I
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_interval_of_a_proportion_covers_where_a_bootstrap_does_not():
    rng = np.random.default_rng(0)
    drawn = rng.binomial(40, 0.97, 1000)
    wilson = share_covered([wilson_interval(int(k), 40) for k in drawn], 0.97)
    bootstrap = share_covered(
        [counts_interval(np.array([k, 40 - k]), lambda d: d[:, 0] / 40)[0] for k in drawn[:300]], 0.97
    )
    assert wilson > 0.93
    assert bootstrap < 0.8  # 30 % of such samples have no error at all, hence no width


def test_a_paired_difference_is_covered_and_narrower_than_two_separate_ones():
    rng = np.random.default_rng(1)
    intervals, widths = [], []
    for _ in range(200):
        hard = rng.random(500) < 0.2  # both models mostly fail on the same images
        first = rng.random(500) < np.where(hard, 0.35, 0.99)
        second = rng.random(500) < np.where(hard, 0.25, 0.98)
        (low, high), error = paired_interval(first, second)
        intervals.append((low, high))
        widths.append((high - low, error))
    truth = 0.2 * 0.10 + 0.8 * 0.01
    assert 0.91 <= share_covered(intervals, truth) <= 0.99
    mean_width, mean_error = np.mean(widths, axis=0)
    assert mean_width == pytest.approx(2 * 1.96 * mean_error, rel=0.05)
    assert mean_width < 0.9 * 2 * 1.96 * np.sqrt(2 * 0.86 * 0.14 / 500)


def test_equal_models_differ_by_nothing():
    is_right = np.array([True, False, True])
    assert paired_interval(is_right, is_right) == ((0.0, 0.0), 0.0)


@pytest.mark.parametrize("num_values", [60, 30_000])
def test_the_mean_of_skewed_values_is_covered(num_values):
    rng = np.random.default_rng(2)
    intervals = [mean_interval(rng.exponential(2.0, num_values)) for _ in range(150)]
    assert share_covered(intervals, 2.0) > 0.87


def test_the_same_values_have_the_same_interval():
    values = np.random.default_rng(3).random(100)
    assert mean_interval(values) == mean_interval(values)
