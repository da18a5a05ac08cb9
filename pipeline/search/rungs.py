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
from pipeline.records import EpochRow, Params
from pipeline.search import validation
from pipeline.search.checkpoints import checkpoint_path, pulse_path
from pipeline.search.store import EPOCH_COLUMNS, StudyStore
from pipeline.search.task import Findings, TooSlow, TrialTask
from pipeline.search.teacher import keep_if_best
from pipeline.search.validation import Predictions
from pipeline.space import Builder
from pipeline.spec import StudySpec
from pipeline.states import OutcomeState

Report = Callable[[EpochRow], None]


def stored_dataset(task: TrialTask, spec: StudySpec) -> StoredDataset:
    """Return the data set of a study."""
    return StoredDataset(task.folder.data, Path(spec.cache), spec.image)


def labelled(subset: Subset) -> Any:
    """Return images as the training takes them."""
    from pipeline.training.images import Labelled

    return Labelled(subset.images, subset.labels, subset.weights)


def train_rung(task: TrialTask) -> tuple[float, Findings]:
    """Train one trial to the end of a rung and return the objective's value there, the mean of the folds if any."""
    with StudyStore(task.folder.database) as store:
        spec = store.spec()
        dataset, report = stored_dataset(task, spec), reporter(store, task)
        latency = latency_of(task, spec) if task.rung == 0 else None
        if spec.folds:
            last = train_folds(task, spec, dataset, report)
        else:
            training, held_out = labelled(dataset.split("train")), labelled(dataset.split("val"))
            model, last, _ = train_watched(task, spec, training, held_out, report)
            validation.keep(task, [validation.predicted(task, spec, model, dataset, held_out)])
            keep_if_best(task, spec, model, float(getattr(last, spec.objective)))
    return float(getattr(last, spec.objective)), Findings(latency)


def train_watched(
    task: TrialTask, spec: StudySpec, training: Any, validation: Any, report: Report, fold: int | None = None
) -> Any:  # fmt: skip
    """Train, with a checkpoint each epoch and a pulse each batch; a lack of memory is marked as such."""
    from pipeline.training.trial import TrainingFiles, train

    pulse = pulse_path(task.folder, task.attempt)
    pulse.parent.mkdir(exist_ok=True)
    files = TrainingFiles(checkpoint=checkpoint_path(task, fold), pulse=pulse)
    try:
        return train(task.params, training, validation, setting(task, spec), report, files)
    except TrialFailed as error:
        if error.state == OutcomeState.INFEASIBLE:
            error.is_out_of_memory = True
        raise


def latency_of(task: TrialTask, spec: StudySpec) -> Latency | None:
    """Return the latency of a network, if the study asks for it: measured before it trains.

    Raises:
        TrialFailed: it is over the limit.
    """
    if spec.limits.max_latency_ms is None and spec.minimise != "latency":
        return None
    from pipeline.training.latency import measure_latency

    default_ms, one_core_ms = measure_latency(network(task.params, spec))
    one_core_ms = default_ms if one_core_ms is None else one_core_ms  # where threads cannot be pinned
    if broken := spec.limits.broken_by(latency_ms=one_core_ms):
        raise TooSlow(broken, Latency(default_ms, one_core_ms))
    return Latency(default_ms, one_core_ms)


def network(params: Params, spec: StudySpec) -> Any:
    """Return the untrained network of a configuration for the images of a study."""
    from pipeline.models.build import Pixels, build

    pixels = Pixels(spec.image.shape, spec.image.dtype, spec.mean, spec.std)
    return build(params, pixels, len(spec.classes), Builder.of(spec.space))


def train_folds(task: TrialTask, spec: StudySpec, dataset: StoredDataset, report: Report) -> EpochRow:
    """Train once for each fold that is held out and report the mean of the folds, epoch by epoch, with the last one."""
    ends = time.monotonic() + task.seconds_limit
    num_folds = spec.folds
    curves: list[list[EpochRow]] = []
    said: list[Predictions | None] = []
    for number in range(num_folds):
        curves.append([])
        training, held_out = map(labelled, dataset.fold(number))
        part = replace(task, samples=task.samples // num_folds, seconds_limit=ends - time.monotonic())
        add = partial(add_to_curve, curves, report if number == num_folds - 1 else None)
        model, _, _ = train_watched(part, spec, training, held_out, add, number)
        said.append(validation.predicted(task, spec, model, dataset, held_out))
    validation.keep(task, said)
    return mean_row([curve[-1] for curve in curves])


def add_to_curve(curves: list[list[EpochRow]], report: Report | None, row: EpochRow) -> None:
    """Keep an epoch of the newest fold; report the mean of all folds if that one is the last."""
    curves[-1].append(row)
    if report:
        place = len(curves[-1]) - 1
        report(mean_row([curve[place] for curve in curves]))


def mean_row(rows: list[EpochRow]) -> EpochRow:
    """Return one epoch that has the mean figures of several folds and the sum of their seconds."""
    names = [name for name in EPOCH_COLUMNS if name != "seconds"]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return EpochRow(step=rows[-1].step, seconds=sum(row.seconds for row in rows), **means)


def setting(task: TrialTask, spec: StudySpec) -> Any:
    """Return what the training needs to know of the study and of the task."""
    from pipeline.training.trial import Setting

    return Setting(
        num_classes=len(spec.classes),
        mean=spec.mean,
        std=spec.std,
        dtype=spec.image.dtype,
        samples=task.samples,
        seed=task.seed,
        objective=spec.objective,
        seconds_limit=task.seconds_limit,
        seconds_wanted=task.wanted_end - time.monotonic(),
        first_step=task.first_step,
        num_micro_batches=task.num_micro_batches,
        is_deterministic=spec.is_deterministic,
        keeps_unfinished=task.is_final,
        allows_flips=spec.allows_flips,
        adjusts_logits=spec.balance == "logits",
        precision=spec.precision if has_bfloat16() else "float32",
        builder=Builder.of(spec.space),
    )


def reporter(store: StudyStore, task: TrialTask) -> Report:
    """Return the function that records an epoch."""
    return partial(store.add_epoch, task.attempt)
