"""How long one core takes for an image in training, by network and precision: milliseconds, 32 x 32 x 3, batch 64.

    python benchmarks/step_time.py --seconds 3

Each network trains on one batch of noise with the default recipe, pinned to one core; the first steps are left out.
"""

import argparse
import time
from typing import Any

from one_thread import pin_to

IMAGE, NUM_CLASSES, BATCH = (32, 32, 3), 10, 64
NUM_FIRST_STEPS = 5
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "16 filters": {"filters": 16},
    "48 filters": {"filters": 48},
    "2 convolutions a stage": {"convs_per_stage": 2},
    "2 convolutions, pooled between": {"convs_per_stage": 2, "pool_after": "first"},
    "2 convolutions, pooled between, 48 filters": {"convs_per_stage": 2, "pool_after": "first", "filters": 48},
    "residual": {"block": "residual"},
    "kernels of 5 x 5": {"kernel_size": 5},
    "separable": {"block": "separable"},
    "separable, kernels of 5 x 5": {"block": "separable", "kernel_size": 5},
    "separable, 4 stages of 2, 48 filters": {"block": "separable", "depth": 4, "convs_per_stage": 2, "filters": 48},
    "mobile": {"block": "mobile"},
}


def main() -> None:
    """Measure each network in both precisions and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of training, for each cell")
    options = parser.parse_args()
    pin_to(0)
    from pipeline.models.measure import measure

    print("| network | MFLOPs (depthwise) | float32 | bfloat16 |\n|---|---|---|---|", flush=True)
    for name, params in NETWORKS.items():
        cost = measure(params, IMAGE, NUM_CLASSES)
        depthwise = f" ({cost.depthwise_flops / 1e6:.1f})" if cost.depthwise_flops else ""
        exact, short = (milliseconds(params, precision, options.seconds) for precision in ("float32", "bfloat16"))
        print(f"| {name} | {cost.mflops:.1f}{depthwise} | {exact:.2f} | {short:.2f} |", flush=True)


def milliseconds(params: dict[str, Any], precision: str, seconds: float) -> float:
    """Return the mean time of a training step for one image."""
    import keras
    import numpy as np

    from pipeline.models.build import Pixels, build
    from pipeline.space import recipe
    from pipeline.training.compute import computing
    from pipeline.training.images import plan_steps
    from pipeline.training.recipe import compile_model

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *IMAGE)).astype(np.uint8)
    labels = rng.integers(0, NUM_CLASSES, BATCH).astype(np.int32)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    pixels = Pixels(IMAGE, "uint8", (128.0,) * 3, (64.0,) * 3)
    model = build(params, pixels, NUM_CLASSES, None)
    with computing(model, precision):
        compile_model(model, recipe({**params, "batch_size": BATCH}), plan_steps(100_000, 10_000, BATCH))
        for _ in range(NUM_FIRST_STEPS):
            model.train_on_batch(images, labels)
        started, num_steps = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            model.train_on_batch(images, labels)
            num_steps += 1
        return (time.monotonic() - started) / num_steps / BATCH * 1000


if __name__ == "__main__":
    main()
