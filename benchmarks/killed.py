"""A real search that is killed again and again: it must end with all of its trials, each once.

    python benchmarks/killed.py DATA --trials 8 --epochs 1 --kills 10

A search of DATA is started in a fresh folder, its whole process group is killed (SIGKILL) after a random time, and the
same command with --resume goes on, until it was killed often enough; then it runs to its end. Printed are, as JSON, the
number of trials, how many epochs were trained twice, and the test accuracy.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from accuracy import describe_machine, installed

PIPELINE = str(Path(sys.executable).with_name("pipeline"))


def main() -> None:
    """Search, kill, resume, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, nargs=2, default=(20.0, 60.0), help="shortest and longest life")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        search = [
            "search",
            options.data,
            "--trials",
            str(options.trials),
            "--epochs",
            str(options.epochs),
            "--name",
            "k",
            "--allow-leak",
        ]
        lives = []
        while len(lives) < options.kills:
            lives.append(live(folder, search, rng.uniform(*options.seconds)))
            if lives[-1]["is_done"]:
                break
        done = subprocess.run([PIPELINE, *search, "--json"], cwd=folder, capture_output=True, text=True, check=True)
        facts = json.loads(done.stdout)
        figures = {
            "data": options.data,
            "kills": sum(not life["is_done"] for life in lives),
            "trials_wanted": options.trials,
            "trials": facts["trials"],
            "test": facts["test"],
            **count(Path(folder) / "mlruns" / "studies" / "k" / "study.db"),
            "seconds": round(time.monotonic() - started),
            "lives": lives,
            "machine": describe_machine(),
            "versions": installed(),
        }
    print(json.dumps(figures, indent=2))


def live(folder: str, search: list[str], seconds: float) -> dict[str, Any]:
    """Run the search for some seconds and kill it with all of its children."""
    process = subprocess.Popen(
        [PIPELINE, *search], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return {"seconds": round(seconds, 1), "is_done": False}
    return {"seconds": round(seconds, 1), "is_done": True}


def count(path: Path) -> dict[str, int]:
    """Return how many trials, finished rungs and epochs the study holds, and how many epochs were trained again."""
    with sqlite3.connect(path) as connection:
        (trials,) = connection.execute("SELECT COUNT(*) FROM trial WHERE number >= 0").fetchone()
        (rungs,) = connection.execute("SELECT COUNT(*) FROM attempt WHERE state = 'DONE' AND trial >= 0").fetchone()
        (twice,) = connection.execute(
            "SELECT COUNT(*) FROM (SELECT 1 FROM attempt WHERE state = 'DONE' GROUP BY trial, rung HAVING COUNT(*) > 1)"
        ).fetchone()
        (stopped,) = connection.execute("SELECT COUNT(*) FROM attempt WHERE state = 'STOPPED'").fetchone()
    return {"num_trials": trials, "num_rungs": rungs, "rungs_done_twice": twice, "interrupted_attempts": stopped}


if __name__ == "__main__":
    main()
