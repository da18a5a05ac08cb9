"""Ask and tell: what a study begins, promotes, survives and remembers."""

import itertools

import pytest

from pipeline.card import Latency
from pipeline.records import Objective
from pipeline.search.finalists.distillation import begin as begin_student
from pipeline.search.finish import begin_final
from pipeline.search.jobs import Findings, TrialOutcome
from pipeline.search.loop import run_trials
from pipeline.search.ranking import winner
from pipeline.search.seeds import trial_seed
from pipeline.search.storage.store import StudyStore
from pipeline.search.timing.estimates import Limits
from pipeline.space import space_from
from pipeline.states import AttemptState, OutcomeState, TrainingKind, TrialState
from tests.search.stubs import (
    RUNGS,
    TINY,
    Clock,
    InstantEngine,
    Silence,
    StubOracle,
    ends,
    make_context,
    make_study,
    run_all,
    score_of,
    train_at_once,
    train_into,
    unlimited,
)

OUT_OF_MEMORY = {
    "state": OutcomeState.INFEASIBLE,
    "score": None,
    "reason": "no memory",
    "findings": Findings(is_out_of_memory=True),
}
DIED = {"state": OutcomeState.CRASHED, "score": None, "reason": "its process died (signal 9)"}
SMALL = b"""
schema: 1
description: four configurations
params:
  depth: {type: fixed, value: 1}
  convs_per_stage: {type: fixed, value: 1}
  filters: {type: choice, values: [8, 16], default: 16}
  pooling: {type: choice, values: [max, avg], default: max}
  head: {type: fixed, value: gap}
  learning_rate: {type: fixed, value: 1.0e-3}
  batch_size: {type: fixed, value: 64}
"""


def step(study, **changes):
    """Ask, save and tell one task; return it."""
    job = study.ask()
    study.store.save()
    study.tell(train_into(study, job, **changes))
    study.store.save()
    return job


def oracle_for(study_oracle=None, **options):
    return study_oracle or StubOracle(TINY, **options)


def reopened(study, **options):
    """Return the study as the next process finds it after this one was killed: what was not saved is gone."""
    study.store.close()
    return make_study(study.store.path.parent, study.budget, study.context, **options)


# ---- what is asked for ----------------------------------------------------------------------------------------------


def test_the_portfolio_comes_first_and_needs_no_oracle(tmp_path):
    strong = [{**TINY.defaults(), "learning_rate": rate} for rate in (0.002, 0.004)]
    study = make_study(tmp_path, unlimited(4), make_context(portfolio=tuple(strong)))
    assert [step(study).params for _ in strong] == strong
    assert study.oracle is None
    third = step(study)
    assert third.number == 2
    assert third.params not in strong
    assert study.oracle is not None


def test_the_best_of_three_goes_on_before_the_portfolio_is_through(tmp_path):
    strong = [{**TINY.defaults(), "learning_rate": rate} for rate in (0.002, 0.003, 0.004, 0.005, 0.006)]
    study = make_study(tmp_path, unlimited(9), make_context(portfolio=tuple(strong)))
    jobs = [step(study) for _ in range(3)]
    assert study.oracle is None
    best = max(jobs, key=lambda job: score_of(job.params, 0))
    fourth = study.ask()
    assert (fourth.number, fourth.rung) == (best.number, 1)
    assert study.ask().params == strong[3]  # one in three: the next waits for three more
    assert study.ask().params == strong[4]


def without_reports(oracle):
    return [call for call in oracle.calls if call[0] != "report"]


