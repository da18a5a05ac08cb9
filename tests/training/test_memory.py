"""A process that trains one network after the other does not grow."""

import weakref
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.heavy

FIRST, LAST = 4, 16  # trainings; in the first few libraries load and arenas fill
GROWTH_MB = 24.0  # where TensorFlow's registry is not cleared it is some 60


def own_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def train_one(number):
    from pipeline.training.images import Labelled
    from pipeline.training.trial import TrainingConfig, train

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (1280, 16, 16, 1), np.uint8), rng.integers(0, 10, 1280).astype(np.int32)
    params = {"depth": 1 + number % 3, "filters": 8 + 8 * (number % 2), "batch_size": 64, "dropout": 0.1}
    data = Labelled(images, labels)
    train(params, data, data, TrainingConfig(10, (128.0,), (60.0,), 2560, number), lambda row: None)


def test_trainings_leave_neither_memory_nor_their_feed_behind(monkeypatch):
    from pipeline.training import trial
    from pipeline.training.images import EpochBatches

    alive = weakref.WeakSet()

    def remembered(*arguments):
        batches = EpochBatches(*arguments)
        alive.add(batches)
        return batches

    monkeypatch.setattr(trial, "EpochBatches", remembered)
    for number in range(FIRST):
        train_one(number)
    before = own_mb()
    for number in range(FIRST, LAST):
        train_one(number)
    assert own_mb() - before < GROWTH_MB
    assert len(alive) <= 1
