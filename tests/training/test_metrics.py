"""Figures of logits are those of scikit-learn."""

import math
import time

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def example(num_images, num_classes, seed=0, skipped=()):
    """Logits that are partly right, with many equal ones, and labels without the classes `skipped`."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(num_classes) if c not in skipped], num_images).astype(np.int32)
    logits = rng.normal(0, 1, (num_images, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return logits.round(1).astype(np.float32), labels


@pytest.mark.parametrize(("num_classes", "skipped"), [(2, ()), (5, ()), (7, (3, 6))])
def test_figures_are_those_of_scikit_learn(num_classes, skipped):
    from sklearn import metrics

    from pipeline.targets import log_softmax
    from pipeline.training.metrics import measure_logits

    logits, labels = example(500, num_classes, skipped=skipped)
    found, predicted = measure_logits(logits, labels), logits.argmax(axis=1)
    present = np.unique(labels)
    probabilities = np.exp(log_softmax(logits))
    areas = [metrics.roc_auc_score(labels == number, probabilities[:, number]) for number in present]
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities, labels=range(num_classes)))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(
        metrics.recall_score(labels, predicted, labels=present, average="macro")
    )
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, labels=present, average="macro"))
    assert found.auc == pytest.approx(np.mean(areas), abs=1e-12)
    assert found.accuracy != found.balanced_accuracy


def several(num_images, num_classes, seed=0):
    """Logits that are partly right, with many equal ones, and labels of which each class has its own share."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_images, num_classes)) < np.linspace(0.1, 0.8, num_classes)).astype(np.uint8)
    logits = rng.normal(0, 1, labels.shape) + 1.5 * labels - 0.75
    return logits.round(1).astype(np.float32), labels


@pytest.mark.parametrize("num_classes", [2, 6])
def test_figures_of_several_labels_are_those_of_scikit_learn(num_classes):
    from sklearn import metrics

    from pipeline.targets import sigmoid
    from pipeline.training.metrics import measure_logits

    logits, labels = several(500, num_classes)
    found, predicted, shares = measure_logits(logits, labels), (logits >= 0).astype(int), sigmoid(logits)
    columns = range(num_classes)
    balanced = [metrics.balanced_accuracy_score(labels[:, number], predicted[:, number]) for number in columns]
    losses = [metrics.log_loss(labels[:, number], shares[:, number].astype(float)) for number in columns]
    assert found.loss == pytest.approx(np.mean(losses))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(np.mean(balanced))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, logits, average="macro"), abs=1e-12)


def test_a_label_that_no_image_or_every_image_has_is_left_out_of_means():
    from pipeline.training.metrics import measure_logits

    logits, labels = several(200, 3)
    wider = np.concatenate([labels, np.ones((200, 1), np.uint8), np.zeros((200, 1), np.uint8)], axis=1)
    padded = np.concatenate([logits, np.ones((200, 1)), -np.ones((200, 1))], axis=1).astype(np.float32)
    found, expected = measure_logits(padded, wider), measure_logits(logits, labels)
    assert (found.auc, found.balanced_accuracy) == pytest.approx((expected.auc, expected.balanced_accuracy))
    assert found.macro_f1 == pytest.approx((3 * expected.macro_f1 + 1) / 4)  # what all images have is found
    assert math.isnan(measure_logits(logits[:, :1], np.ones((200, 1), np.uint8)).auc)


def test_equal_scores_share_their_rank():
    from sklearn import metrics

    from pipeline.training.metrics import mean_auc

    scores = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    labels = np.array([0, 0, 1, 0])
    expected = metrics.roc_auc_score(labels == 0, scores[:, 0])
    assert expected == pytest.approx(2 / 3)
    assert mean_auc(scores, labels) == pytest.approx((expected + metrics.roc_auc_score(labels, scores[:, 1])) / 2)
    assert mean_auc(np.zeros((10, 2)), np.arange(10) % 2) == 0.5


def test_cross_entropy_of_known_logits():
    from pipeline.training.metrics import measure_logits

    logits = np.array([[0.0, 0.0], [1000.0, 0.0]], np.float32)
    found = measure_logits(logits, np.array([0, 0]))
    assert (found.loss, found.accuracy) == pytest.approx((math.log(2) / 2, 1.0))
    assert math.isnan(found.auc)  # one class against nothing
    assert measure_logits(logits, np.array([1, 0])).accuracy == 0.5


def test_logits_that_are_not_finite_have_no_loss():
    from pipeline.training.metrics import measure_logits

    assert math.isnan(measure_logits(np.array([[np.nan, 0.0]], np.float32), np.array([1])).loss)


def test_ten_thousand_images_of_ten_classes_take_milliseconds():
    from pipeline.training.metrics import measure_logits

    logits, labels = example(10_000, 10)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        measure_logits(logits, labels)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.2  # about 0.02 on an idle core
