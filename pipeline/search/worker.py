"""What runs in a child process: one task at a time, from the study's cached images to an outcome."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.records import COMPLETED, FAILED, EpochRow, ImageSpec, TrialOutcome, TrialTask
from pipeline.search.store import StudyStore

Report = Callable[[EpochRow], None]

# What child processes are started with; the parent sets none of it for itself.
CHILD_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def prepare(environment: dict[str, str], num_threads: int, log_path: str) -> None:
    """Make this child ready: its environment and threads, its chatter to a file, and Ctrl-C left to the parent."""
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(num_threads))
    if "CUDA_VISIBLE_DEVICES" not in environment:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # the parent hid the GPUs from itself


def warm_up() -> bool:
    """Import what every task needs, so that the imports of the child and of the parent overlap."""
    import pipeline.training.trial

    return bool(pipeline.training.trial)


def run_task(task: TrialTask) -> TrialOutcome:
    """Train and return the outcome; every exception of the training becomes one, with its reason."""
    warm_up()  # a new child imports first, and that is not the trial's time
    started = time.monotonic()
    try:
        score, facts = train_final(task) if task.is_final else train_rung(task)
        state, reason = COMPLETED, ""
    except TrialFailed as error:
        score, facts, state, reason = None, {}, error.state, error.reason
    except Exception as error:  # noqa: BLE001  border: what a training raises is recorded with its reason
        score, facts, state, reason = None, {}, FAILED, f"{type(error).__name__}: {error}"[:500]
    return TrialOutcome(
        attempt=task.attempt,
        number=task.number,
        rung=task.rung,
        state=state,
        score=score,
        reason=reason,
        seconds=time.monotonic() - started,
        facts=facts,
    )


def stored_dataset(task: TrialTask, facts: dict[str, Any]) -> StoredDataset:
    """Return the data set of a study."""
    return StoredDataset(Path(task.study_path) / "data", Path(facts["cache"]), ImageSpec(**facts["image"]))


def labelled(subset: Subset) -> Any:
    """Return images as the training takes them."""
    from pipeline.training.images import Labelled

    return Labelled(subset.images, subset.labels, subset.weights)


def train_rung(task: TrialTask) -> tuple[float, dict[str, Any]]:
    """Train one trial to the end of a rung and return its validation accuracy, over all folds if there are any."""
    from pipeline.training.trial import train

    store = StudyStore(Path(task.study_path) / "study.db")
    try:
        facts = store.facts()
        dataset, report = stored_dataset(task, facts), reporter(store, task)
        if facts.get("folds"):
            last = train_folds(task, facts, dataset, report)
        else:
            training, validation = labelled(dataset.split("train")), labelled(dataset.split("val"))
            _, last = train(task.params, training, validation, setting(task, facts), report)
    finally:
        store.close()
    return last.val_accuracy, {"val_loss": last.val_loss}


def train_folds(task: TrialTask, facts: dict[str, Any], dataset: StoredDataset, report: Report) -> EpochRow:
    """Train once for each fold that is held out and report the mean of the folds, epoch by epoch, with the last one."""
    from pipeline.training.trial import train

    ends = time.monotonic() + task.seconds_limit
    curves: list[list[EpochRow]] = []
    for number in range(facts["folds"]):
        curves.append([])
        training, validation = map(labelled, dataset.fold(number))
        settings = replace(setting(task, facts), seconds_limit=ends - time.monotonic())
        is_last = number == facts["folds"] - 1
        train(task.params, training, validation, settings, partial(add_to_curve, curves, report if is_last else None))
    return mean_row([curve[-1] for curve in curves])


def add_to_curve(curves: list[list[EpochRow]], report: Report | None, row: EpochRow) -> None:
    """Keep an epoch of the newest fold; report the mean of all folds if that one is the last."""
    curves[-1].append(row)
    if report:
        place = len(curves[-1]) - 1
        report(mean_row([curve[place] for curve in curves]))


def mean_row(rows: list[EpochRow]) -> EpochRow:
    """Return one epoch that has the mean figures of several folds and the sum of their seconds."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return EpochRow(step=rows[-1].step, seconds=sum(row.seconds for row in rows), **means)


def train_final(task: TrialTask) -> tuple[float, dict[str, Any]]:
    """Train the winner on train + validation, save it, and open the test split, once, with the saved file.

    Returns the test accuracy and the facts of the test. The logits are saved beside the model for reports.
    """
    import keras

    from pipeline.models.predict import predict_logits
    from pipeline.training.trial import measure_logits, train

    store = StudyStore(Path(task.study_path) / "study.db")
    try:
        facts = store.facts()
        dataset = stored_dataset(task, facts)
        training = labelled(dataset.split("train", "val"))
        model, _ = train(task.params, training, None, setting(task, facts), reporter(store, task))
        target = Path(task.study_path) / "model" / "model.keras"
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name("unfinished.keras")
        model.save(temporary)
        temporary.replace(target)
        saved = keras.saving.load_model(target, compile=False, safe_mode=True)
        test = dataset.split("test")
        logits = predict_logits(saved, test.images)
        np.save(target.parent / "test_logits.npy", logits)
        loss, accuracy = measure_logits(logits, test.labels)
    finally:
        store.close()
    is_correct = logits.argmax(axis=1) == test.labels
    is_clean = ~dataset.column("leaked")[test.images.rows]
    return accuracy, {
        "test_loss": loss,
        "num_correct": int(is_correct.sum()),
        "num_images": len(is_correct),
        "num_clean_correct": int((is_correct & is_clean).sum()),
        "num_clean": int(is_clean.sum()),
        "versions": versions(),
    }


def setting(task: TrialTask, facts: dict[str, Any]) -> Any:
    """Return what the training needs to know of the study and of the task."""
    from pipeline.training.trial import Setting

    return Setting(
        num_classes=len(facts["classes"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        epochs=task.epochs,
        seed=task.seed,
        seconds_limit=task.seconds_limit,
        first_step=task.first_step,
        dtype=facts["image"]["dtype"],
    )


def reporter(store: StudyStore, task: TrialTask) -> Report:
    """Return the function that records an epoch; it ends this child if its parent is gone."""
    parent = os.getppid()

    def report(row: EpochRow) -> None:
        if os.getppid() != parent:
            os._exit(1)
        store.add_epoch(task.attempt, row)

    return report


def versions() -> dict[str, str]:
    """Return the versions that the model depends on."""
    import keras

    import pipeline

    backend = keras.backend.backend()
    module = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend]
    return {
        "pipeline": pipeline.__version__,
        "keras": keras.__version__,
        "backend": backend,
        backend: __import__(module).__version__,
        "numpy": np.__version__,
    }
