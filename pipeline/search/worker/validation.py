"""What trials of the highest rung said of their validation images, and the temperature that follows for the winner."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.card import Calibration, CalibrationErrors, Ensemble, Figure, FittedOn, num_networks
from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.data.splits.dataset import StoredDataset
from pipeline.heartbeat import Heart
from pipeline.search.jobs import TrainingJob
from pipeline.search.storage.attempts import stored_number
from pipeline.search.worker import predictions
from pipeline.states import TrainingId, TrainingKind
from pipeline.targets import Labels, losses
from pipeline.training.calibration import NUM_BINS, Temperature, calibration_error, choose_temperature
from pipeline.training.certainty import measure_with_intervals


def logits_path(folder: Path, training: TrainingId) -> Path:
    """Return where the validation logits and labels of a training lie."""
    return folder / f"t{stored_number(training):05d}.npz"


class Predictions(NamedTuple):
    """Logits float32 (num_images, num_classes) and labels, as in `targets`, of images that did not train a network.

    `averaged` are the means of these logits and those of the mirror images, None where they were not asked for.
    `digests` uint8 (num_images, 32) are the SHA-256 of the images.
    """

    logits: NDArray[np.float32]
    labels: Labels
    averaged: NDArray[np.float32] | None
    digests: NDArray[np.uint8]


def predicted(
    job: TrainingJob, model: Any, dataset: StoredDataset, validation: Any, heart: Heart
) -> Predictions | None:  # fmt: skip
    """Return what a network says of the validation images after a training of the highest rung, else nothing.

    Only such a trial can be a winner, which needs a temperature.
    """
    if job.rung != job.spec.top_rung:
        return None
    from pipeline.models.averaging import both_answers
    from pipeline.models.predict import predict_logits

    digests = dataset.digests(validation.images)
    predict = partial(predict_logits, model, on_batch=heart.touch)
    if not job.spec.average_flips:
        return Predictions(predict(validation.images), validation.labels, None, digests)
    alone, averaged = both_answers(predict, validation.images)
    return Predictions(alone, validation.labels, averaged, digests)


def keep(job: TrainingJob, parts: list[Predictions | None]) -> None:
    """Write what one network, or the networks of all folds, said of images that they did not train on."""
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return
    columns = zip(Predictions._fields, zip(*whole, strict=True), strict=True)
    arrays: dict[str, Any] = {name: np.concatenate(values) for name, values in columns if values[0] is not None}
    predictions.save(logits_path(job.folders.logits, job.training), **arrays)


def read(folder: Path, training: TrainingId) -> Predictions | None:
    """Return what a network said of the validation images; None if it has not finished the highest rung.

    Raises:
        ValueError, OSError, ...: one of NPZ_ERRORS, the file is damaged.
    """
    path = logits_path(folder, training)
    if not path.is_file():
        return None
    return _predictions_of(predictions.load(path))


def _predictions_of(arrays: dict[str, NDArray[Any]]) -> Predictions:
    """Return the columns of a file."""
    return Predictions(arrays["logits"], arrays["labels"], arrays.get("averaged"), arrays["digests"])


def judged_trainings(winner: TrainingId, ensemble: Ensemble | None) -> list[TrainingId]:
    """Return the trainings by whose mean logits a winner is judged on the validation images: its own, and the one
    with a second seed where several networks answer."""
    return [winner, TrainingKind.SECOND_SEED] if num_networks(ensemble) > 1 else [winner]


def read_mean(folder: Path, trainings: Sequence[TrainingId]) -> Predictions | None:
    """Return the means of what networks said of the validation images; None if one has not finished the highest rung.

    Images of which a mean is NaN or infinite are left out.

    Raises:
        ValueError, OSError, ...: one of NPZ_ERRORS, a file is damaged, or nothing in it is finite.
    """
    paths = [logits_path(folder, training) for training in trainings]
    if not all(path.is_file() for path in paths):
        return None
    first = predictions.load(paths[0])
    files = [first, *(predictions.load_for(path, first["digests"]) for path in paths[1:])]
    means = {"logits": mean([arrays["logits"] for arrays in files])}
    if all("averaged" in arrays for arrays in files):
        means["averaged"] = mean([arrays["averaged"] for arrays in files])
    is_finite = np.all([np.isfinite(each).all(axis=1) for each in means.values()], axis=0)
    if not is_finite.any():
        raise ValueError("no prediction is finite")
    columns = {"labels": first["labels"], "digests": first["digests"], **means}
    return _predictions_of({name: array[is_finite] for name, array in columns.items()})


def mean(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the mean of logits (num_images, num_classes) of several networks; of one, the same to the last bit."""
    return np.asarray(np.mean(logits, axis=0, dtype=np.float64), np.float32)


def judge_validation(
    folder: Path, trainings: Sequence[TrainingId], objective: str, is_flip_averaged: bool = False
) -> tuple[Figure | None, Temperature]:
    """Return value and 95 % interval of the objective on the validation images, and the temperature for it.

    Judged is the mean of the logits of some trainings: of one, or of it and that with a second seed.

    The interval says nothing of the luck by which the best of many trials was chosen on these very images, by its
    logits alone; the temperature is for the logits that the winner gives. Without logits there is no interval, and the
    temperature is 1, with the reason.
    """
    reason = "the winner has not finished the highest rung, whose logits are kept"
    try:
        stored = read_mean(folder, trainings)
    except NPZ_ERRORS as error:  # no cause to lose a winner
        paths = " or ".join(str(logits_path(folder, training)) for training in trainings)
        stored, reason = None, f"{paths} cannot be used: {error}"
    if stored is None:
        return None, Temperature(1.0, 0, 0.0, 0.0, reason)
    logits = stored.averaged if is_flip_averaged and stored.averaged is not None else stored.logits
    figures = measure_with_intervals(stored.logits, stored.labels)
    return figures.get(objective.removeprefix("val_")), choose_temperature(logits, stored.labels)


def describe_temperature(found: Temperature, logits: NDArray[np.float32], labels: Labels) -> Calibration:
    """Return a temperature with what it does to test images (num_images, num_classes)."""
    errors = [calibration_error(logits, labels, temperature) for temperature in (1.0, found.value)]
    test = CalibrationErrors(*errors, *(_mean_loss(logits, labels, temperature) for temperature in (1.0, found.value)))
    validation = FittedOn(found.num_images, found.loss_before, found.loss_after)
    return Calibration(found.value, found.reason, validation, test, NUM_BINS)


def _mean_loss(logits: NDArray[np.float32], labels: Labels, temperature: float) -> float:
    """Return the mean cross-entropy."""
    return float(losses(logits, labels, temperature).mean())
