"""What one search reaches in its budget, the whole job from process start, with machine and versions, as one JSON line.

    python benchmarks/accuracy.py digits --budget 3m
    python benchmarks/accuracy.py fashion-mnist --budget 10m --seed 1
    python benchmarks/accuracy.py photos/ --budget 10m

The arguments are those of `pipeline search`; it runs in a folder of its own, which is deleted.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ("tensorflow-cpu", "tensorflow", "jax", "keras", "keras-tuner", "mlflow", "numpy")


def main(arguments: list[str]) -> None:
    """Run one search and print what it cost and reached."""
    data = arguments[0]
    if Path(data).exists():
        arguments = [str(Path(data).absolute()), *arguments[1:]]
    script = str(Path(sys.executable).with_name("pipeline"))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        done = subprocess.run([script, "search", *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, check=True)
        seconds = time.monotonic() - started
    facts = json.loads(done.stdout)
    print(
        json.dumps(
            {
                "command": ["pipeline", "search", data, *arguments[1:]],
                "test": facts["test"],
                "val_accuracy": facts["winner"]["val_accuracy"],
                "winner": facts["winner"],
                "trials": facts["trials"],
                "wall_seconds": round(seconds, 1),
                "machine": describe_machine(),
                "versions": installed(),
            }
        )
    )


def describe_machine() -> dict[str, object]:
    """Return processor, cores and Python."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def installed() -> dict[str, str]:
    """Return the versions of what a search depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
