"""What it costs a search that MLflow does not answer, against the local store; bar: 2 %.

    python benchmarks/mlflow_down.py --runs 5

The digits are searched in the space tiny by turns: with the store of the workspace, and with a tracking server that
refuses every connection. One turn that warms the file cache is not counted. Printed are, as JSON, the seconds of each
search from process start until its winner is tested and its trials are sent or given up (the registration of the model,
which only one of the two can do, comes after), their medians, and their ratio; exit 1 if it is over the bar. What is
missing in MLflow after an outage is sent by `pipeline sync`, whose seconds are given too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accuracy import describe_machine, installed

BAR = 1.02
PIPELINE = str(Path(sys.executable).with_name("pipeline"))
DEAD = "http://127.0.0.1:9"  # the port discard, where nothing listens


def main() -> None:
    """Take turns, print the medians, and exit 1 if the ratio is over the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=4)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"local": [], "dead": [], "sync": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs + 1):
            name, search = f"d{number}", ["search", "digits", "--space", "tiny", "--trials", str(options.trials)]
            found["local"].append(run(folder, [*search, "--name", f"l{number}", "--json"])[0])
            found["dead"].append(run(folder, [*search, "--name", name, "--json"], MLFLOW_TRACKING_URI=DEAD)[0])
            found["sync"].append(run(folder, ["sync", name])[1])
            print({key: times[-1] for key, times in found.items()}, file=sys.stderr)
    medians = {key: round(statistics.median(times[1:]), 2) for key, times in found.items()}
    ratio = round(medians["dead"] / medians["local"], 3)
    facts = {"n": options.runs, "trials": options.trials, "median_seconds": medians, "ratio": ratio, "bar": BAR}
    runs = {key: times[1:] for key, times in found.items()}
    print(json.dumps({**facts, "seconds": runs, "machine": describe_machine(), "versions": installed()}, indent=2))
    if ratio > BAR:
        sys.exit(f"over {BAR} times the local store: {ratio}")


def run(folder: str, arguments: list[str], **environment: str) -> tuple[float, float]:
    """Return the seconds that a search says it took (0 for another command), and those of the whole command."""
    started = time.monotonic()
    done = subprocess.run(
        [PIPELINE, *arguments], cwd=folder, env={**os.environ, **environment}, check=True, capture_output=True
    )
    whole = round(time.monotonic() - started, 2)
    return (json.loads(done.stdout)["seconds"] if "--json" in arguments else 0.0), whole


if __name__ == "__main__":
    main()
