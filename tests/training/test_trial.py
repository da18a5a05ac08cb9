"""A training learns, reports every epoch, is repeatable, and says why it failed."""

import math

import numpy as np
import pytest

from pipeline.errors import TrialFailed

pytestmark = pytest.mark.heavy

SMALL = {"depth": 1, "filters": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.03}


def stripes(count, seed=0):
    """Labelled pictures of upright (0) and lying (1) stripes with noise."""
    from pipeline.training.images import Labelled

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.int32)
    wave = 128 + 60 * np.sign(np.sin(np.arange(8) * np.pi / 2 + 0.1))
    lying = np.broadcast_to(wave[:, None], (8, 8))
    images = np.where(labels[:, None, None] == 1, lying, lying.T) + rng.normal(0, 15, (count, 8, 8))
    return Labelled(images.clip(0, 255).astype(np.uint8)[..., None], labels)


def run(params=None, epochs=3, validation=True, **changes):
    from pipeline.training.trial import Setting, train

    rows = []
    setting = Setting(2, (128.0,), (60.0,), epochs, seed=1, **changes)
    model, last = train(
        {**SMALL, **(params or {})}, stripes(160), stripes(60, 9) if validation else None, setting, rows.append
    )
    return model, last, rows


@pytest.mark.parametrize("params", [{}, {"optimizer": "sgd", "learning_rate": 0.1}, {"augment": "shift"}])
def test_a_small_network_learns_stripes(params):
    _, last, rows = run(params, epochs=4, first_step=11)
    assert last.val_accuracy > 0.95
    assert [row.step for row in rows] == [11, 12, 13, 14]
    assert rows[-1] == last
    assert all(0 <= row.accuracy <= 1 and row.val_loss > 0 and row.seconds > 0 for row in rows)


def test_the_learning_rate_rises_to_its_peak_and_ends_at_zero():
    _, _, rows = run({"learning_rate": 0.01}, epochs=5)
    assert rows[0].learning_rate == pytest.approx(0.01, rel=0.01)  # the warm-up is a fifth of the steps
    assert rows[-1].learning_rate == pytest.approx(0.0, abs=1e-6)


def test_the_same_seed_gives_the_same_course():
    # Sums on several threads differ in the last bits, so equal to five digits, not to the last.
    assert run()[2][0].loss == pytest.approx(run()[2][0].loss, rel=1e-5)


def test_reported_validation_is_what_the_model_is_worth():
    from pipeline.training.trial import evaluate

    model, last, _ = run()
    assert evaluate(model, stripes(60, 9)) == pytest.approx((last.val_loss, last.val_accuracy), rel=1e-4)


def test_without_validation_images_there_is_no_validation():
    _, last, _ = run(validation=False)
    assert math.isnan(last.val_accuracy)
    assert last.accuracy > 0.8


def test_a_loss_that_is_not_finite_fails_with_epoch_and_learning_rate():
    with pytest.raises(TrialFailed) as caught:
        run({"optimizer": "sgd", "learning_rate": 1e30, "batch_norm": False})
    assert caught.value.state == "FAILED"
    assert "in epoch 1 (learning rate" in caught.value.reason


def test_a_training_that_is_out_of_time_is_pruned_at_the_end_of_an_epoch():
    with pytest.raises(TrialFailed) as caught:
        run(seconds_limit=0.0)
    assert caught.value.state == "PRUNED"
    assert caught.value.reason == "the time was over after epoch 1 of 3"


def test_running_out_of_memory_is_infeasible():
    with pytest.raises(TrialFailed) as caught:
        run({"dense_layers": 1, "head": "flatten", "dense_units": 2_000_000_000})  # 4 TB of weights
    assert caught.value.state == "INFEASIBLE"
    assert caught.value.reason == "out of memory at batch 16"


def test_cross_entropy_of_known_logits():
    from pipeline.training.trial import measure_logits

    logits = np.array([[0.0, 0.0], [1000.0, 0.0]], np.float32)
    assert measure_logits(logits, np.array([0, 0])) == pytest.approx((math.log(2) / 2, 1.0))
    assert measure_logits(logits, np.array([1, 0]))[1] == 0.5
