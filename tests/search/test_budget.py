"""How seconds become epochs and deadlines."""

import math

import pytest

from pipeline.search.budget import MAX_STRETCH, Budget, correction, plan_budget


def test_a_short_and_a_long_budget_leave_room_for_finalists_and_the_end():
    for total in (20.0, 60.0, 180.0, 600.0, 86400.0):
        budget = plan_budget(total, None, 1.0, 10_000, 1)
        assert 0 < budget.screening_until < budget.end < budget.total == total
        assert budget.epochs >= 1


def test_twelve_trials_of_the_default_network_fill_the_screening():
    budget = plan_budget(600.0, None, 2.0, 10_000, 1)
    assert budget.epochs == 11  # (0.5 x 576 s / 12 - 1.5 s) / 2 s
    assert budget.trial_seconds == pytest.approx(24.0)


def test_fewer_trials_train_longer_and_more_workers_too():
    few = plan_budget(600.0, 3, 2.0, 10_000, 1)
    assert few.trial_seconds == pytest.approx(4 * plan_budget(600.0, None, 2.0, 10_000, 1).trial_seconds)
    assert plan_budget(600.0, None, 2.0, 10_000, 2).trial_seconds == pytest.approx(48.0)


def test_finalists_train_as_long_as_all_of_them_and_the_winner_fit():
    budget = Budget(600.0, None, 10, 300.0, 588.0, 24.0)
    stretch = budget.stretch(400.0, [21.5, 11.5, 11.5])
    assert stretch == pytest.approx((188.0 - 4 * 1.5) / (20 + 10 + 10 + 1.25 * 20))
    assert budget.stretch(300.0, [3.0]) == MAX_STRETCH
    assert budget.stretch(570.0, [21.5, 11.5]) == 0.0  # too little time to say anything new
    assert Budget(math.inf, 5, 10, math.inf, math.inf, math.inf).stretch(1e9, [5.0]) == 2.0


def test_the_correction_is_the_median_ratio():
    assert correction([1.0, 2.0, 4.0], [2.0, 4.0, 40.0]) == 2.0
    assert correction([], []) == 1.0