def test_an_oracle_made_late_learns_all_that_happened_in_its_order(tmp_path):
    strong = [{**TINY.defaults(), "learning_rate": rate} for rate in (0.002, 0.003, 0.004, 0.005)]
    oracle = oracle_for()
    study = make_study(tmp_path, unlimited(9), make_context(portfolio=tuple(strong)), oracle=oracle)
    step(study)
    first, second = study.ask(), study.ask()
    study.tell(train_into(study, second, state=OutcomeState.FAILED, score=None, reason="ValueError"))
    assert oracle.calls == []
    study.tell(train_into(study, first))
    step(study, **DIED)
    study.waiting.clear()  # let the next task come from the oracle
    study.ask()
    score = score_of(strong[0], 0), score_of(strong[1], 0)
    assert without_reports(oracle) == [
        ("begin", 0, 0), ("tell", 0, 0, (score[0],)), ("begin", 1, 0), ("begin", 2, 0), ("tell", 2, 0, None),
        ("tell", 1, 0, (score[1],)), ("begin", 3, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [DIED, {"state": OutcomeState.PRUNED, "score": None}, {"state": OutcomeState.TIMEOUT, "score": None}],
)
def test_a_resumed_oracle_hears_the_same_of_a_failure_as_the_one_before(tmp_path, changes):
    oracle, again = oracle_for(), oracle_for()
    study = make_study(tmp_path, unlimited(9), oracle=oracle)
    study.consult()
    step(study, **changes)
    if changes is DIED:
        step(study, **DIED)
    step(study)
    live = [call for call in oracle.calls if call[0] == "tell"]
    resumed = reopened(study, oracle=again)
    resumed.consult()
    assert [call for call in again.calls if call[0] == "tell"] == live
    assert (resumed.oracle.running, resumed.oracle.num_ended) == (oracle.running, oracle.num_ended)


def test_the_epochs_of_a_running_trial_reach_the_oracle(tmp_path):
    oracle = oracle_for()
    study = make_study(tmp_path, oracle=oracle)
    job = study.ask()
    study.store.save()
    train_into(study, job)
    assert oracle.calls == [("report", 0, 0, 1, score_of(job.params, 0))]


def test_one_in_three_goes_on_and_the_best_of_the_highest_rung_wins(tmp_path):
    study = make_study(tmp_path, unlimited(9))
    jobs = run_all(study)
    by_rung = [[job for job in jobs if job.rung == rung] for rung in range(3)]
    assert [len(each) for each in by_rung] == [9, 3, 1]
    assert [job.samples for job in (each[0] for each in by_rung)] == list(RUNGS)
    assert [job.first_step for job in (each[0] for each in by_rung)] == [1, 2, 5]
    rows = study.store.trials()
    assert {row.state for row in rows} == {TrialState.COMPLETED}
    best = winner(rows, Objective())
    assert (best.number, best.rung, best.epochs, best.best_epoch) == (by_rung[2][0].number, 2, 9, 13)
    assert best.score == score_of(best.params, 2)
    assert len(study.store.epochs(best.number)) == 13


def test_a_better_score_in_a_lower_rung_does_not_win(tmp_path):
    study = make_study(tmp_path, unlimited(4, (1000, 3000)))
    while job := study.ask():
        study.tell(train_into(study, job, score=0.2 if job.rung else 0.9))
    rows = study.rows.values()
    assert (study.leader.rung, study.leader.score) == (1, 0.2)
    assert max(row.score for row in rows) == 0.9


def test_a_loss_is_better_when_it_is_smaller(tmp_path):
    study = make_study(tmp_path, unlimited(4, (1000,)), objective=Objective("val_loss"))
    for loss in (0.5, 0.2, 0.9, 0.4):
        step(study, score=loss)
    assert study.ask() is None
    assert study.leader.score == 0.2


def test_the_end_game_brings_the_best_trial_to_the_highest_rung(tmp_path):
    study = make_study(tmp_path, unlimited(2))  # too few for a promotion
    jobs = run_all(study)
    scores = [score_of(job.params, 0) for job in jobs[:2]]
    assert [(job.number, job.rung) for job in jobs[2:]] == [(scores.index(max(scores)), 2)]


def test_when_the_leader_fails_in_the_end_game_the_next_one_is_brought_up(tmp_path):
    study = make_study(tmp_path, unlimited(2))
    scores = [score_of(step(study).params, 0) for _ in range(2)]
    order = [scores.index(max(scores)), scores.index(min(scores))]
    for number in order:
        job = step(study, state=OutcomeState.FAILED, score=None, reason="loss became nan")
        assert (job.number, job.rung) == (number, 2)
        assert study.rows[number].score == scores[number]
        assert study.rows[number].reason == "rung 2 ended as FAILED: loss became nan"
    assert study.ask() is None
    assert study.leader.number == order[0]


def test_as_many_trials_as_were_asked_for_and_no_configuration_twice(tmp_path):
    for number, max_trials in enumerate((1, 7, 30)):
        study = make_study(tmp_path / str(number), unlimited(max_trials))
        run_all(study)
        rows = study.store.trials()
        assert len(rows) == max_trials
        assert len({repr(row.params) for row in rows}) == max_trials


def test_a_space_that_is_smaller_than_the_number_of_trials_ends_the_search(tmp_path):
    space = space_from(SMALL, "small", "small.yaml")
    study = make_study(tmp_path, unlimited(50), make_context(space, portfolio=(space.defaults(),)))
    run_all(study)
    assert len({repr(row.params) for row in study.store.trials()}) == len(study.store.trials()) == 4
    assert winner(study.store.trials(), Objective()).rung == 2


def test_configurations_over_the_limits_are_not_tried(tmp_path):
    study = make_study(tmp_path, unlimited(8), make_context(limits=Limits(max_params=600)))
    run_all(study)
    rows = study.store.trials()
    assert len(rows) == 8
    assert all(row.num_params <= 600 for row in rows)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_several_workers_train_each_rung_of_each_trial_once(tmp_path, num_workers):
    study = make_study(tmp_path, unlimited(20))
    engine = InstantEngine(train_at_once, num_workers)
    run_trials(study, engine, Silence())
    attempts = study.store.attempts()
    assert len({(each.training, each.rung) for each in attempts}) == len(attempts)
    assert {each.state for each in attempts} == {AttemptState.DONE}
    assert [row.number for row in study.store.trials()] == list(range(20))
    assert winner(study.store.trials(), Objective()).rung == 2


def test_while_others_run_nothing_is_asked_for_and_then_it_goes_on(tmp_path):
    study = make_study(tmp_path, unlimited(2))
    first, second = study.ask(), study.ask()
    assert study.ask() is None
    study.tell(train_into(study, first))
    assert study.ask() is None
    study.tell(train_into(study, second))
    assert study.ask().rung == 2


# ---- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [OutcomeState.FAILED, OutcomeState.INFEASIBLE, OutcomeState.TIMEOUT, OutcomeState.PRUNED]
)
def test_a_failure_is_kept_with_its_reason_and_the_search_goes_on(tmp_path, state):
    state = OutcomeState(state)
    oracle = oracle_for()
    study = make_study(tmp_path, oracle=oracle)
    step(study, state=state, score=None, reason="because")
    row = study.store.trials()[0]
    assert (row.state, row.reason, row.score, row.seconds) == (state, "because", None, 1.0)
    assert without_reports(oracle) == ([] if state == OutcomeState.PRUNED else [("tell", 0, 0, None)])
    assert step(study).number == 1


