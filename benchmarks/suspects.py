"""How many flipped labels of Fashion-MNIST `pipeline data suspects` finds, after a search on the flipped labels.

    python benchmarks/suspects.py
    python benchmarks/suspects.py --budget 10m --folds 5 --json-file suspects.json

All 70,000 images are written as one .npz file without a split; 3 % of all labels are moved to a random other class.
The bar: of the first N suspects, N being the number of flipped labels, at least 60 % are flipped. Both commands run as
processes of their own in a folder that is deleted. Labels of the published set that are wrong count as not flipped.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import describe_machine, installed
from numpy.typing import NDArray

FLIPPED_FRACTION = 0.03
SEED = 0
BAR = 0.6
NUM_CLASSES = 10


def main() -> None:
    """Search, look for suspects and print what was found; exit 1 below the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="idx files")
    parser.add_argument("--budget", default="4m", help="of the search")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--json-file", type=Path, help="where the figures are written")
    options = parser.parse_args()
    images, labels = read_images(options.source)
    given, is_flipped = flip(labels)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "flipped.npz", images=images, labels=given)
        num_flipped = int(is_flipped.sum())
        search, search_seconds = run(folder, "search", "flipped.npz", "--budget", options.budget)
        arguments = ("--folds", str(options.folds), "--top", str(num_flipped))
        found, suspects_seconds = run(folder, "data", "suspects", search["study"], *arguments)
    figures = {
        "num_images": len(labels),
        "num_flipped": num_flipped,
        "budget": options.budget,
        "folds": options.folds,
        "search_seconds": round(search_seconds, 1),
        "suspects_seconds": round(suspects_seconds, 1),
        "epochs": search["winner"]["epochs"],
        "test_accuracy": search["test"]["accuracy"],
        **measure(found, labels, is_flipped),
        "machine": describe_machine(),
        "versions": installed(),
        "n": 1,
    }
    for name, value in figures.items():
        print(f"{name:<34} {value}")
    if options.json_file:
        options.json_file.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(figures["precision_at_num_flipped"] < BAR)


def read_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return all images (70000, 28, 28) and labels (70000,) of the four idx files."""
    images = [read_idx(folder / f"{name}-images-idx3-ubyte", 16).reshape(-1, 28, 28) for name in ("train", "t10k")]
    labels = [read_idx(folder / f"{name}-labels-idx1-ubyte", 8) for name in ("train", "t10k")]
    return np.concatenate(images), np.concatenate(labels)


def read_idx(path: Path, offset: int) -> NDArray[np.uint8]:
    """Return the values of an idx file, compressed or not."""
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=offset)


def flip(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return labels of which FLIPPED_FRACTION is a random other class, and which those are."""
    rng = np.random.default_rng(SEED)
    rows = rng.choice(len(labels), round(FLIPPED_FRACTION * len(labels)), replace=False)
    given = labels.copy()
    given[rows] = (labels[rows] + rng.integers(1, NUM_CLASSES, len(rows))) % NUM_CLASSES
    return given, given != labels


def run(folder: str, *arguments: str) -> tuple[dict[str, Any], float]:
    """Run `pipeline ARGUMENTS --json` in a folder; return what it printed and its seconds."""
    script = str(Path(sys.executable).with_name("pipeline"))
    started = time.monotonic()
    done = subprocess.run([script, *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), time.monotonic() - started


def measure(found: dict[str, Any], labels: NDArray[np.uint8], is_flipped: NDArray[np.bool_]) -> dict[str, float]:
    """Return how many of the first suspects are flipped, and how often the true label of those is suggested."""
    rows = np.array([int(suspect["path"]) for suspect in found["suspects"]])
    suggested = np.array([int(suspect["suggested"]) for suspect in found["suspects"]])
    num_flipped, num_estimated = int(is_flipped.sum()), found["estimated_errors"]
    hits = is_flipped[rows]
    is_right = suggested == labels[rows]
    return {
        "out_of_fold_accuracy": round(found["accuracy"], 4),
        "estimated_errors": num_estimated,
        "precision_at_20": round(float(hits[:20].mean()), 4),
        "precision_at_100": round(float(hits[:100].mean()), 4),
        "precision_at_num_flipped": round(float(hits[:num_flipped].mean()), 4),
        "recall_at_estimated_errors": round(float(hits[:num_estimated].sum() / num_flipped), 4),
        "true_label_suggested_for_flipped": round(float(is_right[hits].mean()), 4),
    }


if __name__ == "__main__":
    main()
