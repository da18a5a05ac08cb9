"""Frozen values and Protocols that cross floors: what the packages hand to each other, and no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Params = Mapping[str, Any]
"""One configuration: the values of the active hyperparameters, by name."""

# The states of a trial. All but the first three are final.
PLANNED = "PLANNED"
RUNNING = "RUNNING"
PAUSED = "PAUSED"  # finished a rung; may be promoted to the next
COMPLETED = "COMPLETED"
PRUNED = "PRUNED"  # stopped before its last epoch because the budget ended
FAILED = "FAILED"
INFEASIBLE = "INFEASIBLE"  # does not fit into memory
CRASHED = "CRASHED"  # its process died twice
TIMEOUT = "TIMEOUT"
FINAL_STATES = (COMPLETED, PRUNED, FAILED, INFEASIBLE, CRASHED, TIMEOUT)


@dataclass(frozen=True)
class ImageSpec:
    """How the bytes of a file become the array (height, width, channels) that a model is fed with.

    `channels` is 1 (grey), 3 (RGB) or the number of bands. `dtype` is uint8, uint16 (16-bit grey or bands, whole range)
    or float32 (values as they are). `background` is the colour (#rrggbb) under transparent pixels. Files of more than
    `max_megapixels` or `max_megabytes` are refused before they are decoded. `decoder_version` names the rules of
    `pipeline.data.decode`.
    """

    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    background: str = "#000000"
    max_megapixels: int = 50
    max_megabytes: int = 64
    decoder_version: int = 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (self.height, self.width, self.channels)

    @property
    def num_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.height * self.width * self.channels * {"uint8": 1, "uint16": 2, "float32": 4}[self.dtype]


@dataclass(frozen=True)
class TrialTask:
    """Unit of work: train trial `number` to the end of `rung`, that is for `epochs` epochs from fresh weights.

    `attempt` is the id of the row that was written before the work started. `seconds_limit` is the time after which
    the child stops at the end of an epoch.
    """

    study_path: str
    attempt: int
    number: int
    rung: int
    epochs: int
    params: dict[str, Any]
    seed: int
    seconds_limit: float
    first_step: int = 1
    is_final: bool = False  # the winner's training on train + validation


@dataclass(frozen=True)
class TrialOutcome:
    """What became of a task. `score` is the validation accuracy at the end of the rung, in [0, 1]; None without one."""

    attempt: int
    number: int
    rung: int
    state: str
    score: float | None = None
    reason: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRow:
    """A trial as the study knows it: a line of the leaderboard.

    `score` is the best validation accuracy at the end of a rung, `epochs` the length of that rung, `best_epoch` the
    step at which it was reached when the epochs of all rungs of the trial are counted on. `seconds` sums the training
    time of all rungs. `mflops` are millions of multiply-adds times two, for one image, forward.
    """

    number: int
    state: str
    score: float | None
    params: dict[str, Any]
    num_params: int
    mflops: float
    seconds: float
    reason: str
    epochs: int
    best_epoch: int


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial. `step` counts on over the rungs of a trial, from 1; losses are without smoothing."""

    step: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class MirrorMark:
    """How much of one trial is in MLflow already: its run, the last step sent, and whether the run was ended."""

    run_id: str
    last_step: int = 0
    is_closed: bool = False


PARENT = -1
"""The number under which the mark of the study's parent run is kept."""


class StudyView(Protocol):
    """What the MLflow mirror reads from a study, and the marks that it keeps there so that a replay repeats nothing."""

    def facts(self) -> dict[str, Any]:
        """Return the immutable facts of the study.

        Keys: study, dataset, fingerprint (of the data), source, space (the whole space as JSON-able dict), param_names
        (every hyperparameter of the space), oracle, seed, objective, image (fields of ImageSpec), classes, num_images
        ({"train", "val", "test"}), split_manifest (path of a table of every image with its split), versions.
        """

    def trials(self) -> list[TrialRow]:
        """Return all trials, by number."""

    def epochs(self, number: int, after_step: int = 0) -> list[EpochRow]:
        """Return the epochs of one trial whose step is greater than `after_step`, in order."""

    def marks(self) -> dict[int, MirrorMark]:
        """Return the marks by trial number; the parent run has the number PARENT."""

    def set_mark(self, number: int, mark: MirrorMark) -> None:
        """Store the mark of one trial, durably."""


class Mirror(Protocol):
    """Where a search is shown while it runs; an outage of it never stops the search."""

    def push(self) -> None:
        """Send everything that the study holds and the mirror does not; raise TrackingError on an outage."""

    def close(self, state: str) -> str:
        """Send the rest, end the parent run as FINISHED, FAILED or KILLED and return its run id."""
