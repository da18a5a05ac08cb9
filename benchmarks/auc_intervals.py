"""How often the 95 % interval of an AUC holds the true one, and how often random scores beat the blind answer.

    python benchmarks/auc_intervals.py --repeats 4000

Scores are normal, those of images that have a label higher by what the true AUC asks for. The first table is of a mean
AUC, the second of the difference of two models whose errors have a correlation of 0.7.
"""

import argparse
import math
import platform
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.search.worker.evaluation import compare, compare_with_majority
from pipeline.targets import Labels, class_scores
from pipeline.training.auc import measure_auc

AREAS = (0.5, 0.7, 0.8, 0.9, 0.97)
PAIRS = ((0.5, 0.5), (0.7, 0.7), (0.9, 0.9), (0.97, 0.97), (0.8, 0.7), (0.97, 0.9))
SHARED = 0.7  # of the variance of the errors of two models

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Case:
    """How many of the images have each label, how much labels and errors go together, and how wide own scores are."""

    name: str
    num_images: int
    counts: tuple[int, ...]
    shared: float = 0.0
    width: float = 1.0
    is_exclusive: bool = False

    def draw(self, rng: np.random.Generator) -> tuple[Labels, Floats]:
        """Return labels and errors (num_images, num_labels)."""
        size = (self.num_images, len(self.counts))
        order = self._mixed(rng, size).argsort(axis=0).argsort(axis=0)
        return (order < np.array(self.counts)).astype(np.uint8), self._mixed(rng, size)

    def logits(self, labels: Labels, errors: Floats, area: float) -> Floats:
        """Return logits of that true AUC."""
        higher = NormalDist().inv_cdf(area) * math.hypot(1, self.width)
        return np.where(labels > 0, higher + self.width * errors, errors).astype(np.float32)

    def told(self, labels: Labels, logits: Floats) -> tuple[Labels, Floats]:
        """Return labels and logits in the form in which the pipeline has them."""
        if not self.is_exclusive:
            return labels, logits
        return labels[:, 0].astype(np.int32), np.concatenate([np.zeros_like(logits), logits], axis=1)

    def _mixed(self, rng: np.random.Generator, size: tuple[int, int]) -> Floats:
        own, common = rng.normal(size=size), rng.normal(size=(size[0], 1))
        return math.sqrt(1 - self.shared) * own + math.sqrt(self.shared) * common


CASES = (
    *(Case(f"{m} of {n}", n, (m,)) for m, n in ((10, 100), (10, 500), (15, 300), (30, 300), (100, 600))),
    *(Case(f"two classes of {m}", 2 * m, (m,), is_exclusive=True) for m in (10, 15, 30, 100)),
    *(
        Case(f"{k} labels, {m} of {n} each", n, (m,) * k)
        for k in (5, 14)
        for m, n in ((10, 300), (15, 300), (30, 300), (100, 600))
    ),
    Case("8 labels, 20 of 300, going together", 300, (20,) * 8, shared=0.5),
    Case("5 labels, 2, 3, 5, 8 and 40 of 300", 300, (2, 3, 5, 8, 40)),
    Case("14 labels, 1 of 300, one of them 10", 300, (1,) * 13 + (10,)),
    Case("10 of 300, own scores twice as wide", 300, (10,), width=2.0),
    Case("30 of 300, own scores twice as wide", 300, (30,), width=2.0),
    Case("30 of 300, own scores half as wide", 300, (30,), width=0.5),
)
COMPARED = (0, 1, 2, 3, 4, 5, 7, 9, 15, 17)  # of the cases


def covered(case: Case, repeats: int, seed: int) -> list[float]:
    """Return how often the interval holds each of AREAS, and how often random scores beat the blind answer."""
    rng, found = np.random.default_rng(seed), np.zeros(len(AREAS) + 1)
    for _ in range(repeats):
        labels, errors = case.draw(rng)
        for number, area in enumerate(AREAS):
            told, logits = case.told(labels, case.logits(labels, errors, area))
            low, high = measure_auc(class_scores(logits, told.ndim == 2), told).interval()
            found[number] += low <= area <= high
        told, logits = case.told(labels, errors.astype(np.float32))
        blind = np.zeros(logits.shape[1], np.float32)
        found[-1] += compare_with_majority(logits, told, blind, "val_auc")["is_beaten"]
    return list(found / repeats)


def compared(case: Case, repeats: int, seed: int) -> list[tuple[float, float]]:
    """Return of each of PAIRS how often the interval holds the true difference, and is above 0."""
    rng, found = np.random.default_rng(seed), np.zeros((len(PAIRS), 2))
    for _ in range(repeats):
        labels, common = case.draw(rng)
        errors = [math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * case.draw(rng)[1] for _ in range(2)]
        for number, pair in enumerate(PAIRS):
            both = [case.told(labels, case.logits(labels, *each)) for each in zip(errors, pair, strict=True)]
            low, high = compare(both[0][1], both[1][1], both[0][0], "val_auc")["ci95"]
            found[number] += low <= pair[0] - pair[1] <= high, low > 0
    return [(float(held), float(above)) for held, above in found / repeats]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"seed {options.seed}, R {options.repeats}, Python {platform.python_version()}, numpy {np.__version__}\n")
    print("| images with the label | " + " | ".join(f"{area:g}" for area in AREAS) + " | beats the blind answer |")
    print("|---" * (len(AREAS) + 2) + "|")
    for case in CASES:
        shares = covered(case, options.repeats, options.seed)
        print(f"| {case.name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |", flush=True)
    print("\n| difference | " + " | ".join(f"{first:g} and {second:g}" for first, second in PAIRS) + " |")
    print("|---" * (len(PAIRS) + 1) + "|")
    for number in COMPARED:
        pairs = compared(CASES[number], options.repeats, options.seed)
        cells = " | ".join(f"{100 * held:.1f}, {100 * above:.1f}" for held, above in pairs)
        print(f"| {CASES[number].name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
