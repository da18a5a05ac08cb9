"""Distillation in a child process: what the best trial says of the images, and the training of who learns it."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.splits.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.heartbeat import Heart
from pipeline.search.events import Reporter
from pipeline.search.jobs import Findings, TrainingJob
from pipeline.search.worker import predictions, validation
from pipeline.search.worker.rung import labelled, network, stored_dataset, train_watched
from pipeline.search.worker.teacher import answers_path, read_teacher, weights_path
from pipeline.space import recipe
from pipeline.space.augmentation import augmentation_of
from pipeline.states import OutcomeState


def train_student(job: TrainingJob, reporter: Reporter) -> tuple[float, Findings]:
    """Train a network on what the teacher says of the training images, and return its objective on the others."""
    started, dataset = time.monotonic(), stored_dataset(job)
    training, held_out = taught(job, dataset, dataset.split("train"), reporter.heart), labelled(dataset.split("val"))
    rest = replace(job, seconds_limit=job.seconds_limit - (time.monotonic() - started))
    model, last, _ = train_watched(rest, training, held_out, reporter)
    validation.keep(job, [validation.predicted(job, model, dataset, held_out, reporter.heart)])
    return float(getattr(last, job.spec.objective)), Findings()


def taught(job: TrainingJob, dataset: StoredDataset, subset: Subset, heart: Heart) -> Any:
    """Return images of train or val with their labels and what the teacher says of them."""
    from pipeline.targets import is_multi_label
    from pipeline.training.distillation import lesson
    from pipeline.training.recipe import log_priors

    answers = teacher_logits(job, dataset, subset, heart)
    is_adjusted = job.spec.balance == "logits"
    offsets = log_priors(subset.labels, len(job.spec.classes)) if is_adjusted else (0.0,)
    return replace(labelled(subset), taught=lesson(answers, is_multi_label(subset.labels), offsets))


def teacher_logits(
    job: TrainingJob, dataset: StoredDataset, subset: Subset, heart: Heart
) -> NDArray[np.float32]:  # fmt: skip
    """Return what the teacher says of images of train or val, float32 (num_images, num_classes).

    It is asked once, for all images. If it learnt from mirror images too, that is the mean for an
    image and its mirror image.

    Raises:
        TrialFailed: its weights cannot be read.
    """
    from pipeline.models.averaging import both_answers
    from pipeline.models.predict import predict_logits

    folder = job.folders.teacher
    teacher = read_teacher(folder)
    if teacher is None:
        raise TrialFailed(OutcomeState.FAILED, f"{weights_path(folder)} is missing or damaged")
    path, digests = answers_path(folder, teacher.number), dataset.digests(subset.images)
    if path.is_file():
        return predictions.load_for(path, digests)["logits"]
    model, asked = network(teacher.params, job.spec), dataset.split("train", "val").images
    with np.load(weights_path(folder), allow_pickle=False) as stored:
        model.set_weights([stored[name] for name in sorted(stored.files) if name.startswith("weight")])
    predict = partial(predict_logits, model, on_batch=heart.touch)
    flips = augmentation_of(recipe(teacher.params)["augment"]).flips and job.spec.allows_flips
    logits = both_answers(predict, asked)[1] if flips else predict(asked)
    predictions.save(path, dataset.digests(asked), logits=logits)
    return predictions.load_for(path, digests)["logits"]
