"""Labels that predictions contradict are found, counted and ranked; ambiguous images and odd classes do no harm."""

import numpy as np
import pytest

from pipeline.data.quality.label_errors import class_thresholds, find_label_errors, is_contradicted


def logits_of(probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


def made_up(num_classes=3, num_images=300, num_flipped=12, seed=0):
    """Return logits that favour the true class by 3 to 3.2 nats, labels of which some are flipped, and which are."""
    rng = np.random.default_rng(seed)
    true = np.arange(num_images) % num_classes
    logits = rng.normal(0, 0.05, (num_images, num_classes))
    logits[np.arange(num_images), true] += rng.uniform(3, 3.2, num_images)
    flipped = rng.choice(num_images, num_flipped, replace=False)
    labels = true.astype(np.int32)
    labels[flipped] = (true[flipped] + rng.integers(1, num_classes, num_flipped)) % num_classes
    return logits.astype(np.float32), labels, true, np.sort(flipped)


def test_flipped_labels_are_counted_and_come_first_with_the_true_class_as_suggestion():
    logits, labels, true, flipped = made_up()
    found = find_label_errors(logits, labels)
    assert sorted(found.order[:12]) == flipped.tolist()
    assert found.suggested[flipped].tolist() == true[flipped].tolist()
    assert found.num_errors == 12
    assert found.accuracy == pytest.approx(288 / 300)


def test_two_classes_suggest_each_other():
    logits, labels, _, flipped = made_up(num_classes=2)
    found = find_label_errors(logits, labels)
    assert sorted(found.order[:12]) == flipped.tolist()
    assert found.suggested.tolist() == (1 - labels).tolist()
    assert found.num_errors == 12


def test_score_and_probabilities_are_those_of_the_softmax():
    found = find_label_errors(logits_of([[0.9, 0.1], [0.25, 0.75]]), np.array([0, 0], np.int32))
    assert found.probabilities == pytest.approx(np.array([[0.9, 0.1], [0.25, 0.75]]))
    assert found.scores == pytest.approx(-np.log([0.9, 0.25]))
    assert found.order.tolist() == [1, 0]


def test_certain_contradictions_keep_an_order_where_float32_probabilities_are_zero():
    logits = np.array([[0, 200], [0, 300], [0, 250], [5, 0]], np.float32)
    found = find_label_errors(logits, np.zeros(4, np.int32))
    assert found.order.tolist() == [1, 2, 0, 3]
    assert np.isfinite(found.scores).all()


def test_images_that_are_equally_contradicted_keep_their_order():
    found = find_label_errors(np.tile(np.float32([1, 0]), (100, 1)), np.arange(100, dtype=np.int32) % 2)
    assert found.order.tolist() == [*range(1, 100, 2), *range(0, 100, 2)]


def test_an_unsure_prediction_does_not_count_as_an_error():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.2, 0.8], [0.05, 0.95]])
    labels = np.array([0, 0, 0, 1, 1, 0])
    assert is_contradicted(probabilities, labels).tolist() == [False, False, False, False, False, True]


def test_a_class_that_is_never_predicted_accuses_no_image():
    probabilities = np.array([[0.90, 0.08, 0.02], [0.70, 0.28, 0.02], [0.1, 0.88, 0.02], [0.2, 0.79, 0.01]] * 3)
    labels = np.array([0, 0, 1, 1] * 3)
    labels[0] = 2  # its own probability is 0.02: a threshold that every image passes
    found = is_contradicted(probabilities, labels)
    assert np.flatnonzero(found).tolist() == [0]


def test_a_class_without_images_is_never_a_threshold_that_is_passed():
    probabilities = np.array([[0.2, 0.1, 0.7], [0.1, 0.9, 0.0]])
    assert class_thresholds(probabilities, np.array([0, 1])).tolist() == [0.2, 0.9, np.inf]
    assert is_contradicted(probabilities, np.array([0, 1])).tolist() == [False, False]


def test_the_threshold_of_a_class_is_the_mean_confidence_of_its_images():
    probabilities = np.array([[0.6, 0.4], [0.8, 0.2], [0.1, 0.9]])
    assert class_thresholds(probabilities, np.array([0, 0, 1])) == pytest.approx([0.7, 0.9])
