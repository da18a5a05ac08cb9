"""Ask and tell: what a study proposes, promotes, survives and remembers."""

import math

import pytest

from pipeline.records import COMPLETED, CRASHED, FAILED, INFEASIBLE, PAUSED, PLANNED, PRUNED, RUNNING, TIMEOUT
from pipeline.search.budget import Budget, plan_budget
from pipeline.search.store import ranked, winner
from pipeline.search.study import trial_seed
from tests.search.stubs import Clock, SampledProposals, make_study, run_all, score_of, train

pytestmark = pytest.mark.heavy  # many cases: seconds


def test_the_first_trial_is_the_default_configuration(tmp_path):
    study = make_study(tmp_path)
    task = study.ask()
    assert task.params == study.terms.space.defaults()
    assert (task.number, task.rung, task.first_step) == (0, 0, 1)
    assert study.store.trials()[0].state == RUNNING


def test_the_best_three_train_longer_and_the_best_score_wins(tmp_path):
    study = make_study(tmp_path)
    tasks = run_all(study)
    screened = {task.number: score_of(task) for task in tasks if task.rung == 0}
    finalists = [task for task in tasks if task.rung == 1]
    assert len(screened) == 6
    assert [task.number for task in finalists] == sorted(screened, key=screened.get, reverse=True)[:3]
    assert all(task.epochs == 2 * tasks[0].epochs and task.first_step == tasks[0].epochs + 1 for task in finalists)
    rows = study.store.trials()
    assert {row.state for row in rows} == {COMPLETED}
    best = winner(rows)
    assert best.number == finalists[0].number
    assert best.score == score_of(finalists[0])
    assert best.epochs == finalists[0].epochs
    assert best.best_epoch == 3 * tasks[0].epochs


def test_every_failure_is_kept_with_its_reason_and_the_search_goes_on(tmp_path):
    proposals = SampledProposals()
    study = make_study(tmp_path, proposals=proposals)
    ends = {0: (FAILED, "ValueError: bad"), 1: (INFEASIBLE, "out of memory at batch 64"), 2: (TIMEOUT, "too slow")}
    ends[3] = (PRUNED, "the time was over")
    while task := study.ask():
        if task.number in ends:
            state, reason = ends[task.number]
            study.tell(train(study, task, state=state, score=None, reason=reason))
        else:
            study.tell(train(study, task))
    rows = {row.number: row for row in study.store.trials()}
    assert {number: (rows[number].state, rows[number].reason) for number in ends} == ends
    assert [rows[number].score for number in ends] == [None] * 4
    assert (rows[4].state, rows[5].state) == (COMPLETED, COMPLETED)
    assert {proposals.told[number] for number in ends} == {None}
    assert winner(list(rows.values())).number in (4, 5)


def test_a_trial_whose_process_dies_once_is_tried_again_and_twice_is_crashed(tmp_path):
    study = make_study(tmp_path)
    first = study.ask()
    study.tell(train(study, first, state=CRASHED, score=None, reason="its process died (signal 9)"))
    assert study.store.trials()[0].state == PLANNED
    again = study.ask()
    assert (again.number, again.attempt) == (0, first.attempt + 1)
    study.tell(train(study, again))
    assert study.store.trials()[0].reason == "its process died (signal 9); tried again"
    assert study.store.trials()[0].score == score_of(again)
    for _ in range(2):
        task = study.ask()
        assert task.number == 1
        study.tell(train(study, task, state=CRASHED, score=None, reason="its process died (signal 9)"))
    assert study.store.trials()[1].state == CRASHED
    assert study.ask().number == 2


def test_a_finalist_that_fails_keeps_the_score_of_its_screening(tmp_path):
    study = make_study(tmp_path)
    while (task := study.ask()).rung == 0:
        study.tell(train(study, task))
    study.tell(train(study, task, state=FAILED, score=None, reason="the loss became nan"))
    row = study.store.trials()[task.number]
    assert (row.state, row.score) == (COMPLETED, study.store.scores(0)[task.number])
    assert row.reason == "the longer training ended as FAILED: the loss became nan"


def test_no_finalists_before_every_screening_is_told(tmp_path):
    study = make_study(tmp_path, plan_budget(None, 2, 1.0, 1000, 2))
    first, second = study.ask(), study.ask()
    assert study.ask() is None
    study.tell(train(study, first))
    assert study.ask() is None  # the second is still running
    study.tell(train(study, second))
    assert study.ask().rung == 1


@pytest.mark.parametrize("num_done", [0, 3, 5, 8])
def test_a_study_killed_at_any_task_ends_with_the_same_trials_and_winner(tmp_path, num_done):
    whole = make_study(tmp_path / "whole" if (tmp_path / "whole").mkdir() is None else tmp_path)
    run_all(whole)
    (tmp_path / "killed").mkdir()
    killed = make_study(tmp_path / "killed")
    for _ in range(num_done):
        if task := killed.ask():
            killed.tell(train(killed, task))
    killed.ask()  # started, never told: the process is gone
    killed.store.close()
    resumed = make_study(tmp_path / "killed")
    resumed.recover()
    run_all(resumed)
    rows, expected = resumed.store.trials(), whole.store.trials()
    assert [(row.number, row.params, row.score, row.state) for row in rows] == [
        (row.number, row.params, row.score, row.state) for row in expected
    ]
    assert winner(rows).number == winner(expected).number


