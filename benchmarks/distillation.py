"""Does a small network become better when it learns from what a large one says of the training images?

    python benchmarks/distillation.py cifar10/ --teacher ensembles/12-0.npz --keep distillation.jsonl --core 0

The teacher is a network that benchmarks/ensembles.py trained and kept on the same images. The student has 16 filters,
else the default recipe, and learns labels that are a mean of the given ones and of the teacher's probabilities
(Hinton et al. 2015), at a temperature, for the image as it is and its mirror image. A tenth of the given training
images validates; test images are never read. Each cell (share, temperature, epochs, seed) is a line in the file of
--keep.
"""

import argparse
import json
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from one_thread import pin_to

STUDENT = {"filters": 16}
CELLS = ((0.0, 1.0), (0.5, 1.0), (0.5, 2.0), (0.9, 4.0))  # share of the teacher in the labels, temperature


def main() -> None:
    """Train the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, default=Path("recipe-workspace"), help="where images are decoded")
    parser.add_argument("--images", type=int, default=22_500, help="training images at most, as the teacher had")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    pin_to(options.core)
    from recipe import kept, read

    training, validation = read(options.data, options.workspace, options.images, 1.0)
    logits = teacher_logits(options.teacher, training, validation)
    for seed in range(options.seeds):
        for share, temperature in CELLS:
            cell = {"share": share, "temperature": temperature, "epochs": options.epochs, "seed": seed}
            if not any(all(row[key] == value for key, value in cell.items()) for row in kept(options.keep)):
                row = cell | {"val_accuracy": train(training, validation, logits, cell)}
                with options.keep.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print_table([row for row in kept(options.keep) if row["epochs"] == options.epochs])


def teacher_logits(path: Path, training: Any, validation: Any) -> Any:
    """Return what the teacher says of the training images and their mirror images, the mean; print what it is worth."""
    from ensembles import NETWORK, statistics_of

    from pipeline.models.build import Pixels, build
    from pipeline.models.predict import predict_logits

    with np.load(path) as arrays:
        weights = [arrays[name] for name in sorted(arrays) if name.startswith("weight")]
    model = build(NETWORK, Pixels(training.images.shape[1:], "uint8", *statistics_of(training)), 10)
    model.set_weights(weights)
    says, of_validation = (
        (predict_logits(model, part.images) + predict_logits(model, np.asarray(part.images)[:, :, ::-1])) / 2
        for part in (training, validation)
    )
    learnt, new = (
        (each.argmax(1) == part.labels).mean() for each, part in ((says, training), (of_validation, validation))
    )
    sys.stdout.write(f"teacher: {learnt:.2%} of the training images, {new:.2%} of the others\n")
    return says


def train(training: Any, validation: Any, logits: Any, cell: dict[str, Any]) -> float:
    """Return the accuracy of one student on the validation images."""
    from ensembles import statistics_of
    from ingredients import soft_labels

    from pipeline.models.predict import predict_logits
    from pipeline.targets import softmax
    from pipeline.training import trial
    from pipeline.training.images import Labelled

    share = cell["share"]
    if share:
        one_hot = np.eye(logits.shape[1], dtype=np.float32)[training.labels]
        labels = (1 - share) * one_hot + share * softmax(logits, cell["temperature"])
        training = Labelled(training.images, labels)
    setting = trial.TrainingConfig(
        10, *statistics_of(training), cell["epochs"] * len(training), cell["seed"], precision="bfloat16"
    )
    with soft_labels() if share else nullcontext():
        model, *_ = trial.train(STUDENT, training, validation, setting, lambda row: None)
    return float((predict_logits(model, validation.images).argmax(1) == validation.labels).mean())


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the accuracy of each mixture."""
    sys.stdout.write("| share of the teacher | temperature | n | accuracy |\n|---|---|---|---|\n")
    for share, temperature in CELLS:
        cells = [row["val_accuracy"] for row in rows if (row["share"], row["temperature"]) == (share, temperature)]
        if cells:
            sys.stdout.write(f"| {share:.0%} | {temperature:g} | {len(cells)} | {statistics.mean(cells):.2%} |\n")


if __name__ == "__main__":
    main()
