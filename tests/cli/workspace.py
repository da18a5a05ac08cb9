"""Running the console script as a user does: a process of its own in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.data.pictures import write_classes

TINY = """
schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 2, default: 1}
  filters: {type: choice, values: [16, 32]}
  pooling: {type: choice, values: [max, avg]}
  learning_rate: {type: float, min_value: 0.01, max_value: 0.03, sampling: log, default: 0.02}
  batch_size: {type: fixed, value: 16}
"""


def pipeline(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `pipeline ARGUMENTS` in a folder and return exit code and output."""
    return subprocess.run(command(*arguments), cwd=folder, env=env(**environment), capture_output=True, text=True)


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `pipeline ARGUMENTS` in a folder; what still runs at the end, since a check failed, is killed."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*arguments), cwd=folder, env=env(**environment), text=True, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def command(*arguments: str) -> list[str]:
    """Return the console script that lies beside this interpreter, with arguments."""
    return [str(Path(sys.executable).with_name("pipeline")), *arguments]


def env(**changes: str) -> dict[str, str]:
    """Return this process's environment without MLflow's variables, with changes."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, **changes}


def write_photos(folder: Path, count: int = 24) -> Path:
    """Write a set of three classes that brightness tells apart, and a space that trains in a moment."""
    (folder / "tiny.yaml").write_text(TINY)
    return write_classes(folder / "photos", {"dark": count, "grey": count, "light": count})
