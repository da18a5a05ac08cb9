"""Figures with intervals: the figures are those of a trial, and the intervals cover the truth."""

import math

import numpy as np
import pytest

from pipeline.card import ClassFigures, Figure
from pipeline.intervals import wilson_interval
from pipeline.training.certainty import (
    class_mean_intervals,
    count_answers,
    group_sums,
    measure_by_class,
    measure_with_intervals,
)
from pipeline.training.metrics import measure_logits

NUM_CLASSES = 4
SHARES = np.array([0.55, 0.25, 0.15, 0.05])


def sample(rng, num_images, signal=1.0):
    """Return logits and labels of unbalanced classes that a model tells apart in part."""
    labels = rng.choice(NUM_CLASSES, num_images, p=SHARES).astype(np.int32)
    logits = rng.normal(0, 1, (num_images, NUM_CLASSES)).astype(np.float32)
    logits[np.arange(num_images), labels] += signal
    return logits, labels


def several(rng, num_images, signal=1.0):
    """Return logits and labels of images that have none, one or several."""
    labels = (rng.random((num_images, NUM_CLASSES)) < SHARES).astype(np.uint8)
    logits = rng.normal(-0.5 * signal, 1, labels.shape) + signal * labels
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("draw", [sample, several])
def test_values_are_those_of_a_trial_and_lie_in_their_intervals(draw):
    logits, labels = draw(np.random.default_rng(0), 800)
    figures, values = measure_with_intervals(logits, labels), measure_logits(logits, labels)
    assert set(figures) == {"accuracy", "balanced_accuracy", "macro_f1", "loss", "auc"}
    for name, figure in figures.items():
        assert figure.value == getattr(values, name)
        low, high = figure.ci95
        assert low < figure.value < high, name


@pytest.mark.heavy
@pytest.mark.parametrize("draw", [sample, several])
def test_intervals_cover_the_true_figures(draw):
    rng = np.random.default_rng(1)
    truth = measure_logits(*draw(rng, 200_000))
    found = [measure_with_intervals(*draw(rng, 400)) for _ in range(60)]
    for name in ("balanced_accuracy", "macro_f1", "auc", "loss"):
        ends = [figures[name].ci95 for figures in found]
        assert np.mean([low <= getattr(truth, name) <= high for low, high in ends]) >= 0.88, name


@pytest.mark.parametrize("draw", [sample, several])
def test_a_bootstrap_by_kinds_is_one_by_images(draw):
    logits, labels = draw(np.random.default_rng(2), 300)
    rng = np.random.default_rng(3)
    drawn = [measure_logits(logits[rows], labels[rows]) for rows in rng.integers(0, 300, (1500, 300))]
    balanced, macro_f1 = class_mean_intervals(logits, labels)
    for found, name in ((balanced, "balanced_accuracy"), (macro_f1, "macro_f1")):
        expected = np.quantile([getattr(each, name) for each in drawn], (0.025, 0.975))
        assert found == pytest.approx(expected, abs=0.012)


def test_sums_by_group_leave_out_what_belongs_to_none():
    drawn = np.array([[1, 2, 4, 8], [1, 1, 1, 1]])
    assert group_sums(drawn, np.array([2, -1, 0, 2]), 4).tolist() == [[4, 0, 9, 0], [1, 0, 2, 0]]
    assert group_sums(drawn, np.array([-1, -1, -1, -1]), 2).tolist() == [[0, 0], [0, 0]]


def test_one_class_alone_has_no_auc_and_a_perfect_model_no_negative_room():
    logits = np.array([[5, 0], [5, 0], [5, 0]], np.float32)
    figures = measure_with_intervals(logits, np.zeros(3, np.int32))
    assert (figures["auc"].value, figures["auc"].ci95) == (None, None)
    assert figures["auc"].reason.startswith("not defined: every class has all of the images or none")
    assert figures["balanced_accuracy"] == Figure(1.0, (1.0, 1.0))
    assert figures["accuracy"].ci95[0] < 0.5  # three images say little
    assert all(math.isfinite(end) for figure in figures.values() for end in figure.ci95 or [])


def test_the_figures_of_a_label_are_its_auc_precision_and_recall():
    labels = np.repeat(np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.uint8), 5, axis=0)
    logits = np.repeat(np.array([[2, -1], [-1, -1], [1, -1], [-2, -1]], np.float32), 5, axis=0)
    first, second = measure_by_class(logits, labels)
    assert (first.num_images, first.auc, first.precision, first.recall) == (10, 0.75, 0.5, 0.5)
    assert first.ci95[0] < 0.75 < first.ci95[1] <= 1
    assert first.reason is None
    assert (first.precision_ci95, first.recall_ci95) == (wilson_interval(5, 10), wilson_interval(5, 10))
    reason = "expected at least 10 images in the class and 10 outside it, found 0 in it"
    assert second == ClassFigures(0, None, None, None, None, reason=reason)


def test_a_label_of_fewer_than_ten_images_has_an_auc_without_an_interval():
    labels, logits = np.zeros((40, 2), np.uint8), np.zeros((40, 2), np.float32)
    labels[:9, 0] = labels[:31, 1] = 1
    rare, common = measure_by_class(logits + labels, labels)
    assert (rare.auc, rare.ci95) == (1.0, None)
    assert rare.reason.endswith("found 9 in it")
    assert common.reason.endswith("found 9 outside it")
    figures = measure_with_intervals(logits + labels, labels)
    reason = "expected a class with at least 10 images in it and 10 outside it, found at most 9"
    assert figures["auc"] == Figure(1.0, None, reason)
    labels[9, 0] = 1
    figures, (enough, _) = measure_with_intervals(logits + labels, labels), measure_by_class(logits + labels, labels)
    assert enough.ci95[0] < figures["auc"].ci95[0] < figures["auc"].ci95[1] == 1.0


def test_of_classes_that_exclude_each_other_every_answer_is_counted():
    labels, answers = np.array([0, 0, 0, 1, 1, 2], np.int32), np.array([0, 0, 1, 1, 0, 0])
    logits = np.eye(4, dtype=np.float32)[answers]
    assert count_answers(logits, labels).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    first, second, third, fourth = measure_by_class(logits, labels)
    assert (first.num_images, first.precision, first.recall) == (3, 0.5, 2 / 3)
    assert (first.precision_ci95, first.recall_ci95) == (wilson_interval(2, 4), wilson_interval(2, 3))
    assert (second.precision, second.recall) == (0.5, 0.5)
    assert (third.precision, third.recall, third.recall_ci95) == (None, 0.0, wilson_interval(0, 1))
    assert (fourth.num_images, fourth.recall, fourth.recall_ci95) == (0, None, None)
