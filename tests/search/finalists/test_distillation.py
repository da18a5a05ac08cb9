"""The winner learns from a better trial where there is one, there is time, and validation images say that it helps."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Distillation, Evaluation
from pipeline.errors import InvalidUsage
from pipeline.records import Objective
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.finalists.distillation import distil, distillation_text
from pipeline.search.finish import begin_final, final_score
from pipeline.search.jobs import TrainingJob, TrialOutcome
from pipeline.search.options import SearchOptions, check_distillation
from pipeline.search.timing.budget import Budget, BudgetRequest, Parallelism, plan_budget
from pipeline.search.worker.teacher import keep_if_best, read_teacher, weights_path
from pipeline.states import AttemptState, OutcomeState, TrainingKind
from pipeline.workspace import StudyFolder
from tests.search.stubs import (
    Clock,
    InstantEngine,
    Network,
    Silence,
    job_in,
    keep_teacher,
    make_context,
    make_study,
    run_all,
    spec_of,
    unlimited,
)

SPEC = spec_of(options={"distill": True}, rungs=[100, 300])
PARAMS = {"filters": 32}


def task_in(folder, number=3, rung=1, spec=None) -> TrainingJob:
    return job_in(folder, 1, number, rung, 100, PARAMS, spec=spec)


def keep(folder, score, number=3, rung=1, spec=SPEC):
    keep_if_best(task_in(folder, number, rung, spec), Network(score), score)


# ---- whose weights are kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "best"), [("val_accuracy", 0.9), ("val_loss", 0.3)])
def test_the_weights_of_the_best_trial_of_the_highest_rung_are_kept(tmp_path, objective, best):
    spec = replace(SPEC, objective=objective)
    for number, score in enumerate((0.5, 0.9, 0.3, 0.9)):
        keep(tmp_path, score, number, spec=spec)
    keep(tmp_path, 1.0 if best == 0.9 else 0.0, 7, rung=0, spec=spec)
    teacher = read_teacher(StudyFolder(tmp_path).teacher)
    assert (teacher.number, teacher.score, teacher.params) == (1 if best == 0.9 else 2, best, PARAMS)
    with np.load(weights_path(StudyFolder(tmp_path).teacher)) as stored:
        assert stored["weight0000"].tolist() == np.full((2, 2), best, np.float32).tolist()


def test_none_are_kept_where_nobody_asked_and_a_damaged_file_is_replaced(tmp_path):
    keep(tmp_path, 0.9, spec=replace(SPEC, distill=False))
    assert not weights_path(StudyFolder(tmp_path).teacher).exists()
    weights_path(StudyFolder(tmp_path).teacher).parent.mkdir()
    weights_path(StudyFolder(tmp_path).teacher).write_bytes(b"damaged")
    assert read_teacher(StudyFolder(tmp_path).teacher) is None
    keep(tmp_path, 0.2)
    assert read_teacher(StudyFolder(tmp_path).teacher).score == 0.2


# ---- whether the winner learns --------------------------------------------------------------------------------------


def searched(tmp_path, objective="val_accuracy", budget=None, clock=None):
    """Return a study, the cheapest trial of its front, and the best one, whose weights are kept."""
    study = make_study(
        tmp_path, budget or unlimited(6), make_context(), clock, objective=Objective(objective, minimise="params")
    )
    run_all(study, 20.0)
    best = replace(next(iter(study.rows.values())), score=0.5, samples=3000, rung=1)
    study.rows[best.number] = best
    return study, best


def trained(score, jobs=None, **changes):
    """Return an engine that trains to a score, and keeps the tasks."""
    values = {"state": OutcomeState.COMPLETED, "score": score, "seconds": 2.0, **changes}

    def train(job, emit):
        if jobs is not None:
            jobs.append(job)
        return TrialOutcome(job.attempt, job.training, job.rung, **values)

    return InstantEngine(train)


def test_it_trains_as_its_trial_did_and_is_kept_where_the_objective_is_better(tmp_path):
    study, best = searched(tmp_path)
    keep_teacher(tmp_path, 0.9)
    jobs = []
    found = distil(study, trained(0.6, jobs), Silence(), best)
    assert found == Distillation(True, "", alone=0.5, value=0.6, student=best.number, teacher=99)
    assert study.store.get("distillation") == {
        "student": best.number, "teacher": 99, "alone": 0.5, "taught": 0.6, "is_kept": True, "reason": "",
    }  # fmt: skip
    (job,) = jobs
    assert (job.training, job.samples, job.params, job.is_final) == (TrainingKind.STUDENT, 3000, best.params, False)
    assert (job.rung, checkpoint_path(job).name) == (2, "student.npz")
    assert len(study.store.trials()) == 6
    assert distillation_text(found, "val_accuracy") == (
        "the winner is distilled from trial 99: val_accuracy 0.6000, without it 0.5000"
    )
    assert final_score(best, Evaluation(distillation=found)) == 0.6
    assert judged(study, best) == TrainingKind.STUDENT  # its temperature is that of the taught network
    assert judged(study, study.rows[best.number + 1]) == best.number + 1


def judged(study, row):
    """Return whose validation logits are looked for in the last training of a winner."""
    return begin_final(study, row).chosen.winner


@pytest.mark.parametrize(("objective", "scores"), [("val_accuracy", (0.5, 0.4)), ("val_loss", (0.5, 0.6))])
def test_it_is_not_kept_where_it_is_as_good_or_worse(tmp_path, objective, scores):
    for number, score in enumerate(scores):
        folder = tmp_path / str(number)
        study, best = searched(folder, objective)
        keep_teacher(folder, 0.1 if objective == "val_loss" else 0.9, objective)
        found = distil(study, trained(score), Silence(), best)
        assert (found.is_kept, found.reason) == (False, "no better on the validation images")
        assert distillation_text(found, objective).startswith("not used: no better on the validation images (val_")
        assert final_score(best, Evaluation(distillation=found)) == 0.5
        assert judged(study, best) == best.number


@pytest.mark.parametrize("score", [None, 0.4, 0.5])
def test_without_a_better_trial_nothing_is_trained(tmp_path, score):
    study, best = searched(tmp_path)
    if score is not None:
        keep_teacher(tmp_path, score)
    found = distil(study, InstantEngine(None), Silence(), best)
    assert (found.is_kept, found.reason) == (False, "no better trial has finished the highest rung")
    assert study.store.distillation() == found


def test_a_training_that_fails_costs_this_only(tmp_path):
    study, best = searched(tmp_path)
    keep_teacher(tmp_path, 0.9)
    found = distil(study, trained(None, state=OutcomeState.FAILED, reason="ValueError: odd"), Silence(), best)
    assert (found.is_kept, found.reason) == (False, "its training ended as FAILED: ValueError: odd")
    assert ([each.state for each in study.store.attempts(TrainingKind.STUDENT)], study.running) == (
        [AttemptState.FAILED],
        {},
    )


def test_a_process_that_dies_is_tried_once_more(tmp_path):
    study, best = searched(tmp_path)
    keep_teacher(tmp_path, 0.9)
    states = iter([OutcomeState.CRASHED, OutcomeState.COMPLETED])
    engine = InstantEngine(lambda job, emit: TrialOutcome(job.attempt, job.training, job.rung, next(states), 0.6))
    assert distil(study, engine, Silence(), best).is_kept
    assert [each.state for each in study.store.attempts(TrainingKind.STUDENT)] == [AttemptState.DIED, AttemptState.DONE]


def test_it_is_decided_once_for_each_network(tmp_path):
    study, best = searched(tmp_path)
    keep_teacher(tmp_path, 0.9)
    jobs = []
    engine = trained(0.6, jobs)
    distil(study, engine, Silence(), best)
    again = make_study(tmp_path, unlimited(6), make_context(), objective=study.objective)
    distil(again, engine, Silence(), best)
    assert len(jobs) == 1
    keep(tmp_path, 0.95, number=98, spec=replace(SPEC, rungs=(1, 2)))  # a better teacher came, after a resume
    assert distil(again, engine, Silence(), best).teacher == 98
    assert len(jobs) == 2
    distil(again, engine, Silence(), replace(best, number=best.number + 1))
    assert len(jobs) == 3


# ---- its share of the time ------------------------------------------------------------------------------------------


def timed(tmp_path, now):
    """Return a study with a time limit, its winner and its clock; a training of the winner takes some 100 s."""
    clock = Clock()
    budget = Budget(600.0, None, (1000, 3000, 9000), 300.0, 580.0, 0.0, 60.0)
    study, best = searched(tmp_path, budget=budget, clock=clock)
    study.estimates.measured[best.number] = 0.02
    study.estimates.reserved_for_retraining = 60.0
    clock.now = now
    keep_teacher(tmp_path, 0.9)
    return study, best


def test_its_seconds_are_kept_from_trials_until_it_is_decided(tmp_path):
    study, best = timed(tmp_path, 100.0)
    before = study.estimates.time_left(best)
    jobs = []
    distil(study, trained(0.6, jobs), Silence(), best)
    assert study.estimates.time_left(best) == pytest.approx(before + 60.0)
    left = 480.0 - study.estimates.final_seconds(best.params, best.samples, best.number)
    assert jobs[0].seconds_limit == pytest.approx(left)


def test_the_winner_comes_first_where_time_is_short(tmp_path):
    study, best = timed(tmp_path, 500.0)
    found = distil(study, InstantEngine(None), Silence(), best)
    assert (found.is_kept, found.reason.startswith("it takes some ")) == (False, True)
    assert found.reason.endswith(" s, of which the budget has 4 s")
    assert study.estimates.reserved_for_retraining == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_its_share_is_taken_from_the_trials(workers):
    parallelism = Parallelism(workers, 1, 1.5)
    plain, shared = (
        plan_budget(BudgetRequest(600.0, None, None, 0.001, 10_000, True, parallelism, 12.0, True, has))
        for has in (False, True)
    )
    assert (plain.retrain_seconds, shared.end) == (0, plain.end)
    assert shared.retrain_seconds == pytest.approx(1.3 / 1.5 * shared.rungs[-1] * 0.001 + parallelism.start_seconds)
    assert shared.search_until < plain.search_until
    assert 0.7 * plain.rungs[-1] < shared.rungs[-1] < plain.rungs[-1]


@pytest.mark.parametrize(
    ("changes", "text"), [({"minimise": None}, "expected --minimise, with which"), ({"folds": 5}, "with --folds no")]
)
def test_it_is_refused_where_no_network_can_teach_another(changes, text):
    options = SearchOptions("photos", distill=True, minimise="params")
    check_distillation(options)
    check_distillation(replace(options, **changes, distill=False))
    with pytest.raises(InvalidUsage, match=text):
        check_distillation(replace(options, **changes))
