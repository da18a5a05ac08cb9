"""What each choice of the recipe for a pretrained network is worth, alone, on few images: accuracy on held-out ones.

    python benchmarks/finetune.py photos/ hub:/presets/efficientnet_lite0 --keep finetune.jsonl --core 0 --only base
    python benchmarks/finetune.py photos/ hub:/presets/efficientnet_lite0 --keep finetune.jsonl --core 1

The base is what was the default configuration of the space `finetune` before this was measured, in float32, by one
thread pinned to --core. A tenth of the given training images validates; test images are never read. Each cell
(backbone, images, epochs, choice, seed) is a line in the file of --keep as soon as it is done, and not trained again.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from one_thread import pin_to
from recipe import is_cell, kept, read, train_cell

BASE = {
    "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 6e-5, "batch_size": 32, "augment": "standard",
    "label_smoothing": 0.1, "dropout": 0.2, "frozen": 0.4, "backbone_rate": 0.1, "precision": "float32",
}  # fmt: skip
CHOICES: dict[str, dict[str, Any]] = {
    "base": {},
    "never thawed": {"backbone_rate": 0.0},
    "backbone at 0.03": {"backbone_rate": 0.03},
    "backbone at 0.3": {"backbone_rate": 0.3},
    "backbone at 1": {"backbone_rate": 1.0},
    "frozen 0": {"frozen": 0.0},
    "frozen 0.2": {"frozen": 0.2},
    "frozen 0, backbone at 0.3": {"frozen": 0.0, "backbone_rate": 0.3},
    "frozen 0.2, backbone at 0.3": {"frozen": 0.2, "backbone_rate": 0.3},
    "learning rate 0.001": {"learning_rate": 0.001},
    "learning rate 0.01": {"learning_rate": 0.01},
    "Muon 0.03": {"optimizer": "muon", "learning_rate": 0.03},
    "global maximum": {"head": "gmp"},
    "no augmentation": {"augment": "none"},
}


def main() -> None:
    """Train the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("backbone")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=2_000, help="training images at most")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--only", nargs="*", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("finetune-workspace"), help="where images are decoded")
    options = parser.parse_args()
    pin_to(options.core)
    place = {"backbone": options.backbone, "images": options.images, "epochs": options.epochs}
    place |= {"image_size": options.image_size}
    data = read(options.data, options.workspace, options.images, 1.0, options.image_size)
    for seed in range(options.seeds):
        for name in options.only:
            if any(is_cell(row, place, name, seed) for row in kept(options.keep)):
                continue
            values = {**BASE, "backbone": options.backbone, **CHOICES[name]}
            row = {**place, "name": name, "seed": seed, **train_cell(values, data, options.epochs, seed)}
            with options.keep.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print_table([row for row in kept(options.keep) if all(row[key] == value for key, value in place.items())])


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print accuracy, likelihood and seconds of each choice, the mean over its seeds."""
    sys.stdout.write("| choice | n | accuracy | loss | seconds |\n|---|---|---|---|---|\n")
    for name in CHOICES:
        if cells := [row for row in rows if row["name"] == name]:
            accuracy, loss, seconds = (
                statistics.mean(row[key] for row in cells) for key in ("val_accuracy", "val_loss", "seconds")
            )
            sys.stdout.write(f"| {name} | {len(cells)} | {accuracy:.2%} | {loss:.3f} | {seconds:.0f} |\n")


if __name__ == "__main__":
    main()
