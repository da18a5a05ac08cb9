"""What a search calls while it runs, with a real study and trainings that only pretend."""

import pytest

from pipeline.search.loop import run_trials
from pipeline.workflows.callback import following
from pipeline.workflows.progress import NO_SIGNALS, NoSignals
from pipeline.workspace import Workspace
from tests.cli.search_driver import PretendEngine, make_study
from tests.workflows.listeners import Heard


@pytest.fixture
def folder(tmp_path):
    path = Workspace(tmp_path).studies / "photos-1"
    path.mkdir(parents=True)
    return path


def search(folder, num_trials, stop=NO_SIGNALS):
    """Search; return what was heard, and the study."""
    heard, study = Heard(), make_study(folder, num_trials, lambda: 65.0)
    with following(study, lambda: 65.0, stop, heard) as callback:
        run_trials(study, PretendEngine(step_seconds=0.0), callback)
    return heard, study


def test_each_end_is_a_line_with_its_time_score_and_cost(folder):
    heard, study = search(folder, 5)
    assert len(heard.lines) == 5
    number = study.rows[1].num_params
    assert f"  1m05s  trial   1 rung 0  val_accuracy 0.5100  {number:>9,} params    1.0 s" in heard.lines
    (failed,) = (line for line in heard.lines if "INFEASIBLE" in line)
    assert failed.startswith("  1m05s  trial   4 rung 0  INFEASIBLE: ")


def test_the_state_can_be_looked_at(folder):
    heard, _ = search(folder, 3)
    assert {snapshot.study for snapshot in heard.snapshots} == {"photos-1"}
    assert heard.snapshots[-1].trials["paused"] + heard.snapshots[-1].trials["completed"] >= 1


def test_the_time_until_the_very_end_is_kept(folder):
    study = make_study(folder, 1, lambda: 1.0)
    with following(study, lambda: 2.0, NO_SIGNALS, Heard()) as callback:
        run_trials(study, PretendEngine(step_seconds=0.0), callback)
        assert study.store.get("elapsed") == 1.0  # as of the last decision
    assert study.store.get("elapsed") == 2.0


def test_a_stop_ends_the_search_and_the_time_is_kept(folder):
    class StopAtOnce(NoSignals):
        def check(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(folder, 3, StopAtOnce())
    study = make_study(folder, 3, lambda: 0.0)
    assert study.store.get("elapsed") == 65.0
    assert len(study.rows) == 2  # both children were busy, and go on with --resume
