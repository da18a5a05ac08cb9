"""The examples of docs/data.md run, in their order, in one empty folder, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.workspace import pipeline

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.heavy
def test_the_examples_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    names: dict[str, object] = {}
    commands = []
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, names)
            continue
        for line in text.splitlines():
            commands.append(line.removeprefix("$ "))
            done = pipeline(tmp_path, *shlex.split(commands[-1])[1:])
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
    assert len(commands) >= 12
    assert {"photos.html", "fixed.csv", "suspects.html"} <= {path.name for path in tmp_path.iterdir()}
    fixed = (tmp_path / "fixed.csv").read_text()
    assert "copy.png" not in fixed or fixed.count("messy/3/") == len(list((tmp_path / "photos/3").glob("*.png")))
    assert "cut.png" not in fixed
