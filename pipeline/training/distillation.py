"""Distillation (Hinton et al. 2015): a network learns the given labels and what a better one, its teacher, says."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.targets import Labels, Logits, is_multi_label, probabilities

# The best of three mixtures that were measured (docs/recipe.md): +1.0 ± 0.4 points for a network of 25,000 parameters.
SHARE = 0.9  # of the teacher in the labels
TEMPERATURE = 4.0  # by which its logits are divided: what it thinks of the other classes shows more


def lesson(logits: Logits, has_several: bool, offsets: Sequence[float] = (0.0,)) -> NDArray[np.float32]:
    """Return what is learnt of a teacher's logits: softened probabilities, float32 (num_images, num_classes).

    `offsets` are those that are added to the student's logits while it trains, so that its own become the teacher's,
    softened.
    """
    return probabilities(np.asarray(logits / TEMPERATURE + np.asarray(offsets), np.float32), has_several)


def beside(labels: Labels, taught: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the given labels, as 0 and 1, and the probabilities taught, float32 (num_images, 2 * num_classes)."""
    num_classes = taught.shape[1]
    given = labels if is_multi_label(labels) else np.eye(num_classes, dtype=np.float32)[labels]
    return np.concatenate([given, taught], axis=1, dtype=np.float32)
