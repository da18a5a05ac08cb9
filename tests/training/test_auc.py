"""The uncertainty of a mean AUC: exact for random scores, unbiased for others, and never none by luck."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from pipeline.intervals import wilson_interval
from pipeline.training.auc import class_shortage, gain_interval, measure_auc, shortage
from pipeline.training.metrics import mean_auc


def shift(area):
    """Return by how much the scores of a class are higher than the others, all of variance 1, for that AUC."""
    return NormalDist().inv_cdf(area) * math.sqrt(2)


def first_rows(num_images, *counts):
    """Return labels of which class after class has so many images, from the first on."""
    return (np.arange(num_images)[:, None] < np.array(counts)).astype(np.uint8)


def test_the_error_of_random_scores_is_that_over_all_orders_of_the_labels():
    scores = np.array([[3.0, 1], [1, 2], [1, 0], [0, 5], [2, 2]])  # some are equal
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 1], [0, 0]], np.uint8)  # and some go together
    areas = [mean_auc(scores, labels[list(order)]) for order in itertools.permutations(range(5))]
    assert measure_auc(scores, labels).chance_error == pytest.approx(np.std(areas), abs=1e-12)


def test_the_error_of_random_scores_of_one_class_is_that_of_mann_and_whitney():
    scores = np.random.default_rng(0).normal(size=(40, 1))
    found = measure_auc(scores, first_rows(40, 12)).chance_error
    assert found == pytest.approx(math.sqrt(41 / (12 * 12 * 28)))


def test_the_variance_is_that_of_delong_without_bias():
    rng = np.random.default_rng(1)
    labels = first_rows(60, 10)
    scores = rng.normal(size=(60, 1)) + labels
    is_right = scores[:10] > scores[10:, 0]
    found = measure_auc(scores, labels)
    assert found.value == pytest.approx(is_right.mean()) == pytest.approx(mean_auc(scores, labels))
    variance = is_right.mean(axis=1).var(ddof=1) / 10 + is_right.mean(axis=0).var(ddof=1) / 50
    assert found.influence @ found.influence == pytest.approx(variance)
    as_uncertain = found.value * (1 - found.value) / variance
    assert found.interval() == pytest.approx(wilson_interval(found.value * as_uncertain, as_uncertain))


def test_two_classes_that_exclude_each_other_are_as_uncertain_as_one():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 50).astype(np.int32)
    scores = rng.normal(size=50) + labels
    both = measure_auc(np.stack([-scores, scores], axis=1), labels)
    one = measure_auc(scores[:, None], labels[:, None])
    assert both.interval() == pytest.approx(one.interval())
    assert both.chance_error == pytest.approx(one.chance_error)


def test_the_error_of_a_mean_of_labels_that_go_together_is_that_of_repeated_samples():
    rng = np.random.default_rng(3)

    def draw():
        labels = (rng.normal(size=(300, 1)) + rng.normal(size=(300, 5)) > 1.2).astype(np.uint8)
        return measure_auc(rng.normal(size=(300, 1)) + rng.normal(size=(300, 5)) + labels, labels)

    found = [draw() for _ in range(300)]
    errors = [np.linalg.norm(each.influence) for each in found]
    assert np.mean(errors) == pytest.approx(np.std([each.value for each in found]), rel=0.1)


def test_all_or_none_ranked_right_leaves_room_for_errors_not_seen():
    labels = first_rows(40, 10)
    num_answers = 1 / (0.75 * 4 * 41 / (12 * 10 * 30))  # 29
    low = wilson_interval(num_answers, num_answers)[0]
    right = measure_auc(labels + 0.0, labels)
    assert right.influence.tolist() == [0.0] * 40
    assert right.interval() == pytest.approx((low, 1.0))
    assert measure_auc(1.0 - labels, labels).interval() == pytest.approx((0.0, 1 - low))


def test_equal_scores_are_worth_a_half_for_certain():
    found = measure_auc(np.zeros((30, 2)), first_rows(30, 10, 15))
    assert (found.value, found.interval(), found.chance_error) == (0.5, (0.5, 0.5), 0.0)


def test_an_image_alone_on_its_side_is_no_cause_of_certainty():
    labels = first_rows(40, 1, 20)
    rng = np.random.default_rng(4)
    found = [measure_auc(rng.normal(size=(40, 2)), labels) for _ in range(400)]
    variance = np.mean([each.influence @ each.influence for each in found])
    assert variance == pytest.approx(np.var([each.value for each in found]), rel=0.15)


def test_ten_images_on_either_side_of_one_class_are_enough():
    assert shortage(first_rows(30, 3, 10, 29), 3) == ""
    expected = "expected a class with at least 10 images in it and 10 outside it, found at most 9"
    assert shortage(first_rows(30, 3, 21, 30), 3) == expected
    assert shortage(np.array([0] * 40 + [1] * 9, np.int32), 2) == expected
    assert class_shortage(10, 10) == ""
    assert class_shortage(50, 9).endswith("found 9 outside it")
    assert class_shortage(0, 5).endswith("found 0 in it")


def test_the_same_answers_twice_are_no_difference_and_two_perfect_models_may_differ():
    rng = np.random.default_rng(5)
    labels = first_rows(60, 20)
    scores = rng.normal(size=(60, 1)) + labels
    same = measure_auc(scores, labels)
    assert gain_interval(same, measure_auc(2 * scores, labels), 20) == ((0.0, 0.0), 0.0)
    perfect = measure_auc(labels + 0.0, labels)
    (low, high), error = gain_interval(perfect, perfect, 20)
    assert error == pytest.approx(math.sqrt(2) * perfect.adjusted_error())
    assert (low, high) == pytest.approx((-2.093 * error, 2.093 * error), rel=1e-3)  # Student's t of 19 degrees
    assert error > 0.03


@pytest.mark.heavy
@pytest.mark.parametrize("num_own", [10, 15, 30])
@pytest.mark.parametrize("area", [0.5, 0.7, 0.8, 0.9, 0.97])
def test_intervals_of_few_images_cover_the_true_auc(num_own, area):
    rng = np.random.default_rng(6)
    labels = first_rows(200, num_own)
    ends = [measure_auc(rng.normal(size=(200, 1)) + shift(area) * labels, labels).interval() for _ in range(1000)]
    assert 0.925 <= np.mean([low <= area <= high for low, high in ends]) <= 0.99


@pytest.mark.heavy
@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.9, 0.9), (0.97, 0.9)])
def test_differences_of_few_images_are_covered_and_seldom_a_gain_by_chance(first, second):
    rng, labels, ends = np.random.default_rng(7), first_rows(100, 10), []
    for _ in range(1000):
        shared = rng.normal(size=(100, 1))
        pair = [shared + rng.normal(size=(100, 1)) + math.sqrt(2) * shift(area) * labels for area in (first, second)]
        ends.append(gain_interval(*(measure_auc(scores, labels) for scores in pair), 10)[0])
    assert np.mean([low <= first - second <= high for low, high in ends]) >= 0.93
    if first == second:
        assert np.mean([low > 0 for low, _ in ends]) <= 0.03