def test_a_trial_whose_process_dies_is_tried_once_more(tmp_path):
    study = make_study(tmp_path)
    first = step(study, **DIED)
    assert study.store.trials()[0].state == TrialState.PLANNED
    again = step(study)
    assert (again.number, again.rung, again.params, again.seed) == (0, 0, first.params, first.seed)
    assert again.attempt > first.attempt
    row = study.store.trials()[0]
    assert (row.state, row.score) == (TrialState.PAUSED, score_of(again.params, 0))
    assert row.reason == "its process died (signal 9); tried again"


def test_a_trial_whose_process_dies_twice_is_crashed_also_across_a_resume(tmp_path):
    for number, is_resumed in enumerate((False, True)):
        study = make_study(tmp_path / str(number))
        step(study, **DIED)
        if is_resumed:
            study = reopened(study)
        assert step(study, **DIED).number == 0
        assert study.store.trials()[0].state == TrialState.CRASHED
        assert step(study).number == 1


def test_a_lack_of_memory_is_tried_again_in_smaller_pieces_and_then_infeasible(tmp_path):
    study = make_study(tmp_path)
    assert step(study, **OUT_OF_MEMORY).num_micro_batches == 1
    assert study.store.trials()[0].reason == "no memory; tried again with 4 micro-batches"
    study = reopened(study)
    assert step(study, **OUT_OF_MEMORY).num_micro_batches == 4
    assert study.store.trials()[0].state == TrialState.INFEASIBLE
    assert step(study).num_micro_batches == 1


def test_a_trial_that_needed_smaller_pieces_gets_them_in_later_rungs_and_as_the_winner(tmp_path):
    study = make_study(tmp_path, unlimited(1, (1000, 3000)))
    pieces = [step(study, **OUT_OF_MEMORY), step(study), step(study)]
    assert [(job.rung, job.num_micro_batches) for job in pieces] == [(0, 1), (0, 4), (1, 4)]
    assert begin_final(study, study.rows[0]).num_micro_batches == 4
    assert begin_student(study, study.rows[0]).num_micro_batches == 4


def test_a_network_over_a_limit_is_not_tried_again(tmp_path):
    study = make_study(tmp_path)
    step(study, state=OutcomeState.INFEASIBLE, score=None, reason="9 ms for one image, more than 5")
    assert study.store.trials()[0].state == TrialState.INFEASIBLE
    assert step(study).number == 1


