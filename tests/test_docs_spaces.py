"""The examples of docs/spaces.md run, in their order, in one empty folder, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.workspace import pipeline

PAGE = (Path(__file__).parent.parent / "docs" / "spaces.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.heavy
def test_the_examples_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, names)
            continue
        for line in text.splitlines():
            done = pipeline(tmp_path, *shlex.split(line.removeprefix("$ "))[1:])
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            printed[line.removeprefix("$ pipeline ")] = done.stdout
    assert len(printed) == 10
    checked = printed["spaces check my_models.py:SmallNet my_models.py:compiled"]
    assert checked == "my_models.py:SmallNet: ok, 5 hyperparameters\nmy_models.py:compiled: ok, 2 hyperparameters\n"
    rows = [line.split() for line in printed["spaces show my_models.py:SmallNet"].splitlines()]
    assert ["kernel_1", "choice", "3,", "5", "3", "blocks", "=", "2"] in rows
