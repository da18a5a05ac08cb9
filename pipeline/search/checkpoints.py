"""Where a study keeps checkpoints and its model, what is still needed, and how much disk must stay free."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import StoppedEarly
from pipeline.search.jobs import TrainingJob
from pipeline.states import TrainingKind
from pipeline.workspace import StudyFolder

FREE_FLOOR_MB = 300  # below this a search stops while its own files still fit


def checkpoint_path(job: TrainingJob, fold: int | None = None) -> Path:
    """Return where the training of a rung is saved each epoch; folds have files of their own."""
    training = job.training
    name = training.value if isinstance(training, TrainingKind) else f"t{training:05d}-r{job.rung}"
    suffix = "" if fold is None else f"-f{fold}"
    return job.folders.checkpoints / f"{name}{suffix}.npz"


def baseline_logits(folder: Path, is_flip_averaged: bool = False) -> Path:
    """Return where the test logits of the reference network lie, or the means for each image and its mirror image."""
    return folder / f"test_logits{'_flip_averaged' if is_flip_averaged else ''}.npz"


def drop_files(job: TrainingJob) -> None:
    """Delete the checkpoints of a rung that has ended: the next one begins with fresh weights."""
    path = checkpoint_path(job)
    for file in path.parent.glob(f"{path.stem}*.npz"):
        file.unlink(missing_ok=True)


def sweep(folder: StudyFolder, open_rungs: Iterable[tuple[int, int]]) -> None:
    """Delete what a killed process left: checkpoints of all rungs but `open_rungs` (trial, rung), and all heartbeats.

    Half-written files go too; a child that outlives its parent for a moment fails to rename its own, and ends.
    """
    kept = {f"t{number:05d}-r{rung}" for number, rung in open_rungs}
    for path in folder.checkpoints.glob("t*.npz"):
        if "-".join(path.stem.split("-")[:2]) not in kept:
            path.unlink(missing_ok=True)
    for place in (folder.checkpoints, folder.logits, folder.teacher, folder.new_model, folder.model):
        for path in place.glob(".*.tmp-*"):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder.pulses, ignore_errors=True)


def check_free_space(folder: StudyFolder, floor_mb: int = FREE_FLOOR_MB) -> None:
    """Check that the disk has room for the next checkpoints, models and pages of the database.

    Raises:
        StoppedEarly: it has less than the floor.
    """
    free_mb = shutil.disk_usage(folder.path).free / 1e6
    if free_mb < floor_mb:
        raise StoppedEarly(
            f"{folder.path}: {free_mb:.0f} MB of disk are free, and at least {floor_mb} MB are needed; every finished "
            "trial is kept: free some space and run the same command with --resume"
        )
