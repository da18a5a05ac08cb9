"""Train one configuration for a number of images, report each epoch, and keep the state to go on from."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import keras

from pipeline.errors import TrialFailed
from pipeline.files import sha256_json
from pipeline.heartbeat import Heart
from pipeline.models.build import Pixels, build
from pipeline.models.predict import predict_logits
from pipeline.records import EpochRow, Params
from pipeline.space import Builder, recipe
from pipeline.space.augmentation import Augmentation, augmentation_of
from pipeline.states import OutcomeState
from pipeline.targets import is_multi_label
from pipeline.training import checkpoint, stopping
from pipeline.training.checkpoint import Position
from pipeline.training.compute import FLOAT32, computing
from pipeline.training.determinism import make_deterministic
from pipeline.training.images import EpochBatches, Labelled, Steps, plan_steps
from pipeline.training.metrics import NOTHING, measure_logits
from pipeline.training.monitor import CAUSES, TrainingMonitor
from pipeline.training.recipe import LossOptions, compile_model, log_priors
from pipeline.training.schedule import highest_rate, set_length

Report = Callable[[EpochRow], None]


class Trained(NamedTuple):
    """A trained model, its last epoch, and how many epochs were planned in the end."""

    model: keras.Model
    last: EpochRow
    num_planned: int


@dataclass(frozen=True)
class TrainingConfig:
    """How one training of a study goes.

    `mean` and `std` are those of the training pixels, one number a channel, on their own scale; `dtype` is that of the
    pixels. `samples` images are seen; fewer if that would take longer than `seconds_wanted`, by what the first epochs
    took, and the learning rate falls to zero all the same. `objective` is the column of EpochRow that trials are ranked
    by. `first_step` is the number of the first epoch. `num_micro_batches` > 1 cuts each batch into that many parts,
    which takes less memory. `is_deterministic` gives the same numbers to the last bit. `keeps_unfinished` returns the
    model as it is when the time is over, instead of raising: the winner of a search must be there in time. `precision`
    is that of the computation; the variables, and the model that is returned, are float32. `allows_flips` tells whether
    a picture is of the same class when left and right change places. With `adjusts_logits` rare classes count as much
    as common ones. Whether an image has one label or several is told by the labels of the images.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    samples: int
    seed: int
    objective: str = "val_accuracy"
    seconds_limit: float = math.inf
    seconds_wanted: float = math.inf
    first_step: int = 1
    dtype: str = "uint8"
    num_micro_batches: int = 1
    is_deterministic: bool = False
    keeps_unfinished: bool = False
    precision: str = FLOAT32
    allows_flips: bool = True
    adjusts_logits: bool = False
    builder: Builder | None = None


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training keeps its state, the state of another one whose weights it begins with, and its sign of life.

    A training goes on from `checkpoint` if that is there and of this training, and then `start_from` is not read.
    """

    checkpoint: Path | None = None
    start_from: Path | None = None
    heart: Heart | None = None


def train(
    params: Params,
    training: Labelled,
    validation: Labelled | None,
    config: TrainingConfig,
    report: Report,
    files: TrainingFiles = TrainingFiles(),
) -> Trained:
    """Train a model and return it with its last epoch.

    `report` gets every epoch in order, and again those that were trained before a resume. Without validation images
    (the winner's last training) the validation figures are NaN.

    Raises:
        TrialFailed: not finite, out of memory, out of time or stopped; its `state` says which. The last two leave a
            checkpoint to go on from.
    """
    wanted_end = time.monotonic() + config.seconds_wanted
    _prepare_keras(config)
    values = recipe(params)
    steps = plan_steps(config.samples, len(training), values["batch_size"], config.num_micro_batches)
    task = task_hash(values, training, config)
    heart = files.heart or Heart(lambda beat: None)
    with _naming_lack_of_memory(steps):
        model = build(params, _pixels(training, config), config.num_classes, config.builder)
        with computing(model, config.precision):
            compile_model(model, values, steps, pretrained_variables(model, config), _loss_options(training, config))
            position = _begin(model, files, task)
            if position.num_epochs:
                steps = replace(steps, num_epochs=position.num_epochs, num_batches=position.num_batches)
            monitor = TrainingMonitor(model, steps, config.seconds_limit, wanted_end, heart)
            keep = partial(checkpoint.save, files.checkpoint, model, task)
            progress = Progress(position, monitor, validation, config, report, keep)
            try:
                fit(model, training, augmentation(values, config), progress)
            except TrialFailed as error:
                if error.state != OutcomeState.PRUNED or not config.keeps_unfinished:
                    raise
    rows = progress.position.rows
    return Trained(model, rows[-1] if rows else _UNTRAINED, monitor.steps.num_epochs)


_UNTRAINED = EpochRow(0, *[math.nan] * 9)
"""The last epoch of a training that was cut off in its first one."""


class Progress(keras.callbacks.Callback):
    """After each epoch: evaluate, report, keep the state, and stop where going on makes no sense.

    It has no batch hooks, for which Keras would wait after every batch.
    """

    def __init__(
        self,
        position: Position,
        monitor: TrainingMonitor,
        validation: Labelled | None,
        config: TrainingConfig,
        report: Report,
        keep: Callable[[Position], None],
    ) -> None:
        super().__init__()
        self.position = position
        self.monitor = monitor
        self.validation = validation
        self.config = config
        self.report = report
        self.keep = keep
        self.batches: EpochBatches | None = None  # that are being trained on
        self.epoch_started = 0.0
        self.steps_before = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time and the steps before; tell the feed the epoch: JAX has it begin one more at its start."""
        if self.batches is not None:
            self.batches.next_epoch = epoch
        self.epoch_started = time.monotonic()
        self.steps_before = self.num_steps() - self.position.step

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Evaluate on the validation images, report and keep; of an epoch that was broken off, only keep.

        Raises:
            TrialFailed: a loss or the objective is not finite, or the training is to stop before its end.
        """
        steps = self.monitor.steps
        part = self.part_of_epoch(logs or {})
        if part.step < steps.per_epoch:
            self.keep(part)
            raise self.stopped(self.monitor.cause() or OutcomeState.STOPPED, part)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if not math.isfinite(part.loss):
            raise self.not_finite("the loss", part.loss, epoch)
        row = self.evaluated(part, rate)
        self.report(row)
        if self.validation is not None:
            self.refuse_not_finite(row, epoch)
        if not self.model.optimizer.use_ema and self.monitor.shorten(epoch + 1):  # an average is made where `fit` ends
            steps = self.monitor.steps
            num_left = (steps.num_epochs - epoch - 1) * steps.num_batches
            set_length(self.model.optimizer, self.num_steps() // steps.num_parts + num_left)
            self.model.stop_training = True  # this call of `fit`; the next one has the new steps
        self.position = Position((*part.rows, row), num_epochs=steps.num_epochs, num_batches=steps.num_batches)
        self.keep(self.position)
        if epoch + 1 < steps.num_epochs and (state := self.monitor.cause()):
            raise self.stopped(state, self.position)

    def num_steps(self) -> int:
        """Return the steps of the whole training so far; the optimizer counts them: the feed may be some ahead."""
        return int(keras.ops.convert_to_numpy(self.model.optimizer.variables[0]))

    def part_of_epoch(self, logs: dict[str, float]) -> Position:
        """Return the steps done of this epoch, those before a resume included."""
        before = self.position
        step = self.num_steps() - self.steps_before
        return replace(
            before,
            step=step,
            loss=(before.loss * before.step + float(logs["likelihood"]) * (step - before.step)) / step,
            accuracy=(before.accuracy * before.step + float(logs["accuracy"]) * (step - before.step)) / step,
            seconds=before.seconds + time.monotonic() - self.epoch_started,
        )

    def evaluated(self, part: Position, rate: float) -> EpochRow:
        """Return the row of a whole epoch."""
        started, found = time.monotonic(), NOTHING
        if self.validation is not None:
            logits = predict_logits(self.model, self.validation.images, on_batch=self.monitor.heart.touch)
            found = measure_logits(logits, self.validation.labels)
        return EpochRow(
            step=self.config.first_step + len(part.rows),
            loss=part.loss,
            accuracy=part.accuracy,
            learning_rate=rate,
            seconds=part.seconds + time.monotonic() - started,
            **{f"val_{name}": value for name, value in asdict(found).items()},
        )

    def refuse_not_finite(self, row: EpochRow, epoch: int) -> None:
        """Raise TrialFailed if what a trial is ranked by is not a number."""
        for name in ("val_loss", self.config.objective):
            value = getattr(row, name)
            if not math.isfinite(value):
                raise self.not_finite(name, value, epoch)

    def not_finite(self, name: str, value: float, epoch: int) -> TrialFailed:
        """Return what to raise where a figure is not a number."""
        rate = highest_rate(self.model.optimizer)
        return TrialFailed(
            OutcomeState.FAILED, f"{name} became {value} in epoch {epoch + 1} (learning rate up to {rate:.2g})"
        )

    def stopped(self, state: OutcomeState, position: Position) -> TrialFailed:
        """Return what to raise where a training stops before its end."""
        steps = self.monitor.steps
        if state == OutcomeState.STOPPED:
            stopping.clear()
        done = f"after {len(position.rows)} of {steps.num_epochs} epochs"
        rest = f" and {position.step} of {steps.per_epoch} steps" if position.step else ""
        return TrialFailed(state, f"{CAUSES[state]} {done}{rest}")


def pretrained_variables(model: keras.Model, config: TrainingConfig) -> list[Any]:
    """Return what may rest at first: the variables of a model within the model, unless the user built it."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)] if config.builder is None else []
    return [variable for layer in inner for variable in layer.trainable_variables]


def _pixels(training: Labelled, config: TrainingConfig) -> Pixels:
    return Pixels(training.images.shape[1:], config.dtype, config.mean, config.std)


def _prepare_keras(config: TrainingConfig) -> None:
    """Forget earlier models, and seed what Keras draws."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(config.seed)
    if config.is_deterministic:
        make_deterministic()


def _loss_options(training: Labelled, config: TrainingConfig) -> LossOptions:
    """Return which labels are learnt from, and what makes rare classes count as much as common ones."""
    offsets = log_priors(training.labels, config.num_classes) if config.adjusts_logits else (0.0,)
    return LossOptions(offsets, is_multi_label(training.labels), training.taught is not None)


def _begin(model: keras.Model, files: TrainingFiles, task: str) -> Position:
    """Restore the state of this training, else the weights of the one that it starts from; return where it goes on."""
    position = checkpoint.resume(files.checkpoint, model, task)
    if position is None and files.start_from is not None:
        checkpoint.start_from(files.start_from, model)
    return position or Position()


def augmentation(values: Params, config: TrainingConfig) -> Augmentation:
    """Return what is done to the training images."""
    wanted = augmentation_of(values["augment"])
    return replace(wanted, flips=wanted.flips and config.allows_flips)


def fit(model: keras.Model, training: Labelled, augmentation: Augmentation, progress: Progress) -> None:
    """Train from where `progress` is to the end, after a report of the epochs that are done."""
    monitor, position = progress.monitor, progress.position
    for row in position.rows:
        progress.report(row)
    if len(position.rows) < monitor.steps.num_epochs and (state := monitor.cause()):
        raise progress.stopped(state, position)
    while (first := len(progress.position.rows)) < monitor.steps.num_epochs:
        skip = progress.position.step
        # Keras counts the steps of an epoch once a `fit`, so the rest of a broken-off epoch is a `fit` of its own.
        end = first + 1 if skip else monitor.steps.num_epochs
        batches = EpochBatches(
            training, monitor.steps, augmentation, progress.config.seed, monitor.on_step, (first, skip)
        )
        progress.batches = batches
        model.fit(batches, initial_epoch=first, epochs=end, verbose=0, callbacks=[progress], shuffle=False)


_WITHOUT_EFFECT = ("objective", "seconds_limit", "seconds_wanted", "is_deterministic", "keeps_unfinished")
"""Fields of a TrainingConfig that do not change the course of a training, as far as it goes."""


def task_hash(values: Params, training: Labelled, config: TrainingConfig) -> str:
    """Return the hash of what is trained how: a checkpoint of another one is of no use."""
    how = asdict(config)
    for name in _WITHOUT_EFFECT:
        del how[name]
    if training.taught is not None:
        how["taught"] = sha256(training.taught.tobytes()).hexdigest()
    return sha256_json({"params": dict(values), "images": [len(training), *training.images.shape[1:]], **how})


@contextmanager
def _naming_lack_of_memory(steps: Steps) -> Iterator[None]:
    """Turn what Python, TensorFlow and JAX raise when memory runs out into an INFEASIBLE trial."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        parts = f" in {steps.num_parts} parts" if steps.num_parts > 1 else ""
        raise TrialFailed(
            OutcomeState.INFEASIBLE, f"out of memory at batch {steps.num_parts * steps.part_size}{parts}"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an exception of Python, TensorFlow or JAX means that memory ran out."""
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__} {error}" for sign in ("ResourceExhausted", "RESOURCE_EXHAUSTED")
    )
