"""What a search of many real trials does to the memory of its processes.

    python benchmarks/trial_memory.py --trials 200

The digits are searched in the space tiny, one short training a trial. The memory that is the search's own and that of
its children (RssAnon of /proc/PID/status, MB) is read twice a second. Printed are, for parent and children, the medians
of ten equal parts of the time in which trials ran.
"""

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from accuracy import describe_machine, installed

PIPELINE = str(Path(sys.executable).with_name("pipeline"))


def main() -> None:
    """Search, read the memory meanwhile, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--oracle", default="asha")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["digits", "--space", "tiny", "--trials", str(options.trials), "--epochs", "6", "--name", "m"]
        started = time.monotonic()
        process = subprocess.Popen(
            [PIPELINE, "search", *arguments, "--oracle", options.oracle], cwd=folder, stderr=subprocess.DEVNULL
        )
        samples: list[tuple[float, list[float]]] = []
        while process.poll() is None:
            ended = count_ended(Path(folder) / "mlruns" / "studies" / "m" / "study.db")
            if 4 <= ended < options.trials:
                samples.append((anonymous_mb(process.pid), sorted(map(anonymous_mb, children(process.pid)))))
            time.sleep(0.5)
    parts = [samples[i * len(samples) // 10 : (i + 1) * len(samples) // 10] for i in range(10)]
    figures = {
        "trials": options.trials,
        "oracle": options.oracle,
        "seconds": round(time.monotonic() - started),
        "parent_mb": [round(median(parent for parent, _ in part)) for part in parts],
        "largest_child_mb": [round(median(own[-1] for _, own in part if own)) for part in parts],
        "machine": describe_machine(),
        "versions": installed(),
    }
    print(json.dumps(figures, indent=2))


def count_ended(path: Path) -> int:
    """Return how many attempts of a study have ended."""
    with contextlib.suppress(sqlite3.OperationalError):
        if path.exists():
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                return int(connection.execute("SELECT COUNT(DISTINCT trial) FROM attempt").fetchone()[0])
    return 0


def anonymous_mb(pid: int) -> float:
    """Return the memory that is a process's own; 0 if it is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6
    return 0.0


def children(parent: int) -> list[int]:
    """Return the child processes that train."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields: list[Any] = path.read_text().rpartition(")")[2].split()
            if fields[1] == str(parent) and b"spawn_main" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main()
