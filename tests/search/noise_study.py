"""A study of 40 noise images with three trials, ready for children to train on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.records import ImageSpec, TrialRow
from pipeline.search.jobs import Chosen, TrainingJob
from pipeline.search.storage.attempts import Attempt, stored_number
from pipeline.search.storage.store import StudyStore
from pipeline.states import TrainingId
from tests.search.stubs import FACTS, digests_of


def make_noise_study(folder: Path, **facts: Any) -> Path:
    """Write the study: 24 images of train, 8 of val and 8 of test, one of which has a copy in train."""
    (folder / "data").mkdir(parents=True)
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8))
    columns = {
        "labels": np.arange(40, dtype=np.int32) % 2,
        "splits": np.repeat(np.array([0, 1, 2], np.uint8), (24, 8, 8)),
        "leaked": np.arange(40) == 39,
        "sha256": digests_of(40),
    }
    for name, column in columns.items():
        np.save(folder / "data" / f"{name}.npy", column)
    store = StudyStore(folder / "study.db")
    store.create(
        {
            **FACTS, "cache": str(folder), "image": asdict(ImageSpec(8, 8, 1)), "classes": ["a", "b"], "mean": [128.0],
            "std": [74.0], "objective": "val_loss", "minimise": None, "limits": {}, "folds": None, "space": {},
            "rungs": [48], **facts,
        }
    )  # fmt: skip
    for number in range(3):
        store.add_trial(TrialRow(number, "PLANNED", None, {}, 0, 0.0, 0.0, "", 0, 0))
        store.put_attempt(Attempt(number + 1, number, 0, 48, 2, 1, 1, "STARTED"))
    store.save()
    store.close()
    return folder


def real_task(folder: Path, training: TrainingId, **params: Any) -> TrainingJob:
    """Return the training of one of the trials, two passes over the images."""
    values = {"depth": 1, "filters": 8, "batch_size": 8, **params}
    with StudyStore(folder / "study.db") as store:
        chosen = Chosen(0, store.distillation(), store.ensemble(), store.baseline())
        return TrainingJob(
            store.spec(), store.folder.for_training, stored_number(training) + 1, training, 0, 48, values, seed=1,
            seconds_limit=600.0, chosen=chosen,
        )  # fmt: skip
