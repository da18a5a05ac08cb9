"""Whether a picture keeps its class when flipped horizontally, judged from the training images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.targets import Labels, agreement, is_multi_label

NUM_ASKED, NUM_KNOWN = 2000, 10_000  # thumbnails: 0.2 s
_MIN_KEPT = 0.5  # measured: CIFAR-10 0.89, Fashion-MNIST 0.74, digits 0.28, signed digits 0.13 (docs/recipe.md)
_NUM_PAIRINGS = 20  # by which the agreement of several labels by chance is found
_NUM_ERRORS = 3  # standard errors by which neighbours must be better than chance to tell anything


@dataclass(frozen=True)
class FlipCheck:
    """How often the nearest other picture is of the same class: for `num_asked` pictures, for them flipped, by chance.

    Each is a share in [0, 1]; where images have several labels, the mean share that is in common (`targets.agreement`).
    """

    own: float
    flipped: float
    chance: float
    num_asked: int
    has_several: bool = False

    @property
    def tells(self) -> bool:
        """Tell whether neighbours are of the same class more often than chance may make them."""
        error = (self.chance * (1 - self.chance) / max(self.num_asked, 1)) ** 0.5
        return self.own - self.chance > _NUM_ERRORS * error

    @property
    def keeps_class(self) -> bool:
        """Tell whether flipped pictures are like those of their class; where neighbours tell nothing they are not."""
        return self.tells and self.flipped - self.chance >= _MIN_KEPT * (self.own - self.chance)

    def described(self) -> str:
        """Return what was found, as text."""
        verdict = "horizontal flips on" if self.keeps_class else "horizontal flips off"
        doubt = (
            "" if self.tells else f" (too few pictures to tell: {self.num_asked:,}; --augment standard flips anyway)"
        )
        if self.has_several:
            return (
                f"{verdict}{doubt}: a picture and the nearest other one share {self.own:.0%} of their labels, "
                f"{self.flipped:.0%} if it is flipped, {self.chance:.0%} by chance"
            )
        return (
            f"{verdict}{doubt}: the nearest other picture has the same class for {self.own:.0%} of the pictures, for "
            f"{self.flipped:.0%} of them flipped, for {self.chance:.0%} by chance"
        )


def check_flips(thumbs: NDArray[np.uint8], labels: Labels, rows: NDArray[np.int64], seed: int) -> FlipCheck:
    """Return what the thumbnails uint8 (num_images, 16, 16) of some rows, those that train, say about flips."""
    drawn = np.random.default_rng(seed).permutation(rows)
    num_asked = min(NUM_ASKED, len(drawn) // 4)
    asked, known = drawn[:num_asked], drawn[num_asked : num_asked + NUM_KNOWN]
    if num_asked == 0:
        return FlipCheck(0.0, 0.0, 1.0, 0, is_multi_label(labels))
    vectors, own_labels = _contrast(thumbs[known]), labels[asked]
    shares = [
        float(agreement(labels[known][(_contrast(pictures) @ vectors.T).argmax(axis=1)], own_labels).mean())
        for pictures in (thumbs[asked], thumbs[asked][:, :, ::-1])
    ]
    return FlipCheck(shares[0], shares[1], _chance_agreement(labels[drawn], seed), num_asked, is_multi_label(labels))


def _chance_agreement(labels: Labels, seed: int) -> float:
    """Return how much the labels of two images agree that are drawn by chance; of several labels by drawing some."""
    if not is_multi_label(labels):
        return float(((np.bincount(labels) / len(labels)) ** 2).sum())
    rng = np.random.default_rng(seed)
    return float(np.mean([agreement(labels, rng.permutation(labels)).mean() for _ in range(_NUM_PAIRINGS)]))


def _contrast(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return thumbnails as vectors float32 (num_thumbs, 256) of mean 0 and length 1."""
    vectors = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))
