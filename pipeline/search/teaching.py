"""Distillation in a child process: what the best trial says of the images, and the training of who learns it."""

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.splits.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.pulse import going_on
from pipeline.search import predictions, validation
from pipeline.search.checkpoints import pulse_path
from pipeline.search.rungs import labelled, network, reporter, stored_dataset, train_watched
from pipeline.search.store import StudyStore
from pipeline.search.task import Findings, TrialTask
from pipeline.search.teacher import answers_path, read_teacher, weights_path
from pipeline.space import recipe
from pipeline.space.augmentation import augmentation_of
from pipeline.spec import StudySpec
from pipeline.states import OutcomeState


def train_student(task: TrialTask) -> tuple[float, Findings]:
    """Train a network on what the teacher says of the training images, and return its objective on the others."""
    started = time.monotonic()
    with StudyStore(task.folder.database) as store:
        spec = store.spec()
        dataset = stored_dataset(task, spec)
        training, held_out = taught(task, spec, dataset, dataset.split("train")), labelled(dataset.split("val"))
        rest = replace(task, seconds_limit=task.seconds_limit - (time.monotonic() - started))
        model, last, _ = train_watched(rest, spec, training, held_out, reporter(store, task))
        validation.keep(task, [validation.predicted(task, spec, model, dataset, held_out)])
    return float(getattr(last, spec.objective)), Findings()


def taught(task: TrialTask, spec: StudySpec, dataset: StoredDataset, subset: Subset) -> Any:
    """Return images of train or val with their labels and what the teacher says of them."""
    from pipeline.targets import is_multi_label
    from pipeline.training.distillation import lesson
    from pipeline.training.recipe import log_priors

    said = teacher_logits(task, spec, dataset, subset)
    is_adjusted = spec.balance == "logits"
    offsets = log_priors(subset.labels, len(spec.classes)) if is_adjusted else (0.0,)
    return replace(labelled(subset), taught=lesson(said, is_multi_label(subset.labels), offsets))


def teacher_logits(
    task: TrialTask, spec: StudySpec, dataset: StoredDataset, subset: Subset
) -> NDArray[np.float32]:  # fmt: skip
    """Return what the teacher says of images of train or val, float32 (num_images, num_classes).

    It is asked once, for all images. If it learnt from mirror images too, that is the mean for an
    image and its mirror image.

    Raises:
        TrialFailed: its weights cannot be read.
    """
    from pipeline.models.averaging import both_answers
    from pipeline.models.predict import predict_logits

    teacher = read_teacher(task.folder)
    if teacher is None:
        raise TrialFailed(OutcomeState.FAILED, f"{weights_path(task.folder)} is missing or damaged")
    path, digests = answers_path(task.folder, teacher.number), dataset.digests(subset.images)
    if path.is_file():
        return predictions.load_for(path, digests)["logits"]
    model, asked = network(teacher.params, spec), dataset.split("train", "val").images
    with np.load(weights_path(task.folder), allow_pickle=False) as stored:
        model.set_weights([stored[name] for name in sorted(stored.files) if name.startswith("weight")])
    pulse_path(task.folder, task.attempt).parent.mkdir(exist_ok=True)
    flips = augmentation_of(recipe(teacher.params)["augment"]).flips and spec.allows_flips
    with closing(going_on(pulse_path(task.folder, task.attempt))) as pulse:
        predict = partial(predict_logits, model, on_batch=pulse.touch)
        logits = both_answers(predict, asked)[1] if flips else predict(asked)
    predictions.save(path, dataset.digests(asked), logits=logits)
    return predictions.load_for(path, digests)["logits"]
