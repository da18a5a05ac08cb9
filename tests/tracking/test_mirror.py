"""The mirror of a study in a real store: what it shows, and that a replay repeats nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrackingError
from pipeline.study_view import PARENT, MirrorMark
from pipeline.tracking.mirror import MlflowMirror
from pipeline.tracking.registry import close_stale_runs
from pipeline.tracking.store import open_client
from tests.tracking.fakes import FakeView, Killed, epochs, small_study, snapshot, study_facts, trial

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests of the module; each uses a data set of its own."""
    return tmp_path_factory.mktemp("workspace")


def view_of(name: str, study: FakeView | None = None) -> FakeView:
    view = study or small_study()
    view.fact_dict = study_facts(f"{name}-study", name)
    return view


def shown(workspace: Path, mirror: MlflowMirror) -> dict[str, Any]:
    return snapshot(open_client(workspace), str(mirror.experiment_id))


def test_constructor_has_no_effect(tmp_path: Path) -> None:
    mirror = MlflowMirror(small_study(), tmp_path)
    assert mirror.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_every_state_is_shown_as_the_status_of_a_run(workspace: Path) -> None:
    mirror = MlflowMirror(view_of("states"), workspace)
    mirror.push()
    runs = shown(workspace, mirror)
    assert {name: run[0] for name, run in runs.items()} == {
        "states-study": "RUNNING",
        "t000 d3 f64 max 0.912": "FINISHED",
        "t001 d3 f64 max infeasible": "FAILED",
        "t002": "RUNNING",
        "t003 d3 f64 max 0.500": "FINISHED",
    }
    _, params, points = runs["t000 d3 f64 max 0.912"]
    assert params == {"depth": "3", "filters": "64", "pooling": "max", "dropout": "-"}
    assert points["val_loss"] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
    assert points["best_val_accuracy"] == [(0, 0.912)]
    assert points["val_auc"] == [(1, 0.8), (2, 0.8), (3, 0.8)]
    assert points["model/params"] == [(0, 1234.0)]
    assert points["model/size_mb"] == [(0, 0.004936)]
    assert (points["rung"], points["samples"]) == ([(0, 0.0)], [(0, 60.0)])
    assert points["epoch_seconds"] == [(1, 3.0), (2, 3.0), (3, 3.0)]
    parent = open_client(workspace).get_run(str(mirror.run_id))
    assert parent.data.params["image"] == "8x8x3"
    assert parent.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    assert parent.data.metrics["best_val_accuracy"] == 0.912


def test_reason_and_state_are_tags(workspace: Path) -> None:
    mirror = MlflowMirror(view_of("tags"), workspace)
    mirror.push()
    client = open_client(workspace)
    (run,) = client.search_runs([str(mirror.experiment_id)], "tags.`trial.number` = '1'")
    assert run.data.tags["trial.reason"] == "out of memory at batch 512"
    assert run.data.tags["trial.state"] == "INFEASIBLE"
    assert run.data.tags["mlflow.parentRunId"] == mirror.run_id


