"""Images a second that one pinned thread trains, while all cores train the same: Keras, fused, fused in bfloat16.

    python benchmarks/precision.py --seconds 3 --json-file precision.json

The networks have 3 stages of 32, 64 and 128 filters, with one or two convolutions each and batch normalisation; batches
are noise, fed as arrays. "keras" is float32 by Keras' own layers, "fused" float32 as trainings compute it
(pipeline/training/compute.py), "bfloat16" the same in bfloat16. Printed are means over the cores.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from one_thread import pin_to

SHAPES, CONVS, BATCHES, MODES = ((28, 28, 1), (32, 32, 3)), (1, 2), (64, 128, 256), ("keras", "fused", "bfloat16")


def main() -> None:
    """Measure on every core at once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--json-file", type=Path)
    parser.add_argument("--core", type=int, help="measure on this core alone and print lines of JSON")
    options = parser.parse_args()
    if options.core is not None:
        measure_core(options.core, options.seconds)
        return
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, __file__, "--seconds", str(options.seconds), "--core"]
    children = [subprocess.Popen([*command, str(core)], stdout=subprocess.PIPE, text=True) for core in cores]
    outputs = [[json.loads(line) for line in child.communicate()[0].splitlines()] for child in children]
    rows = [mean_of(rows) for rows in zip(*outputs, strict=True)]
    print_table(rows)
    if options.json_file:
        options.json_file.write_text(json.dumps(rows, indent=2) + "\n")


def measure_core(core: int, seconds: float) -> None:
    """Print what one core does in each case."""
    pin_to(core)
    for shape, num_convs, batch_size in itertools.product(SHAPES, CONVS, BATCHES):
        rates = {mode: rate(shape, num_convs, batch_size, mode, seconds) for mode in MODES}
        case = {"shape": shape, "convs_per_stage": num_convs, "batch_size": batch_size}
        sys.stdout.write(json.dumps({**case, **rates}) + "\n")
        sys.stdout.flush()


def rate(shape: tuple[int, int, int], num_convs: int, batch_size: int, mode: str, seconds: float) -> float:
    """Return the images a second of one training."""
    from contextlib import nullcontext

    import keras
    import numpy as np

    from pipeline.models.build import Pixels, build
    from pipeline.space import recipe
    from pipeline.training.compute import computing
    from pipeline.training.images import plan_steps
    from pipeline.training.recipe import compile_model

    keras.utils.clear_session()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *shape)).astype(np.uint8)
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    pixels = Pixels(shape, "uint8", (128.0,) * shape[2], (64.0,) * shape[2])
    params = {"depth": 3, "filters": 32, "convs_per_stage": num_convs, "batch_size": batch_size}
    model = build(params, pixels, 10)
    with nullcontext() if mode == "keras" else computing(model, "float32" if mode == "fused" else mode):
        compile_model(model, recipe(params), plan_steps(100 * batch_size, batch_size, batch_size))
        for _ in range(3):
            model.train_on_batch(images, labels)
        started, num_steps = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            model.train_on_batch(images, labels)
            num_steps += 1
        return num_steps * batch_size / (time.monotonic() - started)


def mean_of(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return one case with the means of all cores."""
    return {**rows[0], **{mode: sum(row[mode] for row in rows) / len(rows) for mode in MODES}}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the cases, and how many times as fast as Keras each is."""
    sys.stdout.write("| images | convolutions | batch | keras | fused | bfloat16 |\n|---|---|---|---|---|---|\n")
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        gains = " | ".join(f"{row[mode]:,.0f} ({row[mode] / row['keras']:.2f})" for mode in MODES[1:])
        sys.stdout.write(
            f"| {shape} | {3 * row['convs_per_stage']} | {row['batch_size']} | {row['keras']:,.0f} | {gains} |\n"
        )


if __name__ == "__main__":
    main()
