"""The documentation cannot rot: its commands run, its options exist, its promises are named."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.cli.main import COMMANDS, cli
from pipeline.space import KNOWN_PARAMS, builtin_spaces
from pipeline.states import FINAL_STATES
from tests.cli.workspace import pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
TOUR = re.findall(
    r"^\$ (pipeline .*)$", "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)


@pytest.mark.heavy
def test_the_tour_of_the_readme_runs_in_an_empty_folder(tmp_path):
    assert len(TOUR) >= 8
    for line in TOUR:
        done = pipeline(tmp_path, *shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "scores" / "_SUCCESS").exists()
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 600


def test_every_command_and_option_is_in_the_reference():
    context = cli.make_context("pipeline", [], resilient_parsing=True)
    for name in COMMANDS:
        assert f"## pipeline {name}\n" in REFERENCE
        for option in cli.get_command(context, name).params:
            for flag in option.opts:
                if flag.startswith("--"):
                    assert flag in REFERENCE, f"{name} {flag}"


def test_every_exit_code_is_in_the_reference():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipelineError)
    ]
    codes = {kind.exit_code for kind in kinds} | {130, 143}
    for code in codes:
        assert re.search(rf"^\| (\d+, )?{code}(, \d+)? \|", REFERENCE, re.MULTILINE), code


def test_every_state_and_error_class_is_documented():
    for state in FINAL_STATES:
        assert state in ARCHITECTURE
    for name, kind in vars(errors).items():
        if isinstance(kind, type):
            assert kind.__doc__, name


def test_every_hyperparameter_is_explained_in_a_space():
    text = "".join((ROOT / "search_spaces" / f"{name}.yaml").read_text(encoding="utf-8") for name in builtin_spaces())
    for name in KNOWN_PARAMS:
        assert re.search(rf"^  {name}:", text, re.MULTILINE), name


def test_links_of_the_documentation_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "data/README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
