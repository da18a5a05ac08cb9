"""One label an image or several: answers, likelihoods and the blind answer are those of the definition."""

import numpy as np
import pytest

from pipeline.targets import (
    agreement,
    answers,
    blind_logits,
    decisions,
    is_right,
    log_softmax,
    losses,
    probabilities,
    sigmoid,
    softmax,
)
from pipeline.training.calibration import calibration_error

SEVERAL = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], np.uint8)
LOGITS = np.array([[2.0, -1.0, 0.0], [-3.0, -1.0, 0.5], [1.0, 1.0, 1.0]], np.float32)


def test_several_labels_are_right_only_if_all_are():
    assert answers(LOGITS, has_several=True).tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert is_right(LOGITS, SEVERAL).tolist() == [True, False, True]
    assert answers(LOGITS, has_several=False).tolist() == [0, 2, 0]  # equal logits: the first
    assert is_right(LOGITS, np.array([0, 0, 1])).tolist() == [True, False, False]
    assert answers(LOGITS[:0], has_several=False).tolist() == []


def test_the_loss_of_several_labels_is_the_mean_binary_crossentropy():
    shares = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = -np.log(np.where(SEVERAL > 0, shares, 1 - shares)).mean(axis=1)
    assert losses(LOGITS, SEVERAL) == pytest.approx(expected)
    assert losses(LOGITS * 2, SEVERAL, 2.0) == pytest.approx(expected)
    assert losses(np.array([[1000.0, -1000.0]]), np.array([[0, 0]])) == pytest.approx([500.0])
    assert losses(LOGITS, np.array([0, 1, 2])) == pytest.approx(-log_softmax(LOGITS)[[0, 1, 2], [0, 1, 2]])


def test_decisions_about_labels_have_the_same_likelihood_and_answers():
    logits, labels = decisions(LOGITS, SEVERAL)
    assert (logits.shape, labels.tolist()) == ((9, 2), [0, 1, 0, 1, 1, 1, 0, 0, 0])
    assert losses(logits, labels).reshape(3, 3).mean(axis=1) == pytest.approx(losses(LOGITS, SEVERAL))
    assert is_right(logits, labels).reshape(3, 3).all(axis=1).tolist() == is_right(LOGITS, SEVERAL).tolist()
    assert decisions(LOGITS, np.array([0, 1, 2]))[0] is LOGITS


def test_labels_agree_by_what_is_common_to_both():
    others = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], np.uint8)
    assert agreement(SEVERAL, others).tolist() == pytest.approx([2 / 3, 1, 0])
    assert agreement(np.array([0, 1]), np.array([0, 2])).tolist() == [1, 0]


def test_the_blind_answer_is_the_commonest_class_or_value():
    assert answers(blind_logits(SEVERAL, 3)[None], has_several=True).tolist() == [[1, 0, 1]]
    assert answers(blind_logits(SEVERAL[:2], 3)[None], has_several=True).tolist() == [[0, 0, 0]]  # a half is not most
    assert answers(blind_logits(np.array([2, 1, 2]), 3)[None], has_several=False).tolist() == [2]


def test_probabilities_survive_large_logits():
    rows = softmax(np.array([[1000.0, 1000.0, 0.0], [0.0, 0.0, 0.0]], np.float32))
    assert rows[0] == pytest.approx([0.5, 0.5, 0.0])
    assert rows.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert sigmoid(np.array([1000.0, -1000.0, 0.0, -0.0], np.float32)).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert probabilities(LOGITS, True, 2.0) == pytest.approx(1 / (1 + np.exp(-LOGITS / 2)))
    assert probabilities(LOGITS, False, 2.0) == pytest.approx(softmax(LOGITS / 2))


def test_losses_of_the_largest_logits_are_finite_at_any_temperature():
    logits = np.array([[3.4e38, -3.4e38], [1.0, 3.4e38]], np.float32)
    assert np.isfinite(losses(logits, np.array([1, 0]), 0.1)).all()
    assert np.isfinite(losses(logits, np.array([[0, 1], [1, 1]], np.uint8), 0.1)).all()
    assert np.isfinite(calibration_error(logits, np.array([1, 0]), 0.1))
