"""Out-of-fold predictions for a finished study: its winner trained anew on K folds; what follows from them is not here.

Every usable image takes part, also those of the test split: the models are thrown away and judge no one, so that
nothing leaks into the study's score.
"""

import json
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import read_bundle
from pipeline.data.cache import folder as cache_folder
from pipeline.data.source import NOT_GIVEN, Files, Source
from pipeline.data.splits import manifest
from pipeline.data.splits.split import assign_folds, merge_groups
from pipeline.errors import DataError, StoppedEarly, TrialFailed
from pipeline.files import replacing, sha256_file, write_json
from pipeline.machine import describe_exit
from pipeline.records import Params
from pipeline.search.engines.base import Engine
from pipeline.search.jobs import TrainingJob
from pipeline.search.seeds import trial_seed
from pipeline.search.storage.store import StudyStore
from pipeline.search.timing.budget import SECONDS_PER_TRIAL, STARTUP_SECONDS, TRAIN_FORWARD_RATIO
from pipeline.search.worker.fold import predict_fold, rows_of_fold
from pipeline.spec import StudySpec
from pipeline.states import TrainingKind
from pipeline.workspace import StudyFolder

_RUNG = 100  # above the rungs of any study: the seeds of the folds differ from those of all trials


@dataclass(frozen=True)
class OutOfFoldPlan:
    """One cross-fitting: what each fold trains with, and the folder in which its predictions are kept.

    `depends_on` is everything that the predictions follow from; kept ones of another value are not used.
    """

    study: StudyFolder
    num_folds: int
    trial: int
    params: Params
    epochs: int
    spec: StudySpec
    depends_on: Params

    @property
    def folder(self) -> Path:
        """Where predictions are kept between calls."""
        return self.study.suspects

    @property
    def folds_path(self) -> Path:
        """The fold of each image: uint8 (num_images,), NOT_GIVEN for unusable files."""
        return self.folder / f"folds-of-{self.num_folds}.npy"

    @property
    def facts_path(self) -> Path:
        """What the predictions beside it depend on, as JSON; written after the folds."""
        return self.folder / f"folds-of-{self.num_folds}.json"

    def logits_path(self, number: int) -> Path:
        """The predictions for the images of a fold: float32 (num_images_of_fold, num_classes)."""
        return self.folder / f"fold-{number + 1}-of-{self.num_folds}.npy"

    def folds(self) -> NDArray[np.uint8]:
        """Return the fold of each image."""
        return np.asarray(np.load(self.folds_path))


def plan_out_of_fold(store: StudyStore, num_folds: int) -> OutOfFoldPlan:
    """Return how the winner of a study is to be trained on folds.

    Raises:
        DataError: the study has no winner yet, or its images have several labels.
        ModelRefused: the winner's model was damaged.
    """
    spec, folder = store.spec(), store.folder
    if spec.is_multi_label:
        raise DataError(
            f"study {spec.study}: an image has several labels; expected one, since confident learning ranks labels "
            "that exclude each other; `by_class` in its model.json shows which labels are recognised badly, "
            "and `pipeline data check` which copies are labelled differently"
        )
    if not store.has_final_model():
        raise DataError(
            f"study {spec.study} is not finished; expected a winner, whose network judges the labels; finish it "
            f"with: {_restore_command(spec)}"
        )
    card = read_bundle(folder.model).card
    number, epochs = card.trial or 0, card.epochs or 1
    depends_on = {
        "fingerprint": spec.fingerprint,
        "images": sha256_file(folder.split_table),
        "trial": number,
        "params": card.params,
        "epochs": epochs,
        "seed": spec.seed,
    }
    return OutOfFoldPlan(folder, num_folds, number, card.params, epochs, spec, depends_on)


def _restore_command(spec: StudySpec) -> str:
    """Return what to type to finish a study, or to decode its images again."""
    return f"pipeline search DATA --name {spec.study} --resume (DATA was {spec.source})"


def hold_images(spec: StudySpec) -> cache_folder.CacheLease:
    """Keep the decoded images of a study from being cleared away until the hold is closed.

    Raises:
        DataError: they were cleared away, or damaged.
    """
    folder = Path(spec.cache)
    hold = cache_folder.open_whole(folder.parent, folder.name)
    if hold is None:
        raise DataError(
            f"{folder}: the decoded images of study {spec.study} were cleared away; expected them there; restore "
            f"them with: {_restore_command(spec)}"
        )
    return hold


def missing_folds(plan: OutOfFoldPlan) -> list[int]:
    """Return the folds whose predictions are not kept.

    Kept ones of other images or another model are removed, and what a killed process left half written.
    """
    for path in plan.folder.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)
    if _read_facts(plan.facts_path) != plan.depends_on:
        _forget(plan)
    return [number for number in range(plan.num_folds) if not plan.logits_path(number).exists()]


