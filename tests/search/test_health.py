"""A search in which most attempts fail for one reason stops, and says why and what to do."""

import pytest

from pipeline.errors import StoppedEarly
from pipeline.search.health import Health, ask_to_stop, forget_stop
from pipeline.search.jobs import Findings, TrialOutcome
from pipeline.search.loop import run_trials
from pipeline.states import OutcomeState
from pipeline.workspace import StudyFolder
from tests.search.stubs import InstantEngine, Silence, make_study, score_of, unlimited


def outcome(state: OutcomeState, reason: str = "", **findings) -> TrialOutcome:
    return TrialOutcome(attempt=1, training=0, rung=0, state=state, reason=reason, findings=Findings(**findings))


def noted(folder, *outcomes: TrialOutcome) -> Health:
    health = Health(StudyFolder(folder), free_floor_mb=0)
    for each in outcomes:
        health.note(each)
    return health


@pytest.mark.parametrize(
    ("state", "reason", "told", "cure"),
    [
        (
            OutcomeState.INFEASIBLE,
            "out of memory at batch {}",
            "out of memory at batch N",
            "take fewer --workers, smaller images",
        ),
        (
            OutcomeState.FAILED,
            "the loss became nan in epoch {} (learning rate 1e-{})",
            "epoch N (learning rate N)",
            "--space tiny",
        ),
        (OutcomeState.CRASHED, "its process died (signal {})", "its process died (signal N)", "look into trials.log"),
        (OutcomeState.TIMEOUT, "no step for {} s; killed", "no step for N s; killed", "the machine may be overloaded"),
    ],
)
def test_more_than_half_of_the_last_twenty_stop_the_search_with_a_cure(tmp_path, state, reason, told, cure):
    good = [outcome(OutcomeState.COMPLETED)] * 10
    bad = [outcome(state, reason.format(number, number)) for number in range(1, 12)]
    noted(tmp_path, *good, *bad[:10]).check()
    with pytest.raises(StoppedEarly) as caught:
        noted(tmp_path, *good, *bad).check()
    message = str(caught.value)
    assert message.startswith(f"11 of the last 20 attempts ended as {state}: ")
    assert (told in message, cure in message, "--resume" in message) == (True, True, True)


def test_a_search_that_fails_from_its_beginning_does_not_wait_for_twenty(tmp_path):
    bad = [outcome(OutcomeState.FAILED, "ValueError: no such layer")] * 11
    with pytest.raises(StoppedEarly, match=r"^11 of the last 11 attempts ended as FAILED: ValueError: no such layer"):
        noted(tmp_path, *bad).check()


def test_failures_of_several_kinds_old_ones_and_interruptions_do_not_stop_it(tmp_path):
    nan, died = outcome(OutcomeState.FAILED, "nan"), outcome(OutcomeState.CRASHED, "died")
    noted(tmp_path, *[nan, died] * 10).check()
    noted(tmp_path, *[nan] * 10, *[outcome(OutcomeState.FAILED, "another")] * 10).check()
    noted(tmp_path, *[outcome(OutcomeState.STOPPED, "the search was interrupted")] * 30).check()
    noted(tmp_path, *[nan] * 10, *[outcome(OutcomeState.PRUNED, "the time is over")] * 10).check()
    health = noted(tmp_path, *[nan] * 11)
    for _ in range(9):
        health.note(outcome(OutcomeState.COMPLETED))
    with pytest.raises(StoppedEarly):
        health.check()
    health.note(outcome(OutcomeState.COMPLETED))  # the first failure is no longer among the last twenty
    health.check()


def test_the_word_of_pipeline_stop_is_heard_once(tmp_path):
    health = noted(tmp_path)
    ask_to_stop(StudyFolder(tmp_path))
    with pytest.raises(StoppedEarly, match=r"stopped by `pipeline stop`.*--resume"):
        health.check()
    health.check()
    ask_to_stop(StudyFolder(tmp_path))
    forget_stop(StudyFolder(tmp_path))
    forget_stop(StudyFolder(tmp_path))
    health.check()


def test_a_child_without_room_on_the_disk_stops_the_search(tmp_path):
    health = noted(
        tmp_path, outcome(OutcomeState.STOPPED, "the disk is full", is_disk_full=True), outcome(OutcomeState.COMPLETED)
    )
    with pytest.raises(StoppedEarly, match=r"the disk is full, so no checkpoint can be written; .*free some space"):
        health.check()


def test_a_search_stops_at_the_eleventh_failure_and_goes_on_when_the_cause_is_gone(tmp_path):
    def fail(job, emit):
        reason = f"ValueError: file {job.number} of the data is gone"
        return TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.FAILED, reason=reason)

    def train(job, emit):
        return TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.COMPLETED, score_of(job.params, job.rung))

    budget = unlimited(15, rungs=(1000,))
    study = make_study(tmp_path, budget)
    with pytest.raises(StoppedEarly, match=r"^11 of the last 11 .* FAILED: ValueError: file N of the data is gone"):
        run_trials(study, InstantEngine(fail, num_workers=2), Silence(), free_floor_mb=0)
    assert [row.state for row in study.store.trials()] == ["FAILED"] * 11 + ["PLANNED"]
    study.store.close()
    resumed = make_study(tmp_path, budget)
    run_trials(resumed, InstantEngine(train), Silence(), free_floor_mb=0)
    assert [row.state for row in resumed.store.trials()] == ["FAILED"] * 11 + ["COMPLETED"] * 4
    resumed.store.close()
