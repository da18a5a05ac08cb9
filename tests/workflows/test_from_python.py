"""Workflows are called from Python: no click, nothing printed, records in and out."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.workflows
from pipeline.errors import DataError, InvalidUsage, SpaceError
from pipeline.files import locked
from pipeline.search.options import SearchOptions
from pipeline.states import TrialState
from pipeline.workflows import check, promote, runs, score, spaces, status, stop, sync
from pipeline.workflows.plan import SearchRequest
from pipeline.workspace import Workspace
from tests.data.pictures import write_classes
from tests.search.test_snapshot import add_trial, make_store
from tests.workflows.listeners import Heard

MODULES = sorted(Path(pipeline.workflows.__file__).parent.glob("*.py"))
HEAVY = {"tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "pyarrow", "optuna", "sklearn"}
CODE = """
import importlib, json, sys
import pipeline.workflows
alone = sorted(sys.modules)
for name in json.loads(sys.argv[1]):
    importlib.import_module(f"pipeline.workflows.{name}")
print(json.dumps([alone, sorted(sys.modules)]))
"""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_workflow_knows_click_or_prints(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in imported if name.split(".")[0] in ("click", "rich") or name.startswith("pipeline.cli")}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in called


@pytest.mark.heavy
def test_importing_workflows_loads_nothing_heavy_and_no_click():
    names = [path.stem for path in MODULES if path.stem != "__init__"]
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(names)], capture_output=True, text=True, check=True)
    alone, everything = map(set, json.loads(done.stdout))
    assert not alone & {*HEAVY, "numpy", "click", "rich"}
    assert not everything & {*HEAVY, "click", "rich"}


@pytest.fixture
def workspace(environment, tmp_path):
    """A workspace with one study of two trials."""
    with make_store(tmp_path) as store:
        add_trial(store, 0, TrialState.COMPLETED, 0.75)
        add_trial(store, 1, TrialState.FAILED, reason="nan")
    return tmp_path


def test_the_leaderboard_is_a_record(workspace):
    board = runs.run(workspace=workspace)
    assert [(row.number, row.score) for row in board.rows] == [(0, 0.75), (1, None)]
    assert (board.spec.study, board.result, board.others, board.is_running) == ("photos-1", None, (), False)
    assert [row["is_on_front"] for row in board.to_json()] == [False, False]


def test_the_status_is_a_record(workspace):
    snapshot = status.run(workspace=workspace)
    assert (snapshot.study, snapshot.state, snapshot.trials["failed"]) == ("photos-1", "stopped", 1)
    assert status.snapshot_json(snapshot)["best"]["score"] == 0.75


def test_a_workspace_without_studies_says_how_to_begin(environment, tmp_path):
    for call in (runs.run, status.run, sync.run):
        with pytest.raises(DataError, match="no studies here; change to a folder in which `pipeline search` ran"):
            call(workspace=tmp_path)


def test_a_study_is_asked_to_stop_or_does_not_run(workspace, monkeypatch):
    heard = Heard()
    request = stop.StopRequest("photos-1", waits=False, workspace=workspace)
    assert stop.run(request, heard) == stop.StopState.NOT_RUNNING
    folder = Workspace(workspace).study("photos-1")
    with locked(folder.lock, "study photos-1"):
        assert stop.run(request, heard) == stop.StopState.ASKED
        assert folder.stop_file.exists()
    assert heard.lines == []


@pytest.mark.parametrize(
    ("study", "pick", "message"),
    [("photos-9", "0", "study photos-9 not found"), ("photos-1", "1", "--pick 1: no trial")],
)
def test_a_promotion_is_refused_before_images_are_opened(workspace, study, pick, message):
    with pytest.raises(InvalidUsage, match=message):
        promote.run(promote.PromoteRequest(study, pick, workspace))


@pytest.mark.heavy
def test_images_are_checked_and_cleaned(environment, tmp_path):
    write_classes(tmp_path / "photos", {"dark": 12, "light": 12})
    heard, table = Heard(), tmp_path / "clean.csv"
    found = check.run(check.CheckRequest(str(tmp_path / "photos"), fix=table, workspace=tmp_path), heard)
    assert not found.is_refused
    assert heard.lines == [f"{tmp_path}/photos: 24 labelled files, 2 classes"]
    assert len(found.kept.rows) == len(table.read_text().splitlines()) - 1
    assert found.to_json()["fix"]["manifest"] == str(table)


def test_a_check_refuses_an_output_that_would_replace_the_data(tmp_path):
    data = tmp_path / "photos.csv"
    data.touch()
    with pytest.raises(InvalidUsage, match="this is DATA itself"):
        check.run(check.CheckRequest(str(data), fix=data, workspace=tmp_path))


def test_scoring_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files found; give at least one image"):
        score.run(score.ScoreRequest("champion", (str(tmp_path / "empty"),), tmp_path / "out", workspace=tmp_path))


def test_spaces_are_checked_and_copied(tmp_path):
    assert spaces.check_space("cnn").ok
    assert not spaces.check_space("./none.yaml").ok
    spaces.copy_space("tiny", tmp_path / "my.yaml")
    assert spaces.check_space(str(tmp_path / "my.yaml")).params == spaces.check_space("tiny").params
    with pytest.raises(SpaceError, match="already exists"):
        spaces.copy_space("tiny", tmp_path / "my.yaml")


def test_a_study_that_is_resumed_takes_the_options_that_differ_from_their_defaults():
    request = SearchRequest(SearchOptions("", budget=60.0, distill=True), name="photos-1", resume=True)
    assert list(request.given_names) == ["budget", "distill"]
    assert request.data is None
    assert list(SearchRequest(SearchOptions(""), given=("seed",)).given_names) == ["seed"]