def test_curves_grow_from_push_to_push_and_never_hold_nan(workspace: Path) -> None:
    view = view_of("grow")
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    row = replace(epochs(4)[3], val_loss=math.nan, loss=math.inf)
    view.epoch_rows[2] = [*epochs(3), row]
    mirror.push()
    points = shown(workspace, mirror)["t002"][2]
    assert [step for step, _ in points["val_loss"]] == [1, 2, 3]
    assert [step for step, _ in points["loss"]] == [1, 2, 3]
    assert [step for step, _ in points["val_accuracy"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("keeps_last_mark", [True, False])
def test_kill_at_any_mark_repeats_no_run_and_no_metric(keeps_last_mark: bool, workspace: Path) -> None:
    whole = MlflowMirror(view_of(f"whole-{keeps_last_mark}"), workspace)
    whole.push()
    expected = shown(workspace, whole)
    parent = expected.pop(f"whole-{keeps_last_mark}-study")
    view = view_of(f"killed-{keeps_last_mark}")
    view.keeps_last_mark = keeps_last_mark
    num_kills = 0
    for _ in range(40):  # each process gets further by one mark
        view.lives = 1 if keeps_last_mark else 2
        mirror = MlflowMirror(view, workspace)
        try:
            mirror.push()
            break
        except Killed:
            num_kills += 1
    assert num_kills >= 8
    found = shown(workspace, mirror)
    assert found.pop(f"killed-{keeps_last_mark}-study")[2] == parent[2]
    assert found == expected


def test_killed_study_is_opened_again_and_finished(workspace: Path) -> None:
    view = view_of("resume")
    first = MlflowMirror(view, workspace)
    run_id = first.close("KILLED")
    runs = shown(workspace, first)
    assert (runs["resume-study"][0], runs["t002"][0], runs["t003 d3 f64 max 0.500"][0]) == (
        "KILLED",
        "KILLED",
        "FINISHED",
    )
    view.is_touched += 1
    second = MlflowMirror(view, workspace)
    second.push()
    runs = shown(workspace, second)
    assert (runs["resume-study"][0], runs["t002"][0]) == ("RUNNING", "RUNNING")
    view.trial_rows[2:] = [trial(2, "PRUNED", 0.7), trial(3, "COMPLETED", 0.95, rung=1)]
    assert second.close("FINISHED") == run_id
    runs = shown(workspace, second)
    assert {run[0] for run in runs.values()} == {"FINISHED", "FAILED"}
    metrics = open_client(workspace).get_run(run_id).data.metrics
    assert (metrics["trials_completed"], metrics["trials_failed"], metrics["best_val_accuracy"]) == (3.0, 1.0, 0.95)


def test_promoted_trial_goes_on_in_its_run(workspace: Path) -> None:
    view = view_of("promoted")
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    view.trial_rows[3] = trial(3, "RUNNING", 0.5)
    mirror.push()
    assert shown(workspace, mirror)["t003 d3 f64 max 0.500"][0] == "RUNNING"
    view.epoch_rows[3] = epochs(4)
    view.trial_rows[3] = trial(3, "PAUSED", 0.6, rung=1, samples=180, seconds=20.0, latency_ms=1.5)
    mirror.push()
    status, _, points = shown(workspace, mirror)["t003 d3 f64 max 0.600"]
    assert status == "FINISHED"
    assert points["best_val_accuracy"] == [(0, 0.5), (1, 0.6)]
    assert points["samples"] == [(0, 60.0), (1, 180.0)]
    assert points["model/latency_ms_b1"] == [(1, 1.5)]
    assert [step for step, _ in points["val_loss"]] == [1, 2, 3, 4]
    assert points["time/train_s"] == [(1, 9.0), (4, 20.0)]


def test_waiting_trial_that_is_let_go_is_not_sent_again(workspace: Path) -> None:
    view = view_of("released")
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    client = open_client(workspace)
    before = client.get_run(view.saved[3].run_id)
    view.trial_rows[3] = trial(3, "COMPLETED", 0.5)
    assert [row.number for _, row in view.unsent()] == [3]
    mirror.push()
    assert view.unsent() == []
    after = client.get_run(view.saved[3].run_id)
    assert (after.info.end_time, after.data.tags) == (before.info.end_time, before.data.tags)


def test_push_reads_of_a_study_what_is_new(workspace: Path) -> None:
    view = view_of("reads")
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    view.reads.clear()
    mirror.push()
    assert view.reads == {}
    view.trial_rows.append(trial(5, "RUNNING"))
    view.epoch_rows[2] = epochs(3)
    mirror.push()
    assert view.reads == {"epochs": 2}


def test_loss_is_better_when_smaller_and_a_cost_gives_a_front(workspace: Path) -> None:
    rows = [
        trial(0, "COMPLETED", 0.5, num_params=3000),
        trial(1, "COMPLETED", 0.4, num_params=9000),
        trial(2, "PAUSED", 0.6, num_params=3000),
        trial(3, "COMPLETED", 0.45, num_params=9500),
        trial(4, "FAILED", num_params=10),
    ]
    view = view_of("front", FakeView(rows))
    origin = {"forked_from": "front-0", "versions_seen": ["0.1", "0.2"]}
    view.fact_dict |= {"objective": "val_loss", "minimise": "params", **origin}
    mirror = MlflowMirror(view, workspace)
    run_id = mirror.close("FINISHED")
    client = open_client(workspace)
    run = client.get_run(run_id)
    assert run.data.metrics["best_val_loss"] == 0.4
    assert run.data.tags["pipeline.forked_from"] == "front-0"
    assert run.data.tags["pipeline.versions_seen"] == "0.1, 0.2"
    path = client.download_artifacts(run_id, "front.json")
    table = json.loads(Path(path).read_text())
    assert table["columns"] == ["trial", "val_loss", "params", "hyperparameters"]
    assert [row[:3] for row in table["data"]] == [[0, 0.5, 3000], [1, 0.4, 9000]]
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == (
        "False"
    )


def test_run_of_a_trial_that_waits_to_start_again_is_ended(workspace: Path) -> None:
    view = view_of("waits")
    MlflowMirror(view, workspace).push()  # killed -9 here: the run of trial 2 stays RUNNING
    view.trial_rows[2] = trial(2, "PLANNED")
    mirror = MlflowMirror(view, workspace)
    mirror.close("FINISHED")
    runs = shown(workspace, mirror)
    assert {name: runs[name][0] for name in ("waits-study", "t002")} == {"waits-study": "FINISHED", "t002": "KILLED"}
    assert view.unsent() == []


def test_trial_that_ends_while_its_run_is_killed_keeps_its_summary(workspace: Path) -> None:
    view = view_of("late")
    MlflowMirror(view, workspace).close("KILLED")
    view.trial_rows[2] = trial(2, "COMPLETED", 0.8)
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    assert shown(workspace, mirror)["t002 d3 f64 max 0.800"][2]["best_val_accuracy"] == [(0, 0.8)]


def test_marks_of_another_store_lead_to_a_whole_replay(workspace: Path) -> None:
    view = view_of("elsewhere")
    view.saved = {PARENT: MirrorMark("0" * 32, 1), 0: MirrorMark("1" * 32, 3, is_closed=True)}
    mirror = MlflowMirror(view, workspace)
    mirror.push()
    assert len(shown(workspace, mirror)) == 5


def test_study_made_anew_under_its_old_name_gets_a_run_of_its_own(workspace: Path) -> None:
    first = MlflowMirror(view_of("again"), workspace)
    first.push()
    second = MlflowMirror(view_of("again"), workspace)
    second.push()
    assert second.run_id != first.run_id


def test_runs_of_dead_studies_are_closed_and_those_of_live_ones_stay(workspace: Path) -> None:
    dead, live = MlflowMirror(view_of("dead"), workspace), MlflowMirror(view_of("live"), workspace)
    dead.push()
    live.push()
    assert close_stale_runs(workspace, lambda study: study != "dead-study") == 2
    assert shown(workspace, dead)["dead-study"][0] == "KILLED"
    assert shown(workspace, live)["live-study"][0] == "RUNNING"
    assert close_stale_runs(workspace, lambda study: study != "dead-study") == 0


def test_outage_is_a_tracking_error_and_the_next_push_catches_up(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of("outage")
    mirror = MlflowMirror(view, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="no answer"):
        mirror.push()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    mirror.push()
    runs = snapshot(open_client(tmp_path), str(mirror.experiment_id))
    assert len(runs) == 5
    assert runs["t000 d3 f64 max 0.912"][2]["val_loss"] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
