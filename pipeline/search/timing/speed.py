"""How fast a child trains on this machine, and whether bfloat16 serves: a few steps of one network on noise."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.machine import has_bfloat16

_PROBE_SECONDS = 0.75  # of training, after the first steps, which build and trace; twice as long told no more
_MAX_STEPS = 400
_NUM_FIRST_STEPS = 8  # in which the learning rate rises and falls
_LOGITS_TOLERANCE = 0.1  # of their size; bfloat16 rounds each number by up to 0.4 %
_FALL_TOLERANCE = 0.5  # of the fall of the loss over the first steps
_LOSS_TOLERANCE = 0.1  # of the first loss, where it hardly falls: dropout hides other features in another precision


@dataclass(frozen=True)
class Speed:
    """The seconds that a training takes in this process for one image, and to start, and in which precision."""

    sample_seconds: float
    precision: str
    start_seconds: float


@dataclass(frozen=True)
class Course:
    """The first steps of a training: logits (batch, num_classes) before them, the loss of each, seconds an image.

    `start_seconds` passed until the first step was over.
    """

    logits: NDArray[np.float32]
    losses: list[float]
    sample_seconds: float
    start_seconds: float


def measure_speed(
    params: Mapping[str, Any], image: Mapping[str, Any], num_classes: int, builder: Any, precision: str
) -> Speed:
    """Return how fast a network trains in this process, in a precision or, for "auto", in the one that is better.

    That is bfloat16 where the machine has it, where it is faster and trains like float32. `image` are the
    fields of an ImageSpec.
    """
    from pipeline.training.compute import BFLOAT16, FLOAT32

    network = (params, image, num_classes, builder)
    if precision == "auto" and has_bfloat16():
        exact, short = (follow(*network, each, _PROBE_SECONDS) for each in (FLOAT32, BFLOAT16))
        start_seconds = min(exact.start_seconds, short.start_seconds)  # the first one imports, too
        if agrees(exact, short) and short.sample_seconds < exact.sample_seconds:
            return Speed(short.sample_seconds, BFLOAT16, start_seconds)
        return Speed(exact.sample_seconds, FLOAT32, start_seconds)
    precision = FLOAT32 if precision == "auto" else precision
    course = follow(*network, precision, _PROBE_SECONDS)
    return Speed(course.sample_seconds, precision, course.start_seconds)


def agrees(exact: Course, short: Course) -> bool:
    """Tell whether a training in bfloat16 goes as in float32: close logits, and a loss that falls alike."""
    off = np.linalg.norm(short.logits - exact.logits) / max(float(np.linalg.norm(exact.logits)), 1e-6)
    first, last = exact.losses[0], exact.losses[-1]
    tolerance = max(_FALL_TOLERANCE * (first - last), _LOSS_TOLERANCE * first)
    return bool(off <= _LOGITS_TOLERANCE and abs(short.losses[-1] - last) <= tolerance)


def follow(
    params: Mapping[str, Any], image: Mapping[str, Any], num_classes: int, builder: Any, precision: str, seconds: float
) -> Course:
    """Train a new network on one batch of noise for some seconds, the same noise and weights each time."""
    import keras

    from pipeline.models.build import Pixels, build
    from pipeline.records import ImageSpec
    from pipeline.space import recipe
    from pipeline.training.compute import computing
    from pipeline.training.images import plan_steps
    from pipeline.training.recipe import compile_model

    spec = ImageSpec(**image)
    values = recipe(params)
    batch_size = values["batch_size"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *spec.shape)).astype(spec.dtype)
    labels = rng.integers(0, num_classes, batch_size).astype(np.int32)
    channels = spec.channels
    keras.utils.set_random_seed(0)
    began = time.monotonic()
    model = build(params, Pixels(spec.shape, spec.dtype, (128.0,) * channels, (64.0,) * channels), num_classes, builder)
    with computing(model, precision):
        compile_model(model, values, plan_steps(_NUM_FIRST_STEPS * batch_size, batch_size, batch_size))
        logits = np.asarray(model.predict_on_batch(images), np.float32)
        losses = [float(np.ravel(model.train_on_batch(images, labels))[0])]
        start_seconds = time.monotonic() - began
        losses += [float(np.ravel(model.train_on_batch(images, labels))[0]) for _ in range(_NUM_FIRST_STEPS - 1)]
        started, num_steps = time.monotonic(), 0
        while num_steps < _MAX_STEPS and time.monotonic() - started < seconds:
            model.train_on_batch(images, labels)
            num_steps += 1
        return Course(logits, losses, (time.monotonic() - started) / (num_steps * batch_size), start_seconds)