def test_recovering_replays_every_trial_to_the_oracle(tmp_path):
    study = make_study(tmp_path)
    for _ in range(3):
        study.tell(train(study, study.ask()))
    study.ask()
    proposals = SampledProposals()
    again = make_study(tmp_path, proposals=proposals)
    assert again.recover() == 4
    assert proposals.replayed == [0, 1, 2, 3]
    assert set(proposals.told) == {0, 1, 2}
    assert again.ask().number == 3


def test_an_exhausted_space_ends_the_screening(tmp_path):
    study = make_study(tmp_path, proposals=SampledProposals(limit=2))
    tasks = run_all(study)
    assert [task.number for task in tasks if task.rung == 0] == [0, 1]
    assert sorted(task.number for task in tasks if task.rung == 1) == [0, 1]


def test_a_budget_is_divided_into_screening_and_finalists_and_not_exceeded(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, plan_budget(300.0, None, 0.5, 1000, 1), clock)
    tasks = run_all(study, seconds=10.0)
    assert len([task for task in tasks if task.rung == 0]) >= 8
    assert [task.rung for task in tasks] == sorted(task.rung for task in tasks)
    assert clock.now <= 300.0
    final = study.final_task(winner(study.store.trials()))
    assert final.is_final
    assert final.epochs >= 1


def test_configurations_that_are_too_slow_for_the_budget_are_not_proposed(tmp_path):
    tight = Budget(100.0, None, 5, 50.0, 90.0, trial_seconds=0.2)  # nothing trains in 0.6 s
    study = make_study(tmp_path, tight)
    first = study.ask()  # but one is tried, if it fits at all
    study.tell(train(study, first))
    assert study.propose() is None


def test_a_study_without_a_score_screens_again_when_it_is_resumed(tmp_path):
    study = make_study(tmp_path, plan_budget(None, 1, 1.0, 1000, 1))
    study.tell(train(study, study.ask(), state=FAILED, score=None, reason="x"))
    assert study.ask() is None
    again = make_study(tmp_path, plan_budget(None, 2, 1.0, 1000, 1))
    again.recover()
    assert again.ask().number == 1


def test_the_finalists_leave_the_winner_its_time(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, Budget(1000.0, 2, 10, 500.0, 990.0, 100.0), clock)
    while (task := study.ask()).rung == 0:
        clock.now += 100.0
        study.tell(train(study, task, seconds=100.0))
    assert task.seconds_limit == pytest.approx(990.0 - clock.now - 1.25 * task.epochs * (100.0 - 1.5) / 10)


def test_the_last_training_is_cut_to_the_time_that_is_left(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, Budget(1000.0, 2, 10, 500.0, 990.0, 100.0), clock)
    run_all(study, seconds=20.0)  # 10 epochs, then 40
    best = winner(study.store.trials())
    clock.now = 990.0 - 5.0
    seconds_per_epoch = (best.seconds - 2 * 1.5) / best.best_epoch * 1.25
    assert int(5.0 / seconds_per_epoch) < 10
    assert study.final_task(best).epochs == 10  # never less than what the screening chose it by
    clock.now = 990.0 - 15.2 * seconds_per_epoch
    assert study.final_task(best).epochs == 15


def test_a_finalist_that_would_take_the_winner_s_time_keeps_its_first_score(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, Budget(1000.0, 3, 1, 300.0, 990.0, 100.0), clock)
    while (task := study.ask()).rung == 0:
        clock.now += 100.0
        study.tell(train(study, task, seconds=100.0))
    assert task.epochs == 2  # (990 - 300 s) for one or two finalists and the winner at 98.5 s an epoch
    clock.now += 400.0  # twice as slow as before
    study.tell(train(study, task, seconds=400.0))
    assert study.ask() is None
    assert {row.state for row in study.store.trials()} == {COMPLETED}
    best = winner(study.store.trials())
    assert study.final_task(best).epochs >= 1


def test_rows_without_a_score_come_last_and_the_cheaper_of_equals_first(tmp_path):
    study = make_study(tmp_path)
    for task in (study.ask(), study.ask()):
        study.tell(train(study, task, score=0.5))
    study.tell(train(study, study.ask(), state=FAILED, score=None, reason="x"))
    rows = ranked(study.store.trials())
    assert rows[0].mflops <= rows[1].mflops
    assert rows[2].score is None
    assert rows[0].state == PAUSED


def test_seeds_of_trials_differ_and_zero_is_a_seed():
    seeds = {trial_seed(seed, number, rung) for seed in (0, 1) for number in range(50) for rung in (0, 1)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert trial_seed(0, 1, 0) == trial_seed(0, 1, 0)


def test_without_a_time_limit_every_trial_sees_as_many_images():
    budget = plan_budget(None, 5, 1.0, 60_000, 1)
    assert (budget.epochs, budget.max_trials) == (10, 5)
    assert math.isinf(budget.end)
