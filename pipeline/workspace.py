"""Where this program keeps its files and folders in the workspace."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folder in which a user works: MLflow's store, studies, splits, caches and built-in sets are below `root`."""

    root: Path

    @property
    def database(self) -> Path:
        """MLflow's store, unless MLFLOW_TRACKING_URI names another one."""
        return self.root / "mlflow.db"

    @property
    def mlruns(self) -> Path:
        """What searches keep, and MLflow's artifacts."""
        return self.root / "mlruns"

    @property
    def studies(self) -> Path:
        """The folders of all studies."""
        return self.mlruns / "studies"

    @property
    def splits(self) -> Path:
        """Which content stood in which split, a file for each data set."""
        return self.mlruns / "splits"

    @property
    def models(self) -> Path:
        """Models that were fetched from MLflow, by their id."""
        return self.mlruns / "cache" / "models"

    def study(self, name: str) -> "StudyFolder":
        """Return the folder of a study, which need not exist."""
        return StudyFolder(self.studies / name)

    def cache(self, kind: str) -> Path:
        """Return where the cache folders of a kind lie, such as "images" or "arrays", as an absolute path."""
        return Path(os.path.abspath(self.mlruns / "cache" / kind))  # noqa: PTH100

    @property
    def builtin_sets(self) -> Path:
        """Built-in sets that were downloaded, or written, a folder for each."""
        return self.root / "data"


@dataclass(frozen=True)
class TrainingFolders:
    """Where a training finds its images and keeps its files: all that a worker knows of where a study lies.

    `data` holds labels, splits, weights and folds as arrays, `checkpoints` trainings that have not ended, `logits` what
    trials of the highest rung said of the validation images, `baseline` what the reference network said of the test
    images, `teacher` the weights of the best trial and its answers, `model` a model that is being made.
    """

    data: Path
    checkpoints: Path
    logits: Path
    baseline: Path
    teacher: Path
    model: Path


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study, as docs/architecture.md describes it ("A study on disk")."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.path.name

    @property
    def openings(self) -> Path:
        """Which study opened which test images and when, a file for each set of images; all studies share it."""
        return self.path.parent.parent / "openings"

    @property
    def database(self) -> Path:
        """The SQLite file that holds the state of the study."""
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Held while a process works on the study."""
        return self.path / "lock"

    @property
    def stop_file(self) -> Path:
        """What `pipeline stop` leaves for the search."""
        return self.path / "stop"

    @property
    def log(self) -> Path:
        """What child processes print."""
        return self.path / "trials.log"

    @property
    def data(self) -> Path:
        """Labels, splits, weights and folds as arrays."""
        return self.path / "data"

    @property
    def split_table(self) -> Path:
        """The split and the SHA-256 of every usable image."""
        return self.data / "split.parquet"

    @property
    def bad_files(self) -> Path:
        """The files that could not be used as pictures."""
        return self.path / "bad_files.json"

    @property
    def checkpoints(self) -> Path:
        """Trainings that have not ended."""
        return self.path / "checkpoints"

    @property
    def pulses(self) -> Path:
        """How far each running training is, a file for each attempt."""
        return self.path / "pulses"

    @property
    def logits(self) -> Path:
        """What trials of the highest rung said of the validation images."""
        return self.path / "logits"

    @property
    def baseline(self) -> Path:
        """What the reference network said of the test images."""
        return self.path / "baseline"

    @property
    def teacher(self) -> Path:
        """The weights of the best trial, where a study distils, and what it said of the images."""
        return self.path / "teacher"

    @property
    def suspects(self) -> Path:
        """Out-of-fold predictions."""
        return self.path / "suspects"

    @property
    def compiled(self) -> Path:
        """What JAX compiled for a GPU."""
        return self.path / "compiled"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model"

    @property
    def new_model(self) -> Path:
        """A model that takes the place of `model` when it is whole."""
        return self.path / "model.new"

    @property
    def for_training(self) -> TrainingFolders:
        """What a training may read and write."""
        return TrainingFolders(self.data, self.checkpoints, self.logits, self.baseline, self.teacher, self.new_model)

    def heartbeat(self, attempt: int) -> Path:
        """Where the latest heartbeat of an attempt is kept."""
        return self.pulses / str(attempt)
