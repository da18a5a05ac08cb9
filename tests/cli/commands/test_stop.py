"""`pipeline stop`: a word left in a file, which the search obeys and clears away."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.cli.terminal.interruptions import Interruptions
from pipeline.errors import StoppedEarly
from pipeline.files import locked
from pipeline.search.finish import finish
from pipeline.search.health import ask_to_stop
from pipeline.search.loop import run_trials
from pipeline.states import AttemptState, TrainingKind
from pipeline.workflows import stop
from pipeline.workflows.callback import ProgressCallback
from pipeline.workflows.progress import SILENT
from pipeline.workflows.search import run_plan
from pipeline.workspace import StudyFolder, Workspace
from tests.cli.search_driver import PretendEngine, make_study
from tests.cli.workspace import pipeline

ROOT = Path(__file__).parents[3]


def run(*arguments: str):
    return CliRunner().invoke(cli, ["stop", *arguments])


def test_a_study_that_does_not_run_is_left_alone(folder):
    done = run("photos-1")
    assert (done.exit_code, "is not running" in done.stderr) == (0, True)
    assert [path.name for path in folder.iterdir()] == ["study.db"]


def test_an_unknown_study_is_said(folder):
    done = run("photos-9")
    assert (done.exit_code, "study photos-9: not found" in done.stderr) == (3, True)


def test_without_waiting_the_word_is_left(folder):
    with locked(folder / "lock", "study photos-1"):
        done = run("photos-1", "--no-wait")
    assert (done.exit_code, (folder / "stop").exists()) == (0, True)


def test_a_search_that_does_not_obey_in_time_is_named(folder, monkeypatch):
    monkeypatch.setattr(stop, "WAIT_SECONDS", 0.0)
    with locked(folder / "lock", "study photos-1"):
        done = run("photos-1")
    assert done.exit_code == 5
    assert f"process {os.getpid()} on {socket.gethostname()}" in done.stderr
    assert (folder / "stop").exists()


@pytest.mark.heavy
def test_a_running_search_stops_resumably_and_a_stale_word_does_not_stop_the_next(tmp_path):
    driver = [sys.executable, "-m", "tests.cli.search_driver", str(tmp_path), "1000"]
    folder = Workspace(tmp_path).studies / "photos-1"
    folder.mkdir(parents=True)
    (folder / "stop").touch()  # of a search that died before it saw it
    with subprocess.Popen(driver, cwd=ROOT, stderr=subprocess.PIPE, text=True) as search:
        assert "trial   0 rung 0" in search.stderr.readline()
        stopped = pipeline(tmp_path, "stop", "photos-1")
        rest = search.stderr.read()
    assert (stopped.returncode, search.returncode) == (0, 5)
    assert "study photos-1 has stopped" in stopped.stderr
    assert "stopped by `pipeline stop`" in rest
    assert not (folder / "stop").exists()
    assert pipeline(tmp_path, "status").stdout.startswith("study    photos-1: stopped")


def test_the_last_training_of_the_winner_stops_as_well(folder):
    study = make_study(folder, 1, lambda: 0.0)
    engine = PretendEngine(step_seconds=0.0)
    run_trials(study, engine, ProgressCallback(study, lambda: 0.0, Interruptions(), SILENT))
    ask_to_stop(StudyFolder(folder))
    with pytest.raises(StoppedEarly, match="stopped by `pipeline stop`"):
        finish(study, engine, ProgressCallback(study, lambda: 0.0, Interruptions(), SILENT))
    assert [attempt.state for attempt in study.store.attempts(TrainingKind.FINAL)] == [AttemptState.STOPPED]
    assert not (folder / "stop").exists()


def test_a_search_begins_by_clearing_a_word_that_was_meant_for_an_earlier_one(folder):
    (folder / "stop").touch()
    plan = SimpleNamespace(folder=StudyFolder(folder), study="photos-1", stored={"result": {}}, pick=None)
    with pytest.raises(AttributeError):  # the plan ends here, after the word is gone
        run_plan(plan)
    assert not (folder / "stop").exists()
