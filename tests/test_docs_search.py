"""The examples of docs/search.md run, in their order, in one empty folder, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.workspace import pipeline

PAGE = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.heavy
def test_the_examples_run_in_their_order(tmp_path):
    printed = {}
    for line in COMMANDS:
        done = pipeline(tmp_path, *shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        printed[line] = done
    assert len(printed) == 11
    assert "study first is finished already" in printed["pipeline search --resume --name first"].stderr
    fork = printed["pipeline search digits --name first --fork second --seed 1 --trials 7"].stderr
    assert "forked from first: 5 finished trial(s) taken over" in fork
    limited = printed["pipeline search digits --space tiny --trials 3 --epochs 3 --name limited --max-params 9000"]
    (params,) = re.findall(r"val_accuracy .*, ([\d,]+) params", limited.stdout)
    assert int(params.replace(",", "")) <= 9000
    assert "opened 3 times" in printed["pipeline promote small --pick 0"].stdout
