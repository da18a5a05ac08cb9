"""What labels are, and what logits say of them: of one class an image, or of several; NumPy alone, nothing trains here.

One class: labels int32 (num_images,), probabilities are the softmax, and the answer is the most probable class.
Several: labels uint8 (num_images, num_classes) of 0 and 1, each probability is a sigmoid of its own, and the answer is
every class of a probability of at least a half. An answer has the form of labels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
"""Of images, (num_images, num_classes)."""
Labels = NDArray[np.integer[Any]]
"""In one of the two forms."""


def is_multi_label(labels: Labels) -> bool:
    """Tell whether images may have several labels."""
    return labels.ndim == 2


def is_of_class(labels: Labels, number: int) -> NDArray[np.bool_]:
    """Return which images have a class, bool (num_images,)."""
    return np.asarray(labels[:, number] > 0 if is_multi_label(labels) else labels == number)


def answers(logits: Logits, has_several: bool) -> Labels:
    """Return what logits answer; equal logits of one class an image go to the first one."""
    if has_several:
        return np.asarray(logits >= 0, np.uint8)
    return logits.argmax(axis=1).astype(np.int32) if len(logits) else np.zeros(0, np.int32)


def is_right(logits: Logits, labels: Labels) -> NDArray[np.bool_]:
    """Return which images are answered right, bool (num_images,): of several labels, all of them."""
    found = answers(logits, is_multi_label(labels)) == labels
    return np.asarray(found.all(axis=1) if is_multi_label(labels) else found)


def agreement(labels: Labels, others: Labels) -> NDArray[np.float64]:
    """Return how much the labels of pairs of images agree, (num_pairs,): 1 or 0, of several those in common.

    In common is the number that both have, as a share of those that either has (Jaccard); none and none agree.
    """
    if not is_multi_label(labels):
        return np.asarray(labels == others, np.float64)
    both, either = ((labels & others).sum(axis=1), (labels | others).sum(axis=1))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def blind_logits(labels: Labels, num_classes: int) -> NDArray[np.float32]:
    """Return logits (num_classes,) of the answer that looks at no image: the commonest class, or value of each."""
    if is_multi_label(labels):
        return np.where(2 * labels.sum(axis=0) > len(labels), 1, -1).astype(np.float32)
    return np.eye(num_classes, dtype=np.float32)[np.bincount(labels, minlength=num_classes).argmax()]


def class_scores(logits: Logits, has_several: bool) -> NDArray[np.float64]:
    """Return scores (num_images, num_classes) that order images, class by class, as their probabilities do."""
    return logits.astype(np.float64) if has_several else log_softmax(logits)


def losses(logits: Logits, labels: Labels, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the cross-entropy of each image, (num_images,); of several labels the mean of the binary ones."""
    if is_multi_label(labels):
        signed = np.where(labels > 0, -1.0, 1.0) * logits / temperature
        return np.asarray(np.logaddexp(0.0, signed).mean(axis=1))
    return np.asarray(-log_softmax(logits.astype(np.float64) / temperature)[np.arange(len(labels)), labels])


def decisions(logits: Logits, labels: Labels) -> tuple[Logits, NDArray[np.integer[Any]]]:
    """Return what was decided, one class a row: for each image, or for each label whether an image has it.

    A sigmoid is the softmax of a logit and 0: there are num_images * num_classes rows of two logits, yes and no.
    """
    if not is_multi_label(labels):
        return logits, labels
    yes = logits.ravel()
    return np.stack([yes, np.zeros_like(yes)], axis=1), (labels.ravel() == 0).astype(np.int32)


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of classes that exclude each other."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def probabilities(logits: NDArray[np.float32], has_several: bool, temperature: float = 1.0) -> NDArray[np.float32]:
    """Return probabilities, float32 (num_images, num_classes); a temperature keeps their order.

    Rounding can make two of them equal: whoever wants the best label looks at the logits.
    """
    return sigmoid(logits, temperature) if has_several else softmax(logits, temperature)


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return probabilities of classes that exclude each other: each row sums to 1."""
    shifted = (logits - logits.max(axis=-1, keepdims=True)) / np.float32(temperature)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return probabilities of labels that do not exclude each other; a logit of 0 or more gives at least a half."""
    small = np.exp(-np.abs(logits) / np.float32(temperature))
    return np.asarray(np.where(logits >= 0, 1 / (1 + small), small / (1 + small)), np.float32)
