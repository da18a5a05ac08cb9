"""Frozen values and Protocols that cross floors: what the packages hand to each other, and no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.states import TrialState

Params = Mapping[str, Any]
"""One configuration: the values of the active hyperparameters, by name."""


@dataclass(frozen=True)
class ImageSpec:
    """How the bytes of a file become the array (height, width, channels) that a model is fed with.

    `channels` is 1 (grey), 3 (RGB) or the number of bands. `dtype` is uint8, uint16 (16-bit grey or bands, whole range)
    or float32 (values as they are). `background` is the colour (#rrggbb) under transparent pixels. Files of more than
    `max_megapixels` or `max_megabytes` are refused before they are decoded. `decoder_version` names the rules of
    `pipeline.data.decoding.decode`.
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


OBJECTIVES = {
    "val_accuracy": "max",
    "val_balanced_accuracy": "max",
    "val_macro_f1": "max",
    "val_auc": "max",
    "val_loss": "min",
}
"""What trials can be ranked by: columns of EpochRow, with the direction that is better."""

COST_UNITS = {"params": "params", "mflops": "MFLOPs", "size": "MB", "latency": "ms"}
"""What can be minimised beside the objective (see `TrialRow.cost`), and the unit that is shown."""


@dataclass(frozen=True)
class Objective:
    """What a study looks for: the best value of `name`, and with `minimise` the front of that against a cost."""

    name: str = "val_accuracy"
    minimise: str | None = None

    @property
    def sign(self) -> int:
        """1 if larger is better, -1 if smaller is."""
        return 1 if OBJECTIVES[self.name] == "max" else -1


@dataclass(frozen=True)
class TrialRow:
    """A trial as the study knows it: a line of the leaderboard.

    `score` is the objective's value at the end of the highest rung that the trial finished, `rung` that rung (-1
    without one), `samples` the images seen in it, `epochs` its number of epochs, `best_epoch` the step at which it
    ended when the epochs of all rungs of the trial are counted on. `seconds` sums the training time of all rungs.
    `mflops` are millions of multiply-adds times two, for one image, forward. `latency_ms` is for one image on one
    core; None where it was not measured.
    """

    number: int
    state: TrialState
    score: float | None
    params: Params
    num_params: int
    mflops: float
    seconds: float
    reason: str
    epochs: int
    best_epoch: int
    rung: int = -1
    samples: int = 0
    latency_ms: float | None = None

    @property
    def size_mb(self) -> float:
        """Megabytes (10^6 bytes) of the weights as float32."""
        return self.num_params * 4 / 1e6

    def cost(self, name: str) -> float | None:
        """Return one of COST_UNITS; None where it was not measured."""
        values = {"params": self.num_params, "mflops": self.mflops, "size": self.size_mb, "latency": self.latency_ms}
        return values[name]


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one trial. `step` counts on over the rungs of a trial, from 1; losses are without smoothing.

    `val_auc` is the mean over the classes of the area under the curve of one class against the rest, in [0, 1].
    """

    step: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    val_auc: float
    learning_rate: float
    seconds: float


EPOCH_COLUMNS = tuple(each.name for each in fields(EpochRow) if each.name != "step")
"""The figures of an epoch, by name."""