def _read_facts(path: Path) -> Any:
    """Return what a JSON file holds, None if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _forget(plan: OutOfFoldPlan) -> None:
    """Remove kept predictions."""
    plan.facts_path.unlink(missing_ok=True)
    for number in range(plan.num_folds):
        plan.logits_path(number).unlink(missing_ok=True)


def assign_images(plan: OutOfFoldPlan, spec: StudySpec, images_folder: Path) -> None:
    """Decide the fold of each usable image, unless that is done; near-duplicates and groups are in one fold.

    `images_folder` is where the study's images lie decoded.

    Raises:
        DataError: a class is too small for so many folds, or a killed search left its images in two orders.
    """
    data, table = plan.study.data, plan.study.split_table
    labels, splits = np.load(data / "labels.npy"), np.load(data / "splits.npy")
    rows = np.flatnonzero(splits != NOT_GIVEN)
    digests = np.load(images_folder / "facts.npy", mmap_mode="r")["sha256"][rows]
    if not np.array_equal(digests, manifest.read_digests(table)):
        raise DataError(
            f"study {spec.study}: its labels and decoded images are in different orders, because a search was "
            f"killed while writing them; repair that with: {_restore_command(spec)}"
        )
    if plan.facts_path.exists():
        return
    paths, groups = manifest.read_paths(table), _stored_groups(table)
    source = Source(
        spec.dataset, spec.source, spec.classes, paths, labels[rows], splits[rows], Files("", paths), groups
    )  # fmt: skip
    near = np.load(images_folder / "clusters.npy", mmap_mode="r")[1]
    clusters = merge_groups(near[rows], source.groups)
    folds = np.full(len(splits), NOT_GIVEN, np.uint8)
    folds[rows] = assign_folds(source, clusters, digests, plan.num_folds, np.ones(len(rows), bool))
    with replacing(plan.folds_path) as temporary, temporary.open("wb") as file:
        np.save(file, folds)
    write_json(plan.facts_path, plan.depends_on)


def _stored_groups(path: Path) -> list[str] | None:
    """Return the group of each image of a table that `manifest.write_record` wrote, None without groups."""
    import pyarrow.parquet as pq

    if "group" not in pq.read_schema(path).names:
        return None
    return list(pq.read_table(path, columns=["group"])["group"].to_pylist())


def estimate_seconds(plan: OutOfFoldPlan, store: StudyStore, numbers: Iterable[int]) -> float:
    """Return the seconds that some folds will take, by what an epoch of the winner's last training took."""
    counts = store.spec().num_images
    num_trained = counts["train"] + counts["val"]
    epoch_seconds = float(np.mean([row.seconds for row in store.epochs(TrainingKind.FINAL)]))
    folds = plan.folds()
    num_images = int((folds != NOT_GIVEN).sum())
    total = STARTUP_SECONDS
    for number in numbers:
        num_held_out = int((folds == number).sum())
        passes = plan.epochs * (num_images - num_held_out) + num_held_out / TRAIN_FORWARD_RATIO
        total += SECONDS_PER_TRIAL + passes * epoch_seconds / num_trained
    return total


def run_fold(plan: OutOfFoldPlan, engine: Engine, number: int) -> float:
    """Train without a fold and keep the predictions for it; return the accuracy on it.

    Raises:
        StoppedEarly: the training failed or its process died; the folds before it are kept.
    """
    from pebble import ProcessExpired

    job = TrainingJob(
        spec=plan.spec,
        folders=plan.study.for_training,
        attempt=0,
        training=plan.trial,
        rung=_RUNG,
        samples=plan.epochs * len(rows_of_fold(plan.folds(), number)[0]),
        params=plan.params,
        seed=trial_seed(plan.spec.seed, plan.trial, _RUNG + number),
        seconds_limit=inf,
    )
    future = engine.call_all(predict_fold, job, plan.folds_path, number, plan.logits_path(number))[0]
    try:
        return float(future.result())
    except TrialFailed as error:
        reason = error.reason
    except ProcessExpired as error:
        reason = f"its process died ({describe_exit(error.exitcode)})"
    except BrokenExecutor as error:
        reason = f"its process died ({error})"
    raise StoppedEarly(
        f"fold {number + 1} of {plan.num_folds}: {reason}; expected predictions; the folds before it are kept; run the "
        "same command again, or with another --folds"
    )


def read_predictions(plan: OutOfFoldPlan) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows int64 (num_usable,) of all usable images, and their logits float32 (num_usable, num_classes)."""
    folds = plan.folds()
    rows = [np.flatnonzero(folds == number) for number in range(plan.num_folds)]
    logits = [np.load(plan.logits_path(number)) for number in range(plan.num_folds)]
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], np.concatenate(logits)[order]
