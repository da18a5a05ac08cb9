"""`pipeline status`: what a search is at, from another terminal."""

import json

from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.files import locked
from pipeline.workspace import Workspace
from tests.search.test_snapshot import fill, make_store


def run(*arguments: str):
    return CliRunner().invoke(cli, ["status", *arguments])


def test_json_is_the_documented_contract(workspace):
    store = make_store(workspace)
    fill(store)
    with locked(store.path.parent / "lock", "study photos-1"):
        done = run("photos-1", "--json")
    facts = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(facts) == [
        "schema", "study", "state", "trials", "running", "objective", "best", "commonest_failure", "elapsed_seconds",
        "budget_seconds", "eta_seconds",
    ]  # fmt: skip
    assert (facts["schema"], facts["study"], facts["state"]) == (1, "photos-1", "running")
    assert facts["trials"] == {
        "planned": 0, "running": 2, "paused": 1, "completed": 1, "pruned": 0, "failed": 0, "infeasible": 2,
        "crashed": 1, "timeout": 0,
    }  # fmt: skip
    since = facts["running"][0].pop("seconds_since_step")
    assert 0 <= since < 60
    assert facts["running"][0] == {
        "trial": 5, "rung": 0, "epoch": 2, "num_epochs": 3, "batch": 5, "num_batches": 10, "fraction": 0.5,
        "is_baseline": False,
        "is_student": False,
        "is_twin": False,
        "num_networks": 1,
    }  # fmt: skip
    assert facts["best"] == {
        "trial": 0, "score": 0.75, "objective": "val_accuracy", "params": {"depth": 2, "learning_rate": 0.01},
        "num_params": 1234, "mflops": 5.5,
    }  # fmt: skip
    assert facts["commonest_failure"] == {"reason": "out of memory at batch 256", "count": 2}
    assert (facts["elapsed_seconds"], facts["budget_seconds"], facts["eta_seconds"]) == (61.5, 600.0, 538.5)


def test_text_says_the_same_and_ends_with_what_to_type(workspace):
    store = make_store(workspace)
    fill(store)
    with locked(store.path.parent / "lock", "study photos-1"):
        done = run()
    assert done.stdout.splitlines() == [
        "study    photos-1: running",
        "best     trial 0: val_accuracy 0.7500, 1,234 params; depth 2, learning_rate 0.01",
        "         trial 5 rung 0: 50%, epoch 2/3, batch 5/10",
        "         trial 6 rung 1: 0%, starts",
        "trials   2 running, 1 paused, 1 completed, 2 infeasible, 1 crashed (2 of 3: out of memory at batch 256)",
        "elapsed  1m02s of 10m00s, about 8m58s left",
    ]
    assert "Next: pipeline stop photos-1" in done.stderr
    assert "Next: pipeline search --name photos-1 --resume" in run().stderr


def test_without_a_name_the_newest_that_runs_else_the_newest(workspace):
    for number in (1, 2, 3):
        make_store(workspace, f"photos-{number}").close()
    assert run().stdout.startswith("study    photos-3: created")
    with locked(Workspace(workspace).studies / "photos-1" / "lock", "study photos-1"):
        assert run().stdout.startswith("study    photos-1: running")
        with locked(Workspace(workspace).studies / "digits-1" / "lock", "study digits-1"):  # decodes its images
            assert run().stdout.startswith("study    digits-1: running")


def test_an_unknown_study_and_an_empty_folder_are_said(workspace):
    done = run("photos-9")
    assert (done.exit_code, "study photos-9: not found" in done.stderr) == (3, True)
    done = run()
    assert (done.exit_code, "no studies here" in done.stderr) == (3, True)


def test_foreign_text_cannot_move_the_cursor(workspace):
    from pipeline.states import TrialState
    from tests.search.test_snapshot import add_trial

    add_trial(make_store(workspace), 0, TrialState.FAILED, reason="\x1b[2Jgone\nlines")
    assert "1 failed (\\x1b[2Jgone\\nlines)" in run().stdout


def test_the_leaderboard_says_what_can_be_done_now(workspace):
    make_store(workspace).close()
    with locked(Workspace(workspace).studies / "photos-1" / "lock", "study photos-1"):
        shown = CliRunner().invoke(cli, ["runs"]).stderr
    assert "pipeline status photos-1" in shown
    assert "--resume" not in shown
    assert "pipeline search --name photos-1 --resume" in CliRunner().invoke(cli, ["runs"]).stderr
