"""How long `pipeline --help` and every `pipeline COMMAND --help` take, beside a bare interpreter; bar: 0.3 s once warm.

python benchmarks/help_time.py
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pipeline.cli.main import COMMANDS

BAR_SECONDS = 0.3
NUM_RUNS = 7


def median_seconds(command: list[str]) -> float:
    """Return the median wall time of a command over NUM_RUNS runs after one to warm up."""
    times = []
    for _ in range(NUM_RUNS + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print a table and a JSON line; exit 1 if a help takes longer than the bar."""
    script = str(Path(sys.executable).with_name("pipeline"))
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "pipeline --help": [script, "--help"]}
    commands |= {f"pipeline {name} --help": [script, name, "--help"] for name in COMMANDS}
    seconds = {name: median_seconds(command) for name, command in commands.items()}
    for name, value in seconds.items():
        print(f"{name:<24} {value:.3f} s")
    print(json.dumps({"machine": platform.processor() or platform.machine(), "n": NUM_RUNS, "median_seconds": seconds}))
    slow = [name for name, value in seconds.items() if value > BAR_SECONDS]
    if slow:
        sys.exit(f"over {BAR_SECONDS} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
