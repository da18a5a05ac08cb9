"""How soon the first trial of a search trains, beside what `import tensorflow` alone takes; bar: twice as long.

    python benchmarks/first_trial.py DATA --runs 7

Both are processes of their own that take turns, after one turn that is not counted: it warms the file cache, and it
decodes DATA in the folder where all searches run. A search is killed as soon as its first trial has trained a step.
Printed are, as JSON, the median seconds from the start of the process

- import_tensorflow: to the end of `python -c "import tensorflow"`
- fit:               until a trial has fetched its first batch; then Keras traces the step
- first_step:        until a trial has trained its first step

and `ratio`, first_step over import_tensorflow; exit 1 if it is over the bar.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accuracy import describe_machine, installed

from pipeline.heartbeat import read_beat

BAR = 2.0
PIPELINE = str(Path(sys.executable).with_name("pipeline"))
# Keras looks at two batches before it traces; from then on it fetches one ahead of the step that it is at.
FETCHED = {"fit": 1, "first_step": 3}
POLL_SECONDS = 0.01
LONGEST_SECONDS = 120.0


def main() -> None:
    """Take turns, print the medians, and exit 1 if the ratio is over the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, each import compiles TensorFlow anew
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs + 1):
            load = os.getloadavg()[0]
            runs.append({"import_tensorflow": seconds_to_import(), **seconds_to_train(folder, options.data, number)})
            print(f"{runs[-1]}, load average {load:.1f}", file=sys.stderr)
    medians = {name: round(statistics.median(run[name] for run in runs[1:]), 2) for name in runs[0]}
    ratio = round(medians["first_step"] / medians["import_tensorflow"], 2)
    facts = {"data": options.data, "n": options.runs, "median_seconds": medians, "ratio": ratio, "bar": BAR}
    print(json.dumps({**facts, "runs": runs[1:], "machine": describe_machine(), "versions": installed()}, indent=2))
    if ratio > BAR:
        sys.exit(f"over {BAR} times `import tensorflow`: {ratio}")


def seconds_to_import() -> float:
    """Return the seconds of a process that imports TensorFlow and does nothing else."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


def seconds_to_train(folder: str, data: str, number: int) -> dict[str, float]:
    """Return the seconds after which a trial of a new search had fetched as many batches as FETCHED says."""
    found: dict[str, float] = {}
    search = [PIPELINE, "search", data, "--budget", "3m", "--name", f"s{number}", "--allow-leak"]
    started = time.monotonic()
    process = subprocess.Popen(
        search, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while len(found) < len(FETCHED):
            time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - started
            if process.poll() is not None or seconds > LONGEST_SECONDS:
                sys.exit(f"no trial trained within {seconds:.0f} s; see what is wrong with: {' '.join(search)}")
            num_fetched = most_fetched(Path(folder) / "mlruns" / "studies" / f"s{number}" / "pulses")
            found |= {
                name: round(seconds, 2) for name, least in FETCHED.items() if num_fetched >= least and name not in found
            }
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return found


def most_fetched(folder: Path) -> int:
    """Return how many batches that trial of a study has fetched which is ahead of the others; 0 before there is one."""
    stored = [read_beat(path) for path in folder.glob("*")]
    return max((each.beat.batch for each in stored if each is not None), default=0)


if __name__ == "__main__":
    main()
