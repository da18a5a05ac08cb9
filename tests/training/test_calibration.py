"""Temperatures are found, kept only where they help, and the calibration error is that of the definition."""

import numpy as np
import pytest

from pipeline.targets import losses
from pipeline.training.calibration import (
    NUM_BINS,
    calibration_error,
    choose_temperature,
    fit_temperature,
    slope_and_curvature,
)


def calibrated(rng, num_images, num_classes=5, scale=2.0):
    """Return logits whose probabilities are the true ones, and labels drawn from them."""
    logits = rng.normal(0, scale, (num_images, num_classes)).astype(np.float32)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int32)
    return logits, labels


def calibrated_rows(rng, num_images, num_classes=5, scale=2.0):
    """Return the same for images that may have several labels."""
    logits = rng.normal(0, scale, (num_images, num_classes)).astype(np.float32)
    return logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)


@pytest.mark.parametrize("draw", [calibrated, calibrated_rows])
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_of_logits_that_were_stretched_is_found(draw, factor):
    logits, labels = draw(np.random.default_rng(0), 20_000)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("draw", [calibrated, calibrated_rows])
def test_the_fit_is_the_lowest_point_and_the_derivatives_are_right(draw):
    logits, labels = draw(np.random.default_rng(1), 400)
    best = fit_temperature(logits * 2, labels)
    grid = [losses(logits * 2, labels, value).mean() for value in np.linspace(0.3, 6, 500)]
    assert losses(logits * 2, labels, best).mean() <= min(grid) + 1e-9
    step = 1e-3
    wide = logits.astype(np.float64)
    values = [losses(wide, labels, 1 / inverse).mean() for inverse in (0.8 - step, 0.8, 0.8 + step)]
    slope, curvature = slope_and_curvature(logits, labels, 0.8)
    assert slope == pytest.approx((values[2] - values[0]) / 2 / step, rel=1e-3)
    assert curvature == pytest.approx((values[2] - 2 * values[1] + values[0]) / step**2, rel=1e-2)


def test_a_temperature_is_kept_where_it_lowers_the_loss_of_other_images():
    logits, labels = calibrated(np.random.default_rng(2), 2000)
    found = choose_temperature(logits * 3, labels)
    assert (found.value, found.reason) == (pytest.approx(3, rel=0.1), "")
    assert found.loss_after < found.loss_before
    fresh_logits, fresh_labels = calibrated(np.random.default_rng(3), 5000)
    before = calibration_error(fresh_logits * 3, fresh_labels)
    after = calibration_error(fresh_logits * 3, fresh_labels, found.value)
    assert after < 0.02 < 0.1 < before
    assert np.array_equal((fresh_logits * 3 / found.value).argmax(axis=1), fresh_logits.argmax(axis=1))


@pytest.mark.heavy
def test_a_temperature_that_is_only_noise_is_mostly_dropped():
    rng = np.random.default_rng(4)
    found = [choose_temperature(*calibrated(rng, 150)) for _ in range(100)]
    kept = [each.value for each in found if not each.reason]
    assert len(kept) < 40
    assert all(each.value == 1.0 for each in found if each.reason)
    assert "does not lower" in next(each.reason for each in found if each.reason)


def test_images_that_are_all_right_and_a_handful_of_images_give_no_temperature():
    labels = np.arange(100, dtype=np.int32) % 4
    logits = np.eye(4, dtype=np.float32)[labels] * 4
    assert "too few validation images are wrong" in choose_temperature(logits, labels).reason
    assert choose_temperature(logits[:49], labels[:49]).reason == "49 validation images; expected 50 or more"


def test_the_calibration_error_is_the_mean_gap_over_bins_of_equal_mass():
    rng = np.random.default_rng(5)
    confidence = np.sort(rng.uniform(0.5, 1, 150))
    logits = np.stack([np.log(confidence), np.log(1 - confidence)], axis=1).astype(np.float32)
    labels = (rng.random(150) > 0.8).astype(np.int32)
    expected = np.mean(
        [
            abs(confidence[start : start + 10].mean() - (labels[start : start + 10] == 0).mean())
            for start in range(0, 150, 10)
        ]
    )
    assert 10 * NUM_BINS == 150
    assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)
    assert calibration_error(logits[:3], labels[:3]) <= 1  # fewer images than bins


def test_sure_and_always_right_is_no_error_and_sure_and_wrong_is_all_of_it():
    logits = np.array([[50, 0]] * 30, np.float32)
    assert calibration_error(logits, np.zeros(30, np.int32)) == pytest.approx(0, abs=1e-6)
    assert calibration_error(logits, np.ones(30, np.int32)) == pytest.approx(1, abs=1e-6)


def test_the_calibration_error_of_several_labels_is_over_all_decisions():
    logits, labels = calibrated_rows(np.random.default_rng(6), 3000)
    assert calibration_error(logits, labels) < 0.02 < 0.1 < calibration_error(logits * 4, labels)
    sure = np.array([[50, -50]] * 30, np.float32)
    assert calibration_error(sure, np.array([[1, 1]] * 30, np.uint8)) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(sure, np.array([[1, 0]] * 30, np.uint8)) == pytest.approx(0, abs=1e-6)
