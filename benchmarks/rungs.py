"""How well lower rungs rank configurations, each rung from fresh weights or from those of the rung before.

    python benchmarks/rungs.py digits
    python benchmarks/rungs.py fashion --space tiny --configurations 10 --minutes 6 --json-file rungs.json

Random configurations are trained to 1/9, 1/3 and the whole of a number of samples, in two ways:

- restart: each rung begins with fresh weights and sees all of its samples;
- warm: a rung begins with the weights of the one before and sees the additional samples, with a learning rate that
  rises and falls again.

Printed are Spearman's rank correlation of each lower rung with the last one of its own way and with the last one of
restart, the mean scores, and the samples that all rungs of a configuration cost, in units of the whole. `fashion` is
6,000 + 4,000 images of Fashion-MNIST (Debian's dataset-fashion-mnist). Seeds are 0; the configurations that are done
when the minutes are over are what is reported.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import describe_machine, installed
from scipy.stats import spearmanr

from pipeline.errors import TrialFailed
from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.space import load_space
from pipeline.training.images import Labelled
from pipeline.training.trial import TrainingConfig, TrainingFiles, train

FRACTIONS = (1 / 9, 1 / 3, 1.0)
FASHION = Path("/usr/share/datasets/fashion-mnist")
NUM_CLASSES = 10
FIGURES = {"val_accuracy": 1, "val_loss": -1}


def main() -> None:
    """Train, print a table on stderr and the figures on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", "fashion"])
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--configurations", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=9, help="the whole number of samples, in epochs")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--json-file", type=Path, help="where the figures are written too")
    options = parser.parse_args()
    training, validation = read(options.data)
    samples = options.epochs * len(training)
    ends, trials = time.monotonic() + options.minutes * 60, []
    for params in draw(options.space, options.configurations, training.images.shape[1:]):
        if time.monotonic() > ends:
            break
        try:
            trials.append(climb(params, training, validation, samples))
        except TrialFailed as error:
            sys.stderr.write(f"left out: {error.reason}\n")
    figures = {
        "data": options.data,
        "space": options.space,
        "samples": samples,
        "num_configurations": len(trials),
        "ways": {way: summary(trials, way) for way in ("restart", "warm")},
        "trials": trials,
        "machine": describe_machine(),
        "versions": installed(),
    }
    print_table(figures)
    if options.json_file:
        options.json_file.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


def read(name: str) -> tuple[Labelled, Labelled]:
    """Return images to train with and to rank by."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels, num_training = (digits.images * 15.9).astype(np.uint8)[..., None], digits.target, 1200
    else:
        with gzip.open(FASHION / "train-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        with gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        num_training = 6000
    order = np.random.default_rng(0).permutation(len(labels))[:10_000]
    parts = order[:num_training], order[num_training:]
    training, validation = (Labelled(images[rows], labels[rows].astype(np.int32)) for rows in parts)
    return training, validation


def draw(space: str, count: int, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Return random configurations of a space that fit the images."""
    rng, drawn, found = random.Random(0), load_space(space), []
    while len(found) < count:
        params = drawn.sample(rng)
        try:
            measure(params, shape, NUM_CLASSES)
        except ImpossibleNetwork:
            continue
        found.append(params)
    return found


def climb(params: dict[str, Any], training: Labelled, validation: Labelled, samples: int) -> dict[str, Any]:
    """Train a configuration to all rungs, both ways, and return its figures by way and rung."""
    pixels = training.images.astype(np.float64)
    setting = {"num_classes": NUM_CLASSES, "mean": (pixels.mean(),), "std": (pixels.std(),)}
    rungs = [round(samples * fraction) for fraction in FRACTIONS]
    results: dict[str, Any] = {"params": params, "restart": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        before: Path | None = None
        for rung, end in enumerate(rungs):
            kept = Path(folder) / f"{rung}.npz"
            ways = {"restart": (end, None), "warm": (end - rungs[rung - 1] if rung else end, before)}
            for way, (num_samples, start_from) in ways.items():
                if rung == 0 and way == "warm":  # both ways begin alike
                    results["warm"].append({**results["restart"][0]})
                    continue
                files = TrainingFiles(kept if way == "warm" or rung == 0 else None, start_from)
                started = time.monotonic()
                how = TrainingConfig(**setting, samples=num_samples, seed=rung)
                _, last, _ = train(params, training, validation, how, lambda row: None, files)
                row = {name: getattr(last, name) for name in FIGURES}
                results[way].append({**row, "samples": num_samples, "seconds": time.monotonic() - started})
            before = kept
    return results


def summary(trials: list[dict[str, Any]], way: str) -> dict[str, Any]:
    """Return for each figure the rank correlations of the rungs and their means, and what a configuration costs."""
    found: dict[str, Any] = {}
    for name, sign in FIGURES.items():
        table = {
            one: np.array([[row[name] for row in trial[one]] for trial in trials]) * sign for one in (way, "restart")
        }
        found[name] = {
            "with_own_last": [correlation(column, table[way][:, -1]) for column in table[way].T],
            "with_last_of_restart": [correlation(column, table["restart"][:, -1]) for column in table[way].T],
            "means": [float(mean) for mean in sign * table[way].mean(axis=0)],
            "best": float(sign * table[way][:, -1].max()),
        }
    rows = [trial[way] for trial in trials]
    total = sum(row["samples"] for row in rows[0])
    last = trials[0]["restart"][-1]["samples"]
    return {
        **found,
        "samples": total,
        "cost": total / last,
        "seconds": sum(row["seconds"] for one in rows for row in one),
    }


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Return Spearman's rank correlation, ties sharing their rank."""
    return float(spearmanr(left, right).statistic)


def print_table(figures: dict[str, Any]) -> None:
    """Print one line a way and figure on stderr."""
    say = sys.stderr.write
    say(f"{figures['data']}, {figures['space']}, {figures['num_configurations']} configurations\n")
    say("way      figure        own 1/9  own 1/3  with restart 1/9  1/3   1   mean 1/9  1/3     1       best    cost\n")
    for way, row in figures["ways"].items():
        for name in FIGURES:
            one = row[name]
            own, other = one["with_own_last"], one["with_last_of_restart"]
            means = "  ".join(f"{mean:.4f}" for mean in one["means"])
            say(
                f"{way:8} {name:13} {own[0]:7.2f}  {own[1]:7.2f}  {other[0]:16.2f}  {other[1]:4.2f}  {other[2]:4.2f}  "
                f"{means}  {one['best']:.4f}  {row['cost']:.2f}\n"
            )


if __name__ == "__main__":
    main()
