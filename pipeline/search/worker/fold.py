"""One fold of out-of-fold predictions: a training on the images of all others, and what it says of this one's."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import NOT_GIVEN
from pipeline.files import replacing
from pipeline.search.jobs import TrainingJob
from pipeline.search.worker.main import warm_up
from pipeline.search.worker.rung import labelled, stored_dataset, training_config


def predict_fold(job: TrainingJob, folds_path: Path, number: int, target: Path) -> float:
    """Train on the images of other folds, write the logits of this fold to a file, and return its accuracy."""
    warm_up()
    from pipeline.models.predict import predict_logits
    from pipeline.training.metrics import measure_logits
    from pipeline.training.trial import train

    dataset = stored_dataset(job)
    training, held_out = map(dataset.subset, rows_of_fold(np.load(folds_path), number))
    model, _, _ = train(job.params, labelled(training), None, training_config(job), lambda row: None)
    logits = predict_logits(model, held_out.images)
    with replacing(target) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
    return measure_logits(logits, held_out.labels).accuracy


def rows_of_fold(folds: NDArray[np.uint8], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the usable rows outside a fold, which train, and those in it, which are predicted."""
    is_held_out = folds == number
    return np.flatnonzero((folds != NOT_GIVEN) & ~is_held_out), np.flatnonzero(is_held_out)
