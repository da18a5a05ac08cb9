"""How many images a machine trains a second, by how its cores are divided among processes.

    python benchmarks/workers.py --repeats 3

One child with all cores against several with fewer, pinned to their own cores or not. Each child trains the default
network of the space cnn, and a wide one, on noise for some seconds, all at once; printed are the images a second of all
children together, the median of the repeats. Nothing else should run on the machine.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from accuracy import describe_machine, installed

from pipeline.machine import Resources, core_groups, num_cores
from pipeline.records import ImageSpec
from pipeline.search.engines.local import LocalEngine
from pipeline.search.timing.speed import measure_speed
from pipeline.space import load_space

IMAGES = {"28x28x1": ImageSpec(28, 28, 1), "32x32x3": ImageSpec(32, 32, 3)}


def main() -> None:
    """Measure all divisions, and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    space = load_space("cnn")
    networks = {"default": space.defaults(), "wide": {**space.defaults(), "filters": 48}}
    rows = []
    for name, resources in divisions().items():
        with tempfile.TemporaryDirectory() as folder:
            engine = LocalEngine(resources, Path(folder) / "log")
            try:
                engine.start()
                engine.check()
                for image, spec in IMAGES.items():
                    for network, params in networks.items():
                        rates = [rate(engine, params, asdict(spec)) for _ in range(options.repeats)]
                        row = {"division": name, "images": image, "network": network}
                        rows.append({**row, "images_per_second": round(median(rates)), "all": [*map(round, rates)]})
                        print(json.dumps(rows[-1]), flush=True)
            finally:
                engine.stop()
    print(json.dumps({"rows": rows, "machine": describe_machine(), "versions": installed()}, indent=2))


def divisions() -> dict[str, list[Resources]]:
    """Return how the cores may be divided."""
    cores = num_cores()
    return {
        f"1 child, {cores} threads": [Resources(cores)],
        f"{cores} children, 1 thread, pinned": [Resources(1, cores=pin) for pin in core_groups(cores, 1)],
        f"{cores} children, 1 thread": [Resources(1)] * cores,
    }


def rate(engine: LocalEngine, params: dict[str, Any], image: dict[str, Any]) -> float:
    """Return the images a second of all children together, while all of them train."""
    futures = engine.probe(measure_speed, params, image, 10, None, "float32")
    return sum(1 / future.result() for future in futures)


if __name__ == "__main__":
    main()
