"""The example of docs/python.md runs as it stands, and every call in its table exists."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workflows.progress import Progress
from tests.cli.workspace import env

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLE, PRINTED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.heavy
def test_the_example_searches_scores_and_predicts(tmp_path):
    (tmp_path / "example.py").write_text(EXAMPLE)
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result, scored, predicted = done.stdout.splitlines()
    uri, accuracy = result.split()
    assert uri == "models:/digits/1"
    assert 0.5 < float(accuracy) <= 1.0
    assert set(eval(scored)) <= set("0123456789")
    assert predicted.startswith("['")
    assert (tmp_path / "scores" / "_SUCCESS").exists()


def test_the_progress_of_the_page_prints_what_it_hears(capsys):
    names: dict[str, type[Progress]] = {}
    exec(PRINTED, names)
    progress = names["Printed"]()
    progress.say("  decoded 5 of 7")
    with progress.counting() as count:
        count(1, 2, 0)
    assert capsys.readouterr().out == "  decoded 5 of 7\n"


def test_every_call_of_the_table_exists():
    modules = set(re.findall(r"(\w+)\.run\(", PAGE))
    assert modules == {
        "search", "estimate", "promote", "status", "runs", "stop", "sync", "score", "check", "suspects", "doctor",
    }  # fmt: skip
    found = {name: importlib.import_module(f"pipeline.workflows.{name}") for name in modules}
    assert all(callable(module.run) for module in found.values())
    for request in set(re.findall(r"(\w+Request)\(", PAGE)) - {"SearchRequest"}:
        assert any(hasattr(module, request) for module in found.values()), request
