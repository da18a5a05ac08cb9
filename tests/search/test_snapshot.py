"""Where a study is, told from its file and from heartbeats; nothing is written to tell it."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.cli.terminal.board import title_of
from pipeline.errors import DataError
from pipeline.files import locked
from pipeline.heartbeat import Beat, write_beat
from pipeline.records import TrialRow
from pipeline.search.snapshot import Failure, Snapshot, StudyMonitor, read_snapshot
from pipeline.search.storage.attempts import Attempt
from pipeline.search.storage.store import StudyStore
from pipeline.states import AttemptState, TrainingKind, TrialState
from pipeline.workspace import Workspace
from tests.search.stubs import FACTS as STUB_FACTS

OPTIONS = {"budget": 600.0, "trials": None, "epochs": None}
FACTS = {
    **STUB_FACTS,
    "study": "photos-1",
    "dataset": "photos",
    "objective": "val_accuracy",
    "options": OPTIONS,
    "elapsed": 61.5,
}


def make_store(workspace: Path, name: str = "photos-1", **facts) -> StudyStore:
    folder = Workspace(workspace).studies / name
    folder.mkdir(parents=True)
    store = StudyStore(folder / "study.db")
    store.create(FACTS | {"study": name} | facts)
    return store


def add_trial(store: StudyStore, number: int, state: str, score: float | None = None, reason: str = "", rung: int = 0):
    """Write a trial as a search does: a trial that runs or has a score has one attempt."""
    row = TrialRow(number, state, None, {"depth": 2, "learning_rate": 0.01}, 1234, 5.5, 0.0, reason, 0, 0)
    store.add_trial(row)
    store.put_trial(row)
    if score is not None:
        store.put_attempt(
            Attempt(10 * number + 1, number, rung, 300, 3, 1, 1, AttemptState.DONE, score, 2.0, ended=10 * number + 2)
        )
    if state == TrialState.RUNNING:
        store.put_attempt(
            Attempt(10 * number + 3, number, rung + (score is not None), 300, 3, 1, 1, AttemptState.STARTED)
        )
    store.save()


def beat(store: StudyStore, attempt: int, *place: int) -> None:
    write_beat(store.folder.heartbeat(attempt), Beat(*place))


def fill(store: StudyStore) -> None:
    add_trial(store, 0, TrialState.COMPLETED, 0.75, rung=1)
    add_trial(store, 1, TrialState.PAUSED, 0.97)  # of a lower rung: not comparable
    add_trial(store, 2, TrialState.INFEASIBLE, reason="out of memory at batch 512")
    add_trial(store, 3, TrialState.CRASHED, reason="its process died (signal 11)")
    add_trial(store, 4, TrialState.INFEASIBLE, reason="out of memory at batch 256")
    add_trial(store, 5, TrialState.RUNNING)
    add_trial(store, 6, TrialState.RUNNING, 0.5)
    beat(store, 53, 2, 3, 5, 10)
    beat(store, 63)


def test_a_snapshot_counts_ranks_and_measures(tmp_path):
    store = make_store(tmp_path)
    fill(store)
    seen = StudyMonitor(store).look("running", 61.5)
    assert {name: count for name, count in seen.trials.items() if count} == {
        "running": 2, "paused": 1, "completed": 1, "infeasible": 2, "crashed": 1,
    }  # fmt: skip
    assert len(seen.trials) == 9
    assert (seen.best.number, seen.best.score, seen.objective) == (0, 0.75, "val_accuracy")
    assert seen.commonest_failure == Failure("out of memory at batch 256", 2)
    first, second = seen.running
    assert dataclasses.replace(first, seconds_since_step=None) == dataclasses.replace(
        second, trial=5, rung=0, epoch=2, batch=5, num_batches=10, fraction=0.5
    )
    assert 0 <= first.seconds_since_step < 60
    assert (second.trial, second.rung, second.epoch, second.num_epochs, second.seconds_since_step) == (6, 1, 0, 3, None)
    assert (seen.elapsed_seconds, seen.budget_seconds, seen.eta_seconds) == (61.5, 600.0, 538.5)


def test_an_objective_that_is_minimised_has_the_least_as_best(tmp_path):
    store = make_store(tmp_path, objective="val_loss")
    for number, score in enumerate((0.4, 0.2, 0.3)):
        add_trial(store, number, TrialState.COMPLETED, score)
    assert StudyMonitor(store).look("stopped", 0.0).best.number == 1


def test_heartbeats_of_another_machine_follow_another_clock(tmp_path):
    store = make_store(tmp_path)
    fill(store)
    assert StudyMonitor(store).look("running", 1.0, is_here=False).running[0].seconds_since_step is None


def test_the_last_training_of_the_winner_is_shown_as_no_trial(tmp_path):
    store = make_store(tmp_path)
    add_trial(store, 0, TrialState.COMPLETED, 0.75)
    store.put_attempt(Attempt(7, TrainingKind.FINAL, 0, 400, 4, 1, 1, AttemptState.STARTED))
    store.save()
    beat(store, 7, 4, 4, 10, 10)
    (final,) = StudyMonitor(store).look("running", 1.0).running
    assert (final.trial, final.fraction, final.is_baseline) == (None, 1.0, False)
    store.put_attempt(Attempt(8, TrainingKind.BASELINE, 0, 400, 4, 1, 1, AttemptState.STARTED))
    store.save()
    beside = StudyMonitor(store).look("running", 1.0).running[-1]
    assert (title_of(final), title_of(beside)) == ("the winner", "the reference network")
    store.put_attempt(Attempt(9, TrainingKind.STUDENT, 0, 400, 4, 1, 1, AttemptState.STARTED))
    store.save()
    student = StudyMonitor(store).look("running", 1.0).running[-1]
    assert (student.trial, student.is_student, title_of(student)) == (None, True, "the winner, distilled")
    store.put_attempt(Attempt(10, TrainingKind.SECOND_SEED, 0, 400, 4, 1, 1, AttemptState.STARTED))
    store.save()
    store.put("ensemble", {"is_kept": True, "num_networks": 3})
    assert [title_of(each) for each in StudyMonitor(store).look("running", 1.0).running] == [
        "3 networks in turn", "the reference network", "the winner, distilled", "the winner, with another seed",
    ]  # fmt: skip
    store.put("ensemble", {"is_kept": False})
    assert title_of(StudyMonitor(store).look("running", 1.0).running[0]) == "the winner"


def test_what_a_killed_search_left_running_counts_as_waiting(tmp_path):
    store = make_store(tmp_path)
    fill(store)
    seen = StudyMonitor(store).look("stopped", 61.5)
    assert (seen.trials["running"], seen.trials["planned"], seen.trials["paused"]) == (0, 1, 2)
    assert (seen.running, seen.eta_seconds) == ((), None)


def test_a_second_look_reads_only_what_changed_and_sees_what_a_first_one_would(tmp_path):
    store = make_store(tmp_path)
    for number in range(50):
        add_trial(store, number, TrialState.COMPLETED, 0.5)
    add_trial(store, 50, TrialState.RUNNING)
    monitor = StudyMonitor(store)
    monitor.look("running", 1.0)
    statements: list[str] = []
    store.connection.set_trace_callback(statements.append)
    monitor.look("running", 2.0)
    assert len(statements) == 4  # what changed, the last change, the attempts of one running trial and of the winner
    store.put_trial(dataclasses.replace(store.trials()[50], state=TrialState.FAILED, reason="loss is nan in epoch 2"))
    add_trial(store, 51, TrialState.RUNNING)
    statements.clear()
    second = monitor.look("running", 3.0)
    assert len(statements) == 6  # and the trials that changed, with the attempts of both
    assert second == StudyMonitor(store).look("running", 3.0)
    assert (second.trials["failed"], second.trials["running"], second.trials["completed"]) == (1, 1, 50)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"budget": 600.0, "trials": None, "epochs": None}, 500.0),
        ({"budget": None, "trials": None, "epochs": None}, 800.0),  # the default is 15 minutes
        ({"budget": None, "trials": 10, "epochs": None}, 400.0),  # 2 of 10 took 100 s
        ({"budget": 300.0, "trials": 10, "epochs": None}, 200.0),
        ({"budget": None, "trials": 2, "epochs": None}, None),
        ({"budget": None, "trials": None, "epochs": 3}, None),
        ({"budget": 50.0, "trials": None, "epochs": None}, 0.0),
    ],
)
def test_the_rest_follows_from_the_budget_or_from_the_pace(tmp_path, options, expected):
    store = make_store(tmp_path, options=options)
    add_trial(store, 0, TrialState.COMPLETED, 0.5)
    add_trial(store, 1, TrialState.FAILED, reason="loss is nan")
    add_trial(store, 2, TrialState.PLANNED)
    assert StudyMonitor(store).look("running", 100.0).eta_seconds == expected


def test_the_state_follows_from_lock_result_and_trials(tmp_path):
    store = make_store(tmp_path)
    lock = store.path.parent / "lock"
    assert read_snapshot(tmp_path, "photos-1").state == "created"
    add_trial(store, 0, TrialState.COMPLETED, 0.75)
    with locked(lock, "study photos-1"):
        assert read_snapshot(tmp_path, "photos-1").state == "running"
    assert read_snapshot(tmp_path, "photos-1").state == "stopped"
    store.put("result", {"study": "photos-1"})
    assert read_snapshot(tmp_path, "photos-1").state == "finished"


def test_a_search_that_still_decodes_images_runs(tmp_path):
    with locked(Workspace(tmp_path).studies / "photos-1" / "lock", "study photos-1"):
        seen = read_snapshot(tmp_path, "photos-1")
    assert (seen.state, seen.best, sum(seen.trials.values())) == ("running", None, 0)
    with pytest.raises(DataError, match="photos-1: not found"):
        read_snapshot(tmp_path, "photos-1")


@pytest.mark.parametrize("is_open", [True, False])
def test_a_look_changes_no_file(tmp_path, is_open):
    store = make_store(tmp_path)
    fill(store)
    if not is_open:
        store.close()

    def files() -> dict[str, tuple[int, bytes]]:
        paths = (path for path in store.path.parent.rglob("*") if path.is_file() and path.suffix != ".db-shm")
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before = files()
    assert isinstance(read_snapshot(tmp_path, "photos-1"), Snapshot)
    assert files() == before


def test_a_look_sees_what_a_search_wrote_and_has_not_moved_into_the_main_file(tmp_path):
    store = make_store(tmp_path)
    store.connection.execute("PRAGMA wal_autocheckpoint=0")
    add_trial(store, 0, TrialState.COMPLETED, 0.75)
    with locked(store.path.parent / "lock", "study photos-1"), store.transaction():  # even in the middle of a write
        store.put("elapsed", 99.0)
        seen = read_snapshot(tmp_path, "photos-1")
    assert (seen.best.score, seen.elapsed_seconds) == (0.75, 61.5)
