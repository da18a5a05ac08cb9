"""Ingredients that the product does not have, so that `recipe.py` can measure whether it should.

Each is a context in which `pipeline.training.trial.train` trains with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from pipeline.training import recipe, trial
from pipeline.training.images import EpochBatches

EMA_MOMENTUM = 0.995  # a memory of 200 changes of the weights


@contextmanager
def averaged_weights() -> Iterator[None]:
    """Let the model that is returned have an exponential moving average of its weights; epochs report the others."""
    make = recipe.optimizer

    def averaging(*arguments: Any) -> Any:
        optimizer = make(*arguments)
        optimizer.use_ema, optimizer.ema_momentum, optimizer.ema_overwrite_frequency = True, EMA_MOMENTUM, None
        return optimizer

    with patch.object(recipe, "optimizer", averaging):
        yield


Mix = Callable[[Any, Any, float, Any], tuple[Any, float]]


def mixup(images: Any, others: Any, share: float, rng: Any) -> tuple[Any, float]:
    """Return images that are a mean of two, weighed by `share` (Zhang et al. 2018)."""
    mixed = share * images.astype(np.float32) + (1 - share) * others.astype(np.float32)
    return np.rint(mixed).astype(images.dtype), share


def cutmix(images: Any, others: Any, share: float, rng: Any) -> tuple[Any, float]:
    """Return images in which a rectangle of 1 - `share` of the area is of another one (Yun et al. 2019)."""
    height, width = images.shape[1:3]
    side = np.sqrt(1 - share)
    tall, wide = round(height * side), round(width * side)
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    mixed = images.copy()
    mixed[:, top : top + tall, left : left + wide] = others[:, top : top + tall, left : left + wide]
    return mixed, 1 - tall * wide / (height * width)


@contextmanager
def mixed_images(mix: Mix, num_classes: int, concentration: float) -> Iterator[None]:
    """Train on pairs of images with labels in proportion, the share from Beta(concentration, concentration)."""

    class MixedBatches(EpochBatches):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            images, labels, *_ = super().__getitem__(index)
            rng = np.random.default_rng((self.seed, self.epoch, index))
            partner = rng.permutation(len(images))
            mixed, share = mix(images, images[partner], rng.beta(concentration, concentration), rng)
            one_hot = np.eye(num_classes, dtype=np.float32)[labels]
            return mixed, share * one_hot + (1 - share) * one_hot[partner]

    with patch.object(trial, "EpochBatches", MixedBatches), soft_labels():
        yield


@contextmanager
def small_at_first(side: int, share: float) -> Iterator[None]:
    """Train on images of `side` pixels until that share of the epochs is over, then on whole ones (Howard 2018)."""
    make = trial.build

    class SmallBatches(EpochBatches):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            images, *rest = super().__getitem__(index)
            is_small = self.epoch < round(share * self.steps.num_epochs)
            return (resized(images, side) if is_small else images, *rest)

    def build_for_any_side(params: Any, pixels: Any, *rest: Any) -> Any:
        model = make(params, pixels, *rest)
        return keras.models.clone_model(model, input_tensors=keras.Input((None, None, pixels.shape[-1]), dtype="uint8"))

    def fit_twice(model: Any, training: Any, augmentation: Any, progress: Any) -> None:
        steps, seed, on_step = progress.watch.steps, progress.setting.seed, progress.watch.on_step
        switch = round(share * steps.num_epochs)
        for first, end in ((0, switch), (switch, steps.num_epochs)):  # a feed has one shape
            batches = SmallBatches(training, steps, augmentation, seed, on_step, (first, 0))
            progress.batches = batches
            model.fit(batches, initial_epoch=first, epochs=end, verbose=0, callbacks=[progress], shuffle=False)

    with patch.object(trial, "fit", fit_twice), patch.object(trial, "build", build_for_any_side):
        yield


def resized(images: Any, side: int) -> Any:
    """Return square images, uint8, made smaller: each new pixel is the mean of the area that it covers."""
    old = images.shape[1]
    edges = np.arange(side + 1) * old / side
    covered = np.clip(
        np.minimum(edges[1:, None], np.arange(1, old + 1)) - np.maximum(edges[:-1, None], np.arange(old)), 0, 1
    )
    shares = (covered * side / old).astype(np.float32)
    rows = np.tensordot(shares, images.astype(np.float32), (1, 1))  # (side, num_images, old, channels)
    small = np.tensordot(shares, rows, (1, 2))  # (side across, side down, num_images, channels)
    return np.rint(small.transpose(2, 1, 0, 3)).astype(images.dtype)


@contextmanager
def soft_labels() -> Iterator[None]:
    """Train on labels that are probabilities, float32 (num_images, num_classes)."""

    def compile_soft(model: Any, values: Any, steps: Any, *_: Any) -> None:
        share = values["label_smoothing"]
        model.compile(
            optimizer=recipe.optimizer(values, steps, model.layers[-1].path),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=share),
            metrics=[
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                keras.metrics.CategoricalCrossentropy(name="likelihood", from_logits=True),
            ],
        )
        model.optimizer.build(model.trainable_variables)

    with patch.object(trial, "compile_model", compile_soft):
        yield
