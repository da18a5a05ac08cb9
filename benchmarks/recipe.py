"""What each ingredient of the recipe is worth, alone, on one fixed network: gain in validation accuracy, images/s.

    python benchmarks/recipe.py cifar10/ --keep recipe.jsonl --seeds 3 --epochs 4
    python benchmarks/recipe.py cifar10/ --keep recipe.jsonl --imbalance 20 --only base "adjusted logits"
    python benchmarks/recipe.py /usr/share/datasets/fashion-mnist --keep recipe.jsonl --only "label smoothing 0.1" flips

The network is the one of the defaults (3 stages of one convolution, 32, 64 and 128 filters, batch normalisation, global
average), trained by one thread, pinned to --core. All cells see the same number of images. A tenth of the given
training images validates; test images are never read. Each cell (set, images, epochs, ingredient, seed) is a line in
the file of --keep as soon as it is done; what is there is not trained again, and several calls with different cores may
work on one file. The table compares each ingredient with the base of the same seed: mean gain and its standard error,
and the images a second that it trained, which mean little while the machine is busy.
"""

import argparse
import json
import math
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from one_thread import pin_to

CACHE_BYTES = 4 << 30
BASE = {"optimizer": "muon", "learning_rate": 0.06, "batch_size": 128, "augment": "none", "label_smoothing": 0.0}
EARLY: dict[str, Any] = {
    "convs_per_stage": 2, "pool_after": "first", "pooling": "avg", "augment": "standard", "batch_size": 64,
}  # fmt: skip
INGREDIENTS: dict[str, dict[str, Any]] = {
    "base": {},
    "float32": {"precision": "float32"},
    "AdamW 0.003": {"optimizer": "adamw", "learning_rate": 0.003},
    "AdamW 0.01": {"optimizer": "adamw", "learning_rate": 0.01},
    "AdamW 0.02": {"optimizer": "adamw", "learning_rate": 0.02},
    "SGD 0.1": {"optimizer": "sgd", "learning_rate": 0.1},
    "SGD 0.3": {"optimizer": "sgd", "learning_rate": 0.3},
    "Muon 0.01": {"learning_rate": 0.01},
    "Muon 0.03": {"learning_rate": 0.03},
    "Muon 0.12": {"learning_rate": 0.12},
    "light": {"augment": "light"},
    "standard": {"augment": "standard"},
    "strong": {"augment": "strong"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "label smoothing 0.2": {"label_smoothing": 0.2},
    "standard, label smoothing 0.1": {"augment": "standard", "label_smoothing": 0.1},
    "batch 64": {"batch_size": 64, "learning_rate": 0.04},
    "batch 256": {"batch_size": 256, "learning_rate": 0.08},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 3e-4": {"weight_decay": 3e-4},
    "weight decay 1e-3": {"weight_decay": 1e-3},
    "weight decay 3e-3": {"weight_decay": 3e-3},
    "weight decay 1e-2": {"weight_decay": 1e-2},
    "weight decay 3e-3, Muon 0.03": {"weight_decay": 3e-3, "learning_rate": 0.03},
    "early": {**EARLY},
    "early, weight decay 3e-4": {**EARLY, "weight_decay": 3e-4},
    "early, weight decay 1e-3": {**EARLY, "weight_decay": 1e-3},
    "early, weight decay 3e-3": {**EARLY, "weight_decay": 3e-3},
    "early, weight decay 1e-2": {**EARLY, "weight_decay": 1e-2},
    "early, strong": {**EARLY, "augment": "strong"},
    "early, SGD 0.1, 1e-3": {**EARLY, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 1e-3},
    "early, SGD 0.1, 3e-4": {**EARLY, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 3e-4},
    "warm-up 5 %": {"warmup": 0.05},
    "residual": {"block": "residual"},
    "separable": {"block": "separable"},
    "mobile": {"block": "mobile"},
    "two convolutions a stage": {"convs_per_stage": 2},
    "two convolutions, pooled between": {"convs_per_stage": 2, "pool_after": "first"},
    "two convolutions, pooled between, average": {"convs_per_stage": 2, "pool_after": "first", "pooling": "avg"},
    "two convolutions, pooled between, 48 filters": {"convs_per_stage": 2, "pool_after": "first", "filters": 48},
    "48 filters": {"filters": 48},
    "squeeze-excite": {"squeeze_excite": True},
    "group norm": {"norm": "group"},
    "no norm": {"norm": "none"},
    "GELU": {"activation": "gelu"},
    "SiLU": {"activation": "silu"},
    "average pooling": {"pooling": "avg"},
    "strided convolution": {"pooling": "stride"},
    "blurred pooling": {"pooling": "blur"},
    "global maximum": {"head": "gmp"},
    "generalised mean": {"head": "gem"},
    "dropout 0": {"dropout": 0.0},
    "adjusted logits": {"adjusts_logits": True},
    "average of weights": {"ingredient": "average"},
    "mixup 0.2": {"ingredient": "mixup"},
    "cutmix 1.0": {"ingredient": "cutmix"},
    "early, 24 pixels for half of the epochs": {**EARLY, "ingredient": "24 pixels"},
    "early, 16 pixels for half of the epochs": {**EARLY, "ingredient": "16 pixels"},
    "standard, average of weights": {"augment": "standard", "ingredient": "average"},
    "standard, mixup 0.2": {"augment": "standard", "ingredient": "mixup"},
    "standard, cutmix 1.0": {"augment": "standard", "ingredient": "cutmix"},
}
"""By name what is changed: hyperparameters, or what is none: precision, warmup, adjusts_logits, and `ingredient`, which
the product does not have (ingredients.py)."""


def main() -> None:
    """Train the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=1_000_000, help="training images at most")
    parser.add_argument(
        "--imbalance",
        type=float,
        default=1.0,
        help="how many times the training images of the last class the first has",
    )
    parser.add_argument("--only", nargs="*", default=list(INGREDIENTS), choices=list(INGREDIENTS))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("recipe-workspace"), help="where images are decoded")
    options = parser.parse_args()
    pin_to(options.core)
    place = {
        "set": Path(options.data).name, "images": options.images, "epochs": options.epochs,
        "imbalance": options.imbalance,
    }  # fmt: skip
    data = None
    for seed in range(options.seeds):
        for name in options.only:
            if any(is_cell(row, place, name, seed) for row in kept(options.keep)):
                continue
            data = data or read(options.data, options.workspace, options.images, options.imbalance)
            row = {**place, "name": name, "seed": seed, **train_cell(INGREDIENTS[name], data, options.epochs, seed)}
            with options.keep.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print_table([row for row in kept(options.keep) if all(row[key] == value for key, value in place.items())])


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the cells that are done."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_cell(row: dict[str, Any], place: dict[str, Any], name: str, seed: int) -> bool:
    """Tell whether a line is a certain cell."""
    return row["name"] == name and row["seed"] == seed and all(row[key] == value for key, value in place.items())


def read(
    data: str, workspace: Path, num_images: int, imbalance: float, image_size: int | None = None
) -> tuple[Any, Any]:
    """Return images to train with and to validate with: nine tenths and a tenth of the given training images.

    With an imbalance the classes that train shrink geometrically, from all images to that part of them.
    """
    import numpy as np

    from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
    from pipeline.data.readers.registry import open_source
    from pipeline.data.source import NOT_GIVEN, SPLITS
    from pipeline.training.images import Labelled

    workspace.mkdir(parents=True, exist_ok=True)
    source = open_source(data, workspace)
    cache = open_cache(source, choose_spec(source, SpecOptions(image_size=image_size)), workspace, CACHE_BYTES)
    is_given = np.isin(source.splits, (SPLITS.index("train"), NOT_GIVEN)) & cache.is_usable
    rows = np.random.default_rng(0).permutation(np.flatnonzero(is_given))
    num_held_out = len(rows) // 10
    images = cache.images()
    held_out, training = rows[:num_held_out], rows[num_held_out:][:num_images]
    shares = imbalance ** -np.linspace(0, 1, len(source.classes))
    places = np.arange(len(training)) / len(training)  # rows are in random order
    training = training[places < shares[source.labels[training]]]
    return tuple(
        Labelled(np.asarray(images[np.sort(part)]), source.labels[np.sort(part)]) for part in (training, held_out)
    )


def train_cell(changes: dict[str, Any], data: tuple[Any, Any], num_epochs: int, seed: int) -> dict[str, float]:
    """Return what one training reached, and how many images a second its median epoch trained."""
    from ingredients import averaged_weights, cutmix, mixed_images, mixup, small_at_first

    from pipeline.models.predict import predict_logits
    from pipeline.training import schedule, trial
    from pipeline.training.metrics import measure_logits

    training, validation = data
    some = training.images[:: max(1, len(training) // 5000)]
    mean, std = (tuple(map(float, figure(some, axis=(0, 1, 2)))) for figure in (type(some).mean, type(some).std))
    values = {**BASE, **changes}
    precision, warmup = values.pop("precision", "bfloat16"), values.pop("warmup", schedule.WARMUP_FRACTION)
    adjusts = values.pop("adjusts_logits", False)
    ingredient = {
        "average": averaged_weights(),
        "mixup": mixed_images(mixup, 10, 0.2),
        "cutmix": mixed_images(cutmix, 10, 1.0),
        "24 pixels": small_at_first(24, 0.5),
        "16 pixels": small_at_first(16, 0.5),
    }.get(values.pop("ingredient", ""), nullcontext())
    schedule.WARMUP_FRACTION = warmup
    setting = trial.TrainingConfig(
        10, mean, std, num_epochs * len(training), seed, precision=precision, adjusts_logits=adjusts
    )
    rows: list[Any] = []
    started = time.monotonic()
    with ingredient:
        model, last, _ = trial.train(values, training, validation, setting, rows.append)
    found = measure_logits(predict_logits(model, validation.images), validation.labels)
    return {
        "val_accuracy": found.accuracy,
        "val_loss": found.loss,
        "loss": last.loss,
        "images_per_second": len(training) / statistics.median(row.seconds for row in rows),
        "seconds": time.monotonic() - started,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the mean gain of each ingredient over the base of the same seed, with its standard error."""
    base = {row["seed"]: row["val_accuracy"] for row in rows if row["name"] == "base"}
    sys.stdout.write("| ingredient | n | accuracy | gain in points | images/s |\n|---|---|---|---|---|\n")
    for name in INGREDIENTS:
        cells = [row for row in rows if row["name"] == name]
        if not cells:
            continue
        gains = [100 * (row["val_accuracy"] - base[row["seed"]]) for row in cells if row["seed"] in base]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        gain = f"{statistics.mean(gains):+.2f} ± {error:.2f}" if gains else "-"
        accuracy, speed = (statistics.mean(row[key] for row in cells) for key in ("val_accuracy", "images_per_second"))
        sys.stdout.write(f"| {name} | {len(cells)} | {accuracy:.2%} | {gain} | {speed:,.0f} |\n")


if __name__ == "__main__":
    main()
