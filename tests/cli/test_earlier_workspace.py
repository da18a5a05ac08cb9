"""A workspace of an earlier version as it was found on a disk: a finished study, and two that were killed."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.cli.workspace import pipeline
from tests.scoring.colours import parts_table

pytestmark = pytest.mark.heavy

EARLIER = Path(__file__).parent.parent / "fixtures" / "workspace-0.1.tar.gz"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run(workspace, *arguments):
    done = pipeline(workspace, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_its_studies_are_shown(workspace):
    assert "study photos-1: 3 trial(s) on photos" in run(workspace, "runs", "photos-1").stdout
    assert "test accuracy 83.33%" in run(workspace, "runs", "photos-1").stdout
    assert run(workspace, "status", "photos-1").stdout.startswith("study    photos-1: finished")
    assert run(workspace, "status", "photos-2").stdout.startswith("study    photos-2: stopped")


def test_its_model_labels_images(workspace):
    run(workspace, "score", "mlruns/studies/photos-1/model", "photos", "-o", "scores")
    rows = parts_table(workspace / "scores")
    assert len(rows) == 36
    assert (rows.label == [Path(path).parent.name for path in rows.path]).mean() > 0.6


def test_a_trial_of_its_finished_study_is_promoted(workspace):
    facts = json.loads(run(workspace, "promote", "photos-1", "--pick", "1", "--json").stdout)
    assert (facts["winner"]["trial"], facts["test_opened"]) == (1, 2)
    reason = "its predictions are missing, or from an earlier version, which did not note their images"
    assert facts["search_gain"]["reason"] == f"the reference network cannot be compared: {reason}"
    assert facts["temperature"]["reason"].endswith(
        "t00001.npz cannot be used: it does not say which images it belongs to"
    )
    assert facts["model_uri"] == "models:/photos/1"


@pytest.mark.parametrize("name", ["photos-2", "photos-3"], ids=["one split", "folds"])
def test_its_stopped_studies_go_on(workspace, name):
    done = run(workspace, "search", "photos", "--name", name, "--resume", "--json")
    facts = json.loads(done.stdout)
    assert "resumed with 3 trial(s)" in done.stderr
    assert facts["trials"]["completed"] == 4
    assert facts["test"]["num_images"] == 6
