"""Which trial is better: order, front and knee."""

import pytest

from pipeline.records import Objective, TrialRow
from pipeline.search.ranking import knee, pareto_front, ranked
from pipeline.states import TrialState

BOTH = Objective("val_accuracy", "latency")


def row(number, score, latency_ms=None, mflops=1.0):
    state = TrialState.FAILED if score is None else TrialState.COMPLETED
    return TrialRow(number, state, score, {}, 1000, mflops, 1.0, "", 1, 1, latency_ms=latency_ms)


def numbers(rows):
    return [row.number for row in rows]


def test_the_best_score_comes_first_and_of_equal_ones_the_cheaper_then_the_older():
    rows = [row(0, 0.8), row(1, None), row(2, 0.9, mflops=3), row(3, 0.9, mflops=2), row(4, 0.9, mflops=2)]
    assert numbers(ranked(rows, Objective())) == [3, 4, 2, 0, 1]


def test_of_losses_the_least_comes_first_and_zero_is_a_score():
    rows = [row(0, 0.8), row(1, None), row(2, 0.0), row(3, -0.1)]
    assert numbers(ranked(rows, Objective("val_loss"))) == [3, 2, 0, 1]
    assert numbers(ranked(rows, Objective())) == [0, 2, 3, 1]


def test_the_front_holds_what_nothing_beats_in_both_the_cheapest_first():
    rows = [row(0, 0.90, 3.0), row(1, 0.80, 1.0), row(2, 0.85, 4.0), row(3, 0.95, 9.0), row(4, 0.79, 1.0)]
    assert numbers(pareto_front(rows, BOTH)) == [1, 0, 3]


def test_of_equal_points_one_is_on_the_front_and_equal_scores_leave_the_cheaper():
    rows = [row(0, 0.9, 2.0, mflops=5), row(1, 0.9, 2.0, mflops=4), row(2, 0.9, 3.0), row(3, 0.5, 2.0)]
    assert numbers(pareto_front(rows, BOTH)) == [1]


def test_what_has_no_score_or_no_cost_is_not_on_the_front():
    rows = [row(0, 0.99, None), row(1, None, 0.1), row(2, 0.5, 2.0)]
    assert numbers(pareto_front(rows, BOTH)) == [2]
    assert pareto_front([row(0, 0.9)], Objective()) == []


def test_the_front_of_a_loss_falls():
    rows = [row(0, 0.5, 1.0), row(1, 0.4, 2.0), row(2, 0.6, 3.0)]
    assert numbers(pareto_front(rows, Objective("val_loss", "latency"))) == [0, 1]


@pytest.mark.parametrize("scale", [1, 1000])
def test_the_knee_is_where_more_cost_begins_to_buy_little_in_any_unit(scale):
    points = [(1, 0.50), (2, 0.80), (3, 0.90), (6, 0.92), (10, 0.93)]
    front = [row(number, score, cost * scale) for number, (cost, score) in enumerate(points)]
    # Scaled, height above the line: 0, 0.587, 0.708, 0.421, 0
    assert knee(front, BOTH).number == 2


def test_a_short_straight_or_hollow_front_has_its_best_as_knee():
    assert knee([row(0, 0.5, 1.0)], BOTH).number == 0
    assert knee([row(0, 0.5, 1.0), row(1, 0.6, 2.0)], BOTH).number == 1
    assert knee([row(0, 0.0, 0.0), row(1, 0.5, 1.0), row(2, 1.0, 2.0)], BOTH).number == 2
    assert knee([row(0, 0.0, 0.0), row(1, 0.1, 1.0), row(2, 1.0, 2.0)], BOTH).number == 2
