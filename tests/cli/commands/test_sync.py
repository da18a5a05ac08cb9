"""`pipeline sync`: what it sends, what it says and with which code it ends."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli
from pipeline.files import locked
from pipeline.records import TrialRow
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import open_study
from pipeline.tracking.store import open_client
from pipeline.workspace import Workspace
from tests.tracking.fakes import study_facts, tiny_bundle

FACTS: dict[str, Any] = {
    "winner": {"trial": 0, "params": {}, "val_accuracy": 0.5, "num_params": 9, "mflops": 1.0, "epochs": 3},
    "test": {"accuracy": 0.75, "ci95": [0.5, 0.9], "num_images": 20},
    "objective": "val_accuracy",
    "trials": {"completed": 1},
    "seconds": 9.0,
}


pytestmark = pytest.mark.usefixtures("workspace")


def sync(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sync", *arguments])


def make_study(workspace: Path, name: str) -> StudyStore:
    """Create a study of two trials, of which one failed."""
    folder = Workspace(workspace).studies / name
    folder.mkdir(parents=True)
    store = StudyStore(folder / "study.db")
    store.create(study_facts(name, "photos"))
    rows = [TrialRow(number, "PLANNED", None, {"depth": 1}, 9, 1.0, 0.0, "", 0, 0) for number in range(2)]
    for row in rows:
        store.add_trial(row)
    store.put_trial(replace(rows[0], state="FAILED"))
    store.save()
    return store


def finish_study(store: StudyStore, bundle: Path, **test: Any) -> None:
    """Give a study the model and the result that a search leaves when MLflow does not answer."""
    folder = store.path.parent / "model"
    shutil.copytree(bundle, folder)
    study = store.get("study")
    found = {**FACTS, "test": {**FACTS["test"], **test}}
    store.put("result", {**found, "study": study, "run_id": None, "model_uri": str(folder)})


def test_without_any_study_it_says_how_to_begin(workspace: Path) -> None:
    result = sync()
    assert result.exit_code == 3
    assert "start one with: pipeline search digits" in result.stderr


def test_unknown_study_is_an_error_that_creates_nothing(workspace: Path) -> None:
    result = sync("photos-9")
    assert result.exit_code == 3
    assert "study photos-9: not found" in result.stderr
    assert list(workspace.iterdir()) == []


@pytest.mark.heavy
def test_study_of_a_live_search_is_left_to_it(workspace: Path) -> None:
    store = make_study(workspace, "photos-1")
    with locked(store.path.with_name("lock"), "study photos-1"):
        result = sync("photos-1")
        assert result.exit_code == 5
        assert "study photos-1: a search is running on it, and sends its results to MLflow itself" in result.stderr
    assert not (workspace / "mlflow.db").exists()


@pytest.mark.heavy
def test_server_that_does_not_answer_ends_with_7_and_loses_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_study(workspace, "photos-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = sync("--json")
    assert result.exit_code == 7
    assert json.loads(result.stdout)["studies"][0]["status"] == "failed"
    assert "http://127.0.0.1:9: no answer" in result.stderr
    assert len(store.unsent()) == 1


@pytest.mark.heavy
def test_killed_study_is_sent_once_and_its_runs_end(workspace: Path) -> None:
    store = make_study(workspace, "photos-1")
    result = sync()
    assert result.exit_code == 0, result.output
    assert result.stdout == "photos-1: sent 1 trial(s)\n"
    client = open_client(workspace)
    experiment = client.get_experiment_by_name("photos")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("photos-1", "KILLED"),
        ("t000 d1 failed", "FAILED"),
    ]
    assert store.unsent() == []
    assert sync().stdout == "photos-1: MLflow has everything\n"
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.heavy
def test_model_of_a_finished_study_is_registered_once(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "photos-1")
    store = make_study(workspace, "photos-1")
    finish_study(store, bundle)
    result = sync("photos-1", "--json")
    assert result.exit_code == 0, result.output
    (facts,) = json.loads(result.stdout)["studies"]
    assert facts == {
        "study": "photos-1",
        "status": "sent",
        "trials_sent": 1,
        "run_id": facts["run_id"],
        "model_uri": "models:/photos/1",
        "is_registered": True,
    }
    kept = open_study(workspace, "photos-1").get("result")
    assert (kept["run_id"], kept["model_uri"]) == (facts["run_id"], "models:/photos/1")
    client = open_client(workspace)
    run = client.get_run(facts["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == 0.75
    assert str(client.get_model_version_by_alias("photos", "champion").version) == "1"
    store.put("result", {**kept, "run_id": None})  # killed before the result was kept
    assert sync("photos-1").stdout == "photos-1: sent 0 trial(s), registered models:/photos/1\n"
    assert len(client.search_model_versions("name = 'photos'")) == 1


@pytest.mark.heavy
def test_model_that_does_not_beat_the_largest_class_is_marked_and_not_the_champion(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from mlflow.exceptions import MlflowException

    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "photos-1")
    store = make_study(workspace, "photos-1")
    majority = {
        "class": 0, "metric": "accuracy", "value": 0.7, "gain": 0.05, "standard_error": 0.1, "is_beaten": False,
    }  # fmt: skip
    rare = {"value": 0.9, "ci95": None, "reason": "found at most 3"}
    metrics = {"loss": {"value": 0.6, "ci95": [0.4, 0.8]}, "auc": rare}
    finish_study(store, bundle, majority=majority, metrics=metrics)
    assert sync("photos-1").exit_code == 0
    kept = open_study(workspace, "photos-1").get("result")
    assert (kept["model_uri"], kept["is_champion"]) == ("models:/photos/1", False)
    client = open_client(workspace)
    with pytest.raises(MlflowException, match="champion"):
        client.get_model_version_by_alias("photos", "champion")
    run, version = client.get_run(kept["run_id"]), client.get_model_version("photos", "1")
    for tags in (run.data.tags, version.tags):
        assert tags["pipeline.beats_majority"] == "false"
        assert "is no better than a blind answer (" in tags["pipeline.flaw"]
    figures = {"test/majority_accuracy": 0.7, "test/loss": 0.6, "test/loss_ci95_low": 0.4, "test/loss_ci95_high": 0.8}
    assert {**figures, "test/auc": 0.9}.items() <= run.data.metrics.items()
    assert "test/auc_ci95_low" not in run.data.metrics
