"""How fast a child trains on this machine: a few steps of one network on noise, before the time is divided."""

import time
from collections.abc import Mapping
from typing import Any

PROBE_SECONDS = 0.75  # of training, after the first steps, which build and trace; twice as long told no more
MAX_STEPS = 400


def measure_sample_seconds(
    params: Mapping[str, Any], image: Mapping[str, Any], num_classes: int, builder: Any
) -> float:
    """Return the seconds that a training takes for one image, in this process.

    `image` are the fields of an ImageSpec.
    """
    import numpy as np

    from pipeline.models.build import Pixels, build
    from pipeline.records import ImageSpec
    from pipeline.space import recipe
    from pipeline.training.images import plan_steps
    from pipeline.training.recipe import compile_model

    spec = ImageSpec(**image)
    values = recipe(params)
    batch_size = values["batch_size"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *spec.shape)).astype(spec.dtype)
    labels = rng.integers(0, num_classes, batch_size).astype(np.int32)
    channels = spec.channels
    model = build(params, Pixels(spec.shape, spec.dtype, (128.0,) * channels, (64.0,) * channels), num_classes, builder)
    compile_model(model, values, plan_steps(MAX_STEPS * batch_size, batch_size, batch_size, 1))
    for _ in range(3):
        model.train_on_batch(images, labels)
    started, num_steps = time.monotonic(), 0
    while num_steps < MAX_STEPS and time.monotonic() - started < PROBE_SECONDS:
        model.train_on_batch(images, labels)
        num_steps += 1
    return (time.monotonic() - started) / (num_steps * batch_size)
