"""A network that is taught learns what its teacher says; what is reported of it is by the given labels."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.training.distillation import SHARE, TEMPERATURE, beside, lesson
from tests.training.test_trial import SMALL, stripes

pytestmark = pytest.mark.heavy

LOGITS = np.array([[4.0, 0.0, -4.0], [0.0, 8.0, 0.0]], np.float32)
TAUGHT = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], np.float32)
OFFSETS = [0.0, -1.0, 0.5]


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def values(tensor):
    import keras

    return keras.ops.convert_to_numpy(tensor)


def test_a_lesson_is_softened_probabilities():
    assert lesson(LOGITS, has_several=False) == pytest.approx(softmax(LOGITS / TEMPERATURE), rel=1e-5)
    assert lesson(LOGITS, has_several=True) == pytest.approx(1 / (1 + np.exp(-LOGITS / TEMPERATURE)), rel=1e-5)


def test_a_student_of_a_lesson_with_offsets_has_the_logits_of_the_teacher_softened():
    wanted = lesson(LOGITS, False, OFFSETS)
    assert softmax(LOGITS / TEMPERATURE + OFFSETS) == pytest.approx(wanted, rel=1e-5)  # logits and what is added


def test_given_labels_stand_beside_what_is_taught():
    given = [[0, 0, 1], [1, 0, 0]]
    assert beside(np.array([2, 0], np.int32), TAUGHT).tolist() == np.concatenate([given, TAUGHT], axis=1).tolist()
    several = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    both = beside(several, TAUGHT)
    assert (both.dtype, both[:, :3].tolist()) == (np.float32, several.tolist())


def test_the_loss_is_the_crossentropy_with_a_mean_of_both_labels():
    from pipeline.training.losses import loss_of

    labels, share = np.array([2, 1], np.int32), 0.2
    found = values(loss_of(share, OFFSETS, has_several=False, is_taught=True)(beside(labels, TAUGHT), LOGITS))
    targets = (1 - SHARE) * np.eye(3)[labels] + SHARE * TAUGHT
    smooth = (1 - share) * targets + share / 3
    assert found == pytest.approx(-(smooth * np.log(softmax(LOGITS + OFFSETS))).sum(axis=1), rel=1e-4)


def test_the_loss_of_several_labels_is_the_binary_crossentropy_with_a_mean_of_both():
    from pipeline.training.losses import loss_of

    labels = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    found = values(loss_of(0.0, OFFSETS, has_several=True, is_taught=True)(beside(labels, TAUGHT), LOGITS))
    targets, shares = (1 - SHARE) * labels + SHARE * TAUGHT, 1 / (1 + np.exp(-(LOGITS + OFFSETS)))
    expected = -(targets * np.log(shares) + (1 - targets) * np.log(1 - shares)).mean(axis=1)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "accuracy"),
    [(np.array([0, 2], np.int32), 0.5), (np.array([[1, 1, 0], [1, 1, 1]], np.uint8), 1.0)],
)
def test_figures_are_those_of_the_given_labels(labels, accuracy):
    from pipeline.training.losses import metrics_of

    has_several = labels.ndim == 2
    found = {}
    for is_taught in (False, True):
        metrics = metrics_of(has_several, is_taught)
        for metric in metrics:
            metric.update_state(beside(labels, TAUGHT) if is_taught else labels, LOGITS)
        found[is_taught] = {metric.name: float(metric.result()) for metric in metrics}
    assert found[True] == pytest.approx(found[False])
    assert found[True]["accuracy"] == accuracy


def train(training, **changes):
    from pipeline.training.trial import TrainingConfig, train

    config = TrainingConfig(2, (128.0,), (60.0,), **{"samples": 160 * 4, "seed": 1, **changes})
    return train(SMALL, training, stripes(60, 9), config, lambda row: None)


def test_a_network_believes_its_teacher():
    training = stripes(160)
    wrong = lesson(20 * np.eye(2, dtype=np.float32)[1 - training.labels], has_several=False)
    last = train(replace(training, taught=wrong)).last
    assert last.val_accuracy < 0.05
    assert last.accuracy < 0.5  # by the given labels


def test_a_checkpoint_of_another_lesson_is_of_no_use():
    from pipeline.training.trial import TrainingConfig, task_hash

    training, config = stripes(160), TrainingConfig(2, (128.0,), (60.0,), samples=160, seed=1)
    lessons = [None, np.zeros((160, 2), np.float32), np.ones((160, 2), np.float32)]
    hashes = [task_hash({}, replace(training, taught=each), config) for each in lessons]
    assert len(set(hashes)) == 3