def test_a_measured_latency_stays_with_the_trial(tmp_path):
    study = make_study(tmp_path, unlimited(1), objective=Objective("val_accuracy", "latency"))
    job = step(study, findings=Findings(Latency(1.0, 2.5)))
    assert study.store.trials()[0].latency_ms == 2.5
    assert study.values(study.attempts[0][0]) == (score_of(job.params, 0), 2.5)


def test_a_stopped_trial_goes_on_first_and_keeps_its_rung(tmp_path):
    study = make_study(tmp_path)
    first, second = study.ask(), study.ask()
    study.tell(train_into(study, first, state=OutcomeState.STOPPED, score=None))
    assert study.store.trials() == []  # nothing was saved yet
    study.store.save()
    assert [row.state for row in study.store.trials()] == [TrialState.PLANNED, TrialState.RUNNING]
    again = study.ask()
    assert (again.number, again.rung, again.seed) == (first.number, 0, first.seed)
    assert second.number == 1


# ---- what is on disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [0, 3, 9, 17])
def test_a_search_that_was_killed_between_any_two_steps_proposes_the_same(tmp_path, num_steps):
    whole = make_study(tmp_path / "whole", unlimited(12))
    run_all(whole)
    killed = make_study(tmp_path / "killed", unlimited(12))
    for _ in range(num_steps):
        if killed.ask() is not None:
            killed.store.save()
            killed.tell(train_into(killed, next(iter(killed.running.values()))))
    killed.ask()  # decided, not saved: the process is gone
    resumed = reopened(killed)
    run_all(resumed)
    assert ends(resumed.store.trials()) == ends(whole.store.trials())


def test_what_ended_and_what_starts_next_is_one_transaction(tmp_path):
    study = make_study(tmp_path, unlimited(9))
    commits = []
    study.store.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    num_waits = itertools.count(1)

    class CountingEngine(InstantEngine):
        def poll(self, seconds):
            self.num_waits = next(num_waits)
            return super().poll(seconds)

    engine = CountingEngine(lambda job, emit: train_at_once(job, emit, seconds=2.0), 2)
    run_trials(study, engine, Silence())
    assert len(commits) == engine.num_waits + 2  # before the first wait, and when the trials are completed


def test_a_crash_between_tell_and_save_loses_nothing(tmp_path):
    study = make_study(tmp_path, unlimited(9))
    for _ in range(4):
        step(study)
    job = study.ask()
    study.store.save()
    before = StudyStore(study.store.path, is_read_only=True).attempts()
    study.tell(train_into(study, job))
    study.ask()
    assert StudyStore(study.store.path, is_read_only=True).attempts() == before
    resumed = reopened(study)
    again = resumed.ask()
    assert (again.number, again.rung, again.params) == (job.number, job.rung, job.params)


def test_the_last_training_is_none_of_the_trials_and_goes_on_as_it_began(tmp_path):
    study = make_study(tmp_path, unlimited(3))
    run_all(study)
    final = begin_final(study, study.leader)
    assert (final.training, final.is_final, final.samples) == (TrainingKind.FINAL, True, round(RUNGS[-1] * 1.25))
    study.store.save()
    resumed = reopened(study)
    assert len(resumed.store.trials()) == 3
    assert resumed.ask() is None
    again = begin_final(resumed, resumed.leader)
    assert (again.samples, again.seed, again.params) == (final.samples, final.seed, final.params)


def test_a_resumed_study_knows_how_long_its_trainings_took(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, unlimited(4), clock=clock)
    run_all(study, seconds=7.5)
    resumed = reopened(study)
    assert resumed.estimates.measured == pytest.approx(study.estimates.measured)
    assert resumed.store.get("elapsed") == clock.now


def test_seeds_of_trainings_differ_and_zero_is_a_seed():
    seeds = {trial_seed(seed, number, rung) for seed in (0, 1) for number in range(50) for rung in (0, 1)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert trial_seed(0, 1, 0) == trial_seed(0, 1, 0)


def test_a_goal_that_is_reached_ends_the_search(tmp_path):
    study = make_study(tmp_path, unlimited(50))
    engine = InstantEngine(lambda job, emit: train_at_once(job, emit, score=0.1 * job.number), 2)
    run_trials(study, engine, Silence(), goal=0.35)
    assert len(study.rows) < 10
    assert study.leader.score >= 0.35


def test_an_outcome_of_a_task_that_nobody_asked_for_is_a_bug(tmp_path):
    study = make_study(tmp_path)
    with pytest.raises(KeyError):
        study.tell(TrialOutcome(99, 0, 0, OutcomeState.COMPLETED, 0.5))
