"""One trial to the end of a rung, in a child process: from the study's cached images to a score."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.card import Latency
from pipeline.data.splits.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.machine import has_bfloat16
from pipeline.records import EPOCH_COLUMNS, EpochRow, Params
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.events import Reporter
from pipeline.search.jobs import Findings, TooSlow, TrainingJob
from pipeline.search.worker import validation
from pipeline.search.worker.teacher import keep_if_best
from pipeline.search.worker.validation import Predictions
from pipeline.space import Builder
from pipeline.spec import StudySpec
from pipeline.states import OutcomeState


def stored_dataset(job: TrainingJob) -> StoredDataset:
    """Return the data set of a study."""
    return StoredDataset(job.folders.data, Path(job.spec.cache), job.spec.image)


def labelled(subset: Subset) -> Any:
    """Return images as the training takes them."""
    from pipeline.training.images import Labelled

    return Labelled(subset.images, subset.labels, subset.weights)


def train_rung(job: TrainingJob, reporter: Reporter) -> tuple[float, Findings]:
    """Train one trial to the end of a rung and return the objective's value there, the mean of the folds if any."""
    spec, dataset = job.spec, stored_dataset(job)
    latency = _latency_of(job) if job.rung == 0 else None
    if spec.folds:
        last = _train_folds(job, dataset, reporter)
    else:
        training, held_out = labelled(dataset.split("train")), labelled(dataset.split("val"))
        model, last, _ = train_watched(job, training, held_out, reporter)
        validation.keep(job, [validation.predicted(job, model, dataset, held_out, reporter.heart)])
        keep_if_best(job, model, float(getattr(last, spec.objective)))
    return float(getattr(last, spec.objective)), Findings(latency)


def train_watched(
    job: TrainingJob, training: Any, validation: Any, reporter: Reporter, fold: int | None = None
) -> Any:  # fmt: skip
    """Train, with a checkpoint each epoch and a heartbeat each batch; a lack of memory is marked as such."""
    from pipeline.training.trial import TrainingFiles, train

    files = TrainingFiles(checkpoint_path(job, fold), heart=reporter.heart)
    try:
        return train(job.params, training, validation, training_config(job), reporter.epoch, files)
    except TrialFailed as error:
        if error.state == OutcomeState.INFEASIBLE:
            error.is_out_of_memory = True
        raise


def _latency_of(job: TrainingJob) -> Latency | None:
    """Return the latency of a network, if the study asks for it: measured before it trains.

    Raises:
        TrialFailed: it is over the limit.
    """
    spec = job.spec
    if spec.limits.max_latency_ms is None and spec.minimise != "latency":
        return None
    from pipeline.training.latency import measure_latency

    default_ms, one_core_ms = measure_latency(network(job.params, spec))
    one_core_ms = default_ms if one_core_ms is None else one_core_ms  # where threads cannot be pinned
    if broken := spec.limits.broken_by(latency_ms=one_core_ms):
        raise TooSlow(broken, Latency(default_ms, one_core_ms))
    return Latency(default_ms, one_core_ms)


def network(params: Params, spec: StudySpec) -> Any:
    """Return the untrained network of a configuration for the images of a study."""
    from pipeline.models.build import Pixels, build

    pixels = Pixels(spec.image.shape, spec.image.dtype, spec.mean, spec.std)
    return build(params, pixels, len(spec.classes), Builder.of(spec.space))


def _train_folds(job: TrainingJob, dataset: StoredDataset, reporter: Reporter) -> EpochRow:
    """Train once for each fold that is held out and report the mean of the folds, epoch by epoch, with the last one."""
    ends = time.monotonic() + job.seconds_limit
    num_folds = job.spec.folds
    curves: list[list[EpochRow]] = []
    answers: list[Predictions | None] = []
    for number in range(num_folds):
        curves.append([])
        training, held_out = map(labelled, dataset.fold(number))
        part = replace(job, samples=job.samples // num_folds, seconds_limit=ends - time.monotonic())
        report = reporter.epoch if number == num_folds - 1 else None
        listening = replace(reporter, epoch=partial(_add_to_curve, curves, report))
        model, _, _ = train_watched(part, training, held_out, listening, number)
        answers.append(validation.predicted(job, model, dataset, held_out, reporter.heart))
    validation.keep(job, answers)
    return _mean_row([curve[-1] for curve in curves])


def _add_to_curve(curves: list[list[EpochRow]], report: Callable[[EpochRow], None] | None, row: EpochRow) -> None:
    """Keep an epoch of the newest fold; report the mean of all folds if that one is the last."""
    curves[-1].append(row)
    if report:
        place = len(curves[-1]) - 1
        report(_mean_row([curve[place] for curve in curves]))


def _mean_row(rows: list[EpochRow]) -> EpochRow:
    """Return one epoch that has the mean figures of several folds and the sum of their seconds."""
    names = [name for name in EPOCH_COLUMNS if name != "seconds"]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return EpochRow(step=rows[-1].step, seconds=sum(row.seconds for row in rows), **means)


def training_config(job: TrainingJob) -> Any:
    """Return what the training needs to know of the study and of the job."""
    from pipeline.training.trial import TrainingConfig

    spec = job.spec
    return TrainingConfig(
        num_classes=len(spec.classes),
        mean=spec.mean,
        std=spec.std,
        dtype=spec.image.dtype,
        samples=job.samples,
        seed=job.seed,
        objective=spec.objective,
        seconds_limit=job.seconds_limit,
        seconds_wanted=job.seconds_wanted,
        first_step=job.first_step,
        num_micro_batches=job.num_micro_batches,
        is_deterministic=spec.is_deterministic,
        keeps_unfinished=job.is_final,
        allows_flips=spec.allows_flips,
        adjusts_logits=spec.balance == "logits",
        precision=spec.precision if has_bfloat16() else "float32",
        builder=Builder.of(spec.space),
    )
