"""What every peer's script shares: its arguments, the images, the deadline, the curve and the cell that is written.

These scripts run in environments of their own, without this project; each trains on all cores, as its users would.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

RESERVE_SECONDS = 15.0  # to load the best network and to evaluate it on the test images


class TimeOver(BaseException):
    """Ends a search from inside a callback; no tool that catches `Exception` swallows it."""


def parse_arguments():
    """Return what the driver passes: data, out, started (of the monotonic clock), seconds, seed, tuned."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--started", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    return parser.parse_args()


class Images:
    """The images of a set as arrays: 10 % of train validate, the same for every tool and seed; test is opened once."""

    def __init__(self, path):
        arrays = np.load(path)
        images, labels = arrays["train_images"], arrays["train_labels"]
        images = images[..., None] if images.ndim == 3 else images
        order = np.random.default_rng(0).permutation(len(images))
        num_val = len(images) // 10
        self.val = images[order[:num_val]], labels[order[:num_val]]
        self.train = images[order[num_val:]], labels[order[num_val:]]
        test = arrays["test_images"]
        self.test = test[..., None] if test.ndim == 3 else test, arrays["test_labels"]
        self.shape = images.shape[1:]
        self.num_classes = int(labels.max()) + 1


class Clock(keras.callbacks.Callback):
    """Notes (seconds, validation accuracy) of each epoch, keeps the best network in a file, and ends in time."""

    def __init__(self, options):
        super().__init__()
        self.started = options.started
        self.deadline = options.started + options.seconds - RESERVE_SECONDS
        self.curve, self.best, self.num_trainings = [], -1.0, 0
        self.path = str(Path(tempfile.mkdtemp()) / "best.keras")

    def __deepcopy__(self, memo):
        return self  # KerasTuner copies callbacks for each trial

    def on_train_begin(self, logs=None):
        self.num_trainings += 1
        self.check()

    def on_train_batch_end(self, batch, logs=None):
        self.check()

    def on_epoch_end(self, epoch, logs=None):
        accuracy = float((logs or {})["val_accuracy"])
        self.curve.append((round(time.monotonic() - self.started, 1), accuracy))
        if accuracy > self.best:
            self.best = accuracy
            self.model.save(self.path)
        self.check()

    def check(self):
        if time.monotonic() > self.deadline:
            raise TimeOver


def finish(options, clock, images, tool, **facts):
    """Evaluate the best network on the test images, once, and write the cell."""
    model = keras.saving.load_model(clock.path, compile=False, **facts.pop("loading", {}))
    scores = np.concatenate(
        [model.predict_on_batch(images.test[0][i : i + 500]) for i in range(0, len(images.test[0]), 500)]
    )
    accuracy = float((scores.argmax(axis=1) == images.test[1]).mean())
    cell = {
        "tool": tool,
        "seed": options.seed,
        "budget_seconds": options.seconds,
        "test_accuracy": accuracy,
        "val_accuracy": clock.best,
        "num_params": int(model.count_params()),
        "trials": clock.num_trainings,
        "wall_seconds": round(time.monotonic() - options.started, 1),
        "curve": clock.curve,
        "keras": keras.__version__,
        **facts,
    }
    Path(options.out).write_text(json.dumps(cell))
