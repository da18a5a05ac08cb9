"""The console script: instant help, no heavy imports, examples, completion."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.cli.main import COMMANDS, cli
from pipeline.cli.terminal.output import table
from pipeline.text import format_seconds, printable
from tests.cli.workspace import command

HEAVY = {"tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "pyarrow", "optuna"}
GROUPS = {"spaces": ("list", "show", "check"), "data": ("list", "check", "suspects")}
HELPS = [[], *([name] for name in COMMANDS), *([group, name] for group, names in GROUPS.items() for name in names)]
CODE = """
import io, json, sys
from contextlib import redirect_stdout
from pipeline.cli.main import cli
found = []
for arguments in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out:
        code = cli([*arguments, "--help"], prog_name="pipeline", standalone_mode=False)
    found.append([code, out.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(found))
"""


@pytest.mark.heavy
def test_every_help_has_an_example_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(HELPS)], capture_output=True, text=True, check=True)
    for arguments, (code, text, modules) in zip(HELPS, json.loads(done.stdout), strict=True):
        assert (code, "Example" in text, HEAVY.intersection(modules)) == (0, True, set()), arguments


def test_every_command_shown_exists_and_has_the_shared_options():
    context = cli.make_context("pipeline", [], resilient_parsing=True)
    for name in COMMANDS:
        found = cli.get_command(context, name)
        assert found.name == name
        if name not in GROUPS:
            flags = {flag for option in found.params for flag in option.opts}
            assert {"--verbose", "--quiet"} <= flags


@pytest.mark.heavy
def test_python_does_not_look_through_all_objects_when_a_command_ends():
    show = "atexit.register(lambda: print(gc.get_freeze_count()))"
    code = f"import atexit, gc, pipeline.cli.main as it; {show}; it.main()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True)
    assert int(done.stdout.split()[-1]) > 1000


@pytest.mark.heavy
def test_completion_completes_commands_and_options(tmp_path):
    def complete(words, index):
        environment = {**os.environ, "_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": index}
        return subprocess.run(command(), env=environment, capture_output=True, text=True).stdout

    assert complete("pipeline se", "1") == "plain,search\n"
    assert "plain,--budget\n" in complete("pipeline search --b", "2")
    assert complete("pipeline search d --oracle gr", "4") == "plain,grid\n"


@pytest.mark.heavy
def test_an_unknown_command_is_usage():
    done = subprocess.run(command("serch"), capture_output=True, text=True)
    assert (done.returncode, "No such command 'serch'" in done.stderr) == (2, True)


def test_hostile_text_is_made_visible():
    assert printable("a\x1b[31mb\udcff\u202e") == "a\\x1b[31mb\\udcff\\u202e"


def test_numbers_are_aligned_to_the_right():
    assert table(("name", "n"), [("a", "1,000"), ("bb", "7")]).splitlines() == [
        "name      n",
        "a     1,000",
        "bb        7",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42s"), (185, "3m05s"), (7800, "2h10m")])
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_windows_itself_is_told_about_wsl2_although_it_has_no_fcntl():
    script = (
        "import sys; sys.modules['fcntl'] = None; import pipeline.cli.main as main; sys.platform = 'win32'; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "pipeline: Windows is supported through WSL2 only; install it with `wsl --install`, then install pipeline in "
        "it\n"
    )
