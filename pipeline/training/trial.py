"""Train one configuration for a number of epochs, report each epoch, and say what the model is worth."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialFailed
from pipeline.models.build import Pixels, build
from pipeline.models.predict import predict_logits
from pipeline.records import FAILED, INFEASIBLE, PRUNED, EpochRow
from pipeline.space import complete
from pipeline.training.images import EpochBatches, Labelled
from pipeline.training.recipe import compile_model

Report = Callable[[EpochRow], None]


@dataclass(frozen=True)
class Setting:
    """What is common to all trials of a study, and how long this one may take.

    `mean` and `std` are those of the training pixels, one number a channel, on their own scale; `dtype` is that of the
    pixels.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    seed: int
    seconds_limit: float = math.inf
    first_step: int = 1
    dtype: str = "uint8"


class Progress(keras.callbacks.Callback):
    """After each epoch: evaluate, report, and stop where going on makes no sense. It has no batch hooks (they sync)."""

    def __init__(self, validation: Labelled | None, setting: Setting, report: Report) -> None:
        super().__init__()
        self.validation = validation
        self.setting = setting
        self.report = report
        self.started = self.epoch_started = time.monotonic()
        self.last: EpochRow | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Evaluate on the validation images and report.

        Raises:
            TrialFailed: the loss is not finite, or the time is over before the last epoch.
        """
        logs = logs or {}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if not math.isfinite(logs["loss"]):
            raise TrialFailed(FAILED, f"the loss became {logs['loss']} in epoch {epoch + 1} (learning rate {rate:.2g})")
        val_loss, val_accuracy = (
            evaluate(self.model, self.validation) if self.validation is not None else (math.nan, math.nan)
        )
        now = time.monotonic()
        self.last = EpochRow(
            step=self.setting.first_step + epoch,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=rate,
            seconds=now - self.epoch_started,
        )
        self.report(self.last)
        if self.validation is not None and not math.isfinite(val_loss):
            raise TrialFailed(FAILED, f"the validation loss became {val_loss} in epoch {epoch + 1}")
        if now - self.started > self.setting.seconds_limit and epoch + 1 < self.setting.epochs:
            raise TrialFailed(PRUNED, f"the time was over after epoch {epoch + 1} of {self.setting.epochs}")


def train(
    params: Mapping[str, Any],
    training: Labelled,
    validation: Labelled | None,
    setting: Setting,
    report: Report,
) -> tuple[keras.Model, EpochRow]:
    """Train a fresh model and return it with its last epoch.

    Without validation images (the winner's last training) the validation figures are NaN.

    Raises:
        TrialFailed: not finite, out of memory, or out of time; its `state` says which.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(setting.seed)
    values = complete(params)
    try:
        normal = Pixels(training.images.shape[1:], setting.dtype, setting.mean, setting.std)
        model = build(params, normal, setting.num_classes)
        batches = EpochBatches(training, values["batch_size"], values["augment"], setting.seed)
        compile_model(model, values, num_steps=len(batches) * setting.epochs)
        progress = Progress(validation, setting, report)
        model.fit(batches, epochs=setting.epochs, verbose=0, callbacks=[progress], shuffle=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise TrialFailed(INFEASIBLE, f"out of memory at batch {values['batch_size']}") from error
        raise
    if progress.last is None:
        raise TrialFailed(FAILED, "no epoch was trained")
    return model, progress.last


def evaluate(model: keras.Model, data: Labelled) -> tuple[float, float]:
    """Return (cross-entropy without smoothing, accuracy) on labelled images."""
    return measure_logits(predict_logits(model, data.images), data.labels)


def measure_logits(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> tuple[float, float]:
    """Return (cross-entropy, accuracy) of logits (num_images, num_classes)."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an exception of Python, TensorFlow or JAX means that memory ran out."""
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__} {error}" for sign in ("ResourceExhausted", "RESOURCE_EXHAUSTED")
    )
