"""Do probabilities say how often they are right? One temperature that makes them, and the error that is left; NumPy.

Logits divided by a temperature keep their order, so that labels stay as they are (Guo et al. 2017, arXiv 1706.04599).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.targets import Labels, decisions, is_right, log_softmax, losses

NUM_BINS = 15
_NUM_FOLDS = 5  # of the cross-fitting that decides whether a temperature is kept
_MIN_IMAGES = 50  # fewer say nothing about probabilities
LOWEST, HIGHEST = 0.1, 10.0  # temperatures that are looked at
_NUM_STEPS = 40  # Newton's method needs 5 to 8; bisection would need 25
_TOLERANCE = 1e-7  # of the inverse temperature


@dataclass(frozen=True)
class Temperature:
    """A temperature and the cross-entropy on the images that it was fitted to, without it and cross-fitted.

    `value` is 1 where it was not kept, and `reason` says why.
    """

    value: float
    num_images: int
    loss_before: float
    loss_after: float
    reason: str = ""


def choose_temperature(logits: NDArray[np.float32], labels: Labels) -> Temperature:
    """Return the temperature for logits (num_images, num_classes) of images that did not train the network.

    It is kept if temperatures that were fitted without a fifth of the images lower the cross-entropy on that fifth, on
    the average of all five.
    """
    num_images = len(labels)
    if num_images < _MIN_IMAGES:
        return Temperature(1.0, num_images, 0.0, 0.0, f"{num_images} validation images; expected {_MIN_IMAGES} or more")
    rank = np.random.default_rng(0).permutation(num_images)
    after = np.zeros(num_images)
    for number in range(_NUM_FOLDS):
        is_held_out = rank % _NUM_FOLDS == number
        fitted = fit_temperature(logits[~is_held_out], labels[~is_held_out])
        after[is_held_out] = losses(logits[is_held_out], labels[is_held_out], fitted or 1.0)
    before, mean_after = float(losses(logits, labels).mean()), float(after.mean())
    value = fit_temperature(logits, labels)
    if value is None:
        reason = f"no temperature between {LOWEST:g} and {HIGHEST:g} is best: too few validation images are wrong"
    elif mean_after >= before:
        reason = "it does not lower the cross-entropy of validation images that it was not fitted to"
    else:
        return Temperature(value, num_images, before, mean_after)
    return Temperature(1.0, num_images, before, mean_after, reason)


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float | None:
    """Return the temperature with the lowest cross-entropy; None if that is not between LOWEST and HIGHEST.

    The cross-entropy is convex in the inverse temperature: Newton's method, kept inside a bracket that shrinks.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope_and_curvature(logits, labels, low)[0] >= 0 or slope_and_curvature(logits, labels, high)[0] <= 0:
        return None
    inverse = 1.0
    for _ in range(_NUM_STEPS):
        slope, curvature = slope_and_curvature(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        proposed = inverse - slope / curvature if curvature > 0 else low
        following = proposed if low < proposed < high else (low + high) / 2
        if abs(following - inverse) < _TOLERANCE:
            break
        inverse = following
    return 1 / inverse


def slope_and_curvature(
    logits: NDArray[np.float32], labels: Labels, inverse: float
) -> tuple[float, float]:  # fmt: skip
    """Return the first two derivatives of the mean cross-entropy, by the inverse temperature."""
    logits, labels = decisions(logits, labels)
    wide = logits.astype(np.float64)
    probabilities = np.exp(log_softmax(wide * inverse))
    expected = (probabilities * wide).sum(axis=1)
    spread = (probabilities * (wide - expected[:, None]) ** 2).sum(axis=1)
    return float((expected - wide[np.arange(len(labels)), labels]).mean()), float(spread.mean())


def calibration_error(logits: NDArray[np.float32], labels: Labels, temperature: float = 1.0) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy, in [0, 1].

    Images (where they may have several labels, all decisions whether an image has a label) are sorted by the
    probability of the answer and cut into NUM_BINS bins of equal mass: as many in each, give or take one, where bins of
    equal width would hold almost all in the last.
    """
    logits, labels = decisions(logits, labels)
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature)
    confidence = np.exp(log_probabilities.max(axis=1))
    order = np.argsort(confidence, kind="stable")
    is_hit = is_right(logits, labels)[order]
    gaps = [
        abs(float(bin_confidence.mean()) - float(bin_right.mean())) * len(bin_right)
        for bin_confidence, bin_right in zip(
            np.array_split(confidence[order], NUM_BINS), np.array_split(is_hit, NUM_BINS), strict=True
        )
        if len(bin_right)
    ]
    return sum(gaps) / len(labels)
