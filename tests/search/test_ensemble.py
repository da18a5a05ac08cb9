"""Several networks answer where validation images say so, no limit forbids it, and each has time to train."""

import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cli.search_plan import check_ensemble
from pipeline.cli.sync_job import member_tags
from pipeline.errors import InvalidUsage, TrialFailed
from pipeline.records import COMPLETED, FAILED, INFEASIBLE, STOPPED, EpochRow, Objective, TrialOutcome, TrialRow, TrialTask
from pipeline.search import flip_average, members, validation
from pipeline.search.budget import ENSEMBLE_STRETCH, FINAL_IMAGES, RESTART_SECONDS, Budget, Workforce, plan_budget
from pipeline.search.ensemble import choose_members, members_text, named
from pipeline.search.job import begin_final, cost_of, final_score
from pipeline.search.pace import HOPE, MAX_STRETCH, PLANNED_PART, Limits
from pipeline.search.store import DIED, DONE
from pipeline.search.validation import Predictions, judge_validation, judged_trials, read_mean
from tests.search.stubs import Clock, make_study, make_terms, unlimited

LABELS = (np.arange(60) % 2).astype(np.int32)
ROWS = {"first": slice(0, 30), "middle": slice(20, 50), "last": slice(50, 60), "none": slice(0, 0), "all": slice(0, 60)}
RUNGS = (3000, 9000, 27_000)  # 27 passes over the images of the stub


def right_in(name: str) -> np.ndarray:
    """Return logits of a network that is sure of its right answers, and unsure of its wrong ones."""
    margin = np.full(60, -1.0, np.float32)
    margin[ROWS[name]] = 3.0
    return np.eye(2, dtype=np.float32)[LABELS] * margin[:, None]


def keep(folder, number, logits, averaged=None):
    task = TrialTask(str(folder), 1, number, 2, 100, {}, 0, 60.0)
    validation.keep(task, [Predictions(logits, LABELS, averaged)])


def searched(folder, *rights, objective="val_accuracy", budget=None, clock=None, **terms):
    """Return a study whose trials are right in some of the validation images, and the first of them, the winner."""
    study = make_study(folder, budget or unlimited(), make_terms(**terms), clock, objective=Objective(objective))
    for number, name in enumerate(rights):
        row = TrialRow(number, COMPLETED, 0.5, study.terms.typical, 1000, 2.0, 30.0, "", 27, 27, 2, RUNGS[-1], 1.5)
        study.rows[number] = row
        study.pace.measured[number] = 0.001
        keep(folder, number, right_in(name))
    return study, study.rows[0]


def trials_of(found) -> list[int]:
    return [each["trial"] for each in found["members"]]


# ---- who answers ----------------------------------------------------------------------------------------------------


def test_those_are_added_with_which_the_mean_is_best_as_long_as_it_becomes_better(tmp_path):
    study, best = searched(tmp_path, "first", "none", "last", "middle", "first")
    found = choose_members(study, best)
    assert (trials_of(found), found["winner"], found["is_kept"], found["reason"]) == ([0, 3, 2], 0, True, "")
    assert (found["alone"], found["averaged"]) == (0.5, 1.0)
    assert study.store.get("ensemble") == found
    assert members_text(found, "val_accuracy") == (
        "each image is labelled by the mean of trials 0, 3 and 2: val_accuracy 1.0000, trial 0 alone 0.5000; "
        "3.0 times the work"
    )
    assert final_score(best, {"ensemble": found}) == 1.0
    assert cost_of(best, {"ensemble": found, "flip_average": {"is_kept": True}}) == {"num_params": 3000, "mflops": 12.0}
    assert member_tags(found) == {"pipeline.mean_of_trials": "0, 3, 2"}


def test_two_are_enough_where_a_third_makes_it_no_better(tmp_path):
    study, best = searched(tmp_path, "first", "middle", "none", "first")
    found = choose_members(study, best)
    assert (trials_of(found), found["averaged"], named(found)) == ([0, 1], pytest.approx(50 / 60), "trials 0 and 1")


def test_a_smaller_loss_is_better(tmp_path):
    study, best = searched(tmp_path, "first", "none", "all", objective="val_loss")
    found = choose_members(study, best)
    assert trials_of(found) == [0, 2]
    assert found["averaged"] < found["alone"]


@pytest.mark.parametrize(
    ("rights", "reason"),
    [
        (["first"], "no other trial has finished the highest rung"),
        (["first", "first", "none"], "no mean with another trial is better on the validation images"),
    ],
)
def test_the_winner_answers_alone_where_nothing_is_better(tmp_path, rights, reason):
    study, best = searched(tmp_path, *rights)
    found = choose_members(study, best)
    assert (found["is_kept"], found["reason"]) == (False, reason)
    assert members_text(found, "val_accuracy").startswith(f"not used: {reason}")
    assert named(found) == "the winner"
    assert (final_score(best, {"ensemble": found}), member_tags(found)) == (0.5, {})
    assert cost_of(best, {"ensemble": found}) == {"num_params": 1000, "mflops": 2.0}


def test_only_trials_whose_logits_can_be_read_take_part(tmp_path):
    study, best = searched(tmp_path, "first", "middle", "last")
    validation.logits_path(tmp_path, 1).write_bytes(b"damaged")
    validation.logits_path(tmp_path, 2).unlink()
    assert choose_members(study, best)["reason"] == "no other trial has finished the highest rung"
    validation.logits_path(tmp_path, 0).unlink()
    assert choose_members(study, best)["reason"] == "the winner has no validation logits of the highest rung"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_params=1999), "2,000 parameters, more than 1,999"),
        (Limits(max_mflops=3.9), "4 MFLOPs, more than 3.9"),
        (Limits(max_latency_ms=2.9), "3.00 ms for one image on one core, more than 2.9"),
    ],
)
def test_no_more_answer_than_the_limits_allow(tmp_path, limits, text):
    study, best = searched(tmp_path, "first", "middle", "last", limits=limits)
    assert choose_members(study, best)["reason"] == f"two networks are beyond the limits: {text}"
    wider = replace(limits, **{name: 1.4 * value for name, value in vars(limits).items() if value is not None})
    study, best = searched(tmp_path / "wider", "first", "middle", "last", limits=wider)
    assert trials_of(choose_members(study, best)) == [0, 1]


def test_a_trial_that_is_picked_answers_alone(tmp_path):
    study, best = searched(tmp_path, "first", "middle")
    assert choose_members(study, best)["is_kept"]
    found = choose_members(study, best, is_picked=True)
    assert (found["is_kept"], found["reason"]) == (False, "a trial that is picked answers alone")
    assert begin_final(study, best).samples == round(9000 * 1.25)


@pytest.mark.parametrize("minimise", ["params", "mflops"])
def test_it_is_refused_where_a_cheap_network_is_wanted(minimise):
    with pytest.raises(InvalidUsage, match=f"two or three networks, and --minimise {minimise} looks for a cheap one"):
        check_ensemble({"ensemble": True, "minimise": minimise})
    check_ensemble({"ensemble": True, "minimise": None})
    check_ensemble({"ensemble": False, "minimise": minimise})


# ---- their time -----------------------------------------------------------------------------------------------------


def timed(folder, seconds_left):
    """Return a study with some seconds left, and its winner; to train for a highest rung's passes takes 34 s."""
    clock = Clock()
    budget = Budget(600.0, None, RUNGS, 300.0, 580.0, final_stretch=ENSEMBLE_STRETCH)
    study, best = searched(folder, "first", "last", "middle", budget=budget, clock=clock)
    clock.now = 580.0 - seconds_left
    return study, best


@pytest.mark.parametrize(("seconds_left", "trials"), [(100.0, [0, 2, 1]), (70.0, [0, 2])])
def test_as_many_answer_as_can_train_for_long(tmp_path, seconds_left, trials):
    study, best = timed(tmp_path, seconds_left)
    found = choose_members(study, best)
    num = len(trials)
    assert (trials_of(found), found["averaged"]) == (trials, pytest.approx((50 + 10 * (num == 3)) / 60))
    stretch = PLANNED_PART * (seconds_left - num * 1.5) / (num * 33.75)
    for each in found["members"]:
        assert each["samples"] == pytest.approx(HOPE * stretch * 33_750, rel=1e-3)
        assert each["share"] == pytest.approx(1 / num)
    task = begin_final(study, best)
    assert task.samples == sum(each["samples"] for each in found["members"])
    assert study.store.get("winner") is None
    study.store.save()
    assert study.store.get("winner") == 0


def test_where_time_is_short_one_network_trains_longer(tmp_path):
    study, best = timed(tmp_path, 40.0)
    found = choose_members(study, best)
    passes = 33.75 * PLANNED_PART * (40.0 - 3.0) / 67.5
    assert not found["is_kept"]
    assert f"two networks would see their images {passes / 1.25:.1f} times each; below 20 one" in found["reason"]
    assert members_text(found, "val_accuracy").endswith("(val_accuracy 0.5000, mean 0.8333)")
    assert begin_final(study, best).samples == study.pace.hoped_samples(best)


def test_a_last_training_that_was_stopped_goes_on_with_the_same_members(tmp_path):
    study, best = timed(tmp_path, 100.0)
    found = choose_members(study, best)
    task = begin_final(study, best)
    study.store.save()
    study.running.pop(task.attempt)
    attempt = study.attempts[-2][-1]
    study.end_attempt(attempt, STOPPED, TrialOutcome(task.attempt, -2, 2, STOPPED))
    study.pace.elapsed.now += 40.0
    assert choose_members(study, best) == found
    assert begin_final(study, best).samples == task.samples
    study.end_attempt(study.attempts[-2][-1], DONE)
    assert choose_members(study, best)["members"] != found["members"]  # it has less time now


@pytest.mark.parametrize("state", [DIED, FAILED, INFEASIBLE])
def test_after_a_last_training_of_several_that_failed_the_winner_answers_alone(tmp_path, state):
    study, best = timed(tmp_path, 100.0)
    assert choose_members(study, best)["is_kept"]
    begin_final(study, best)
    study.end_attempt(study.attempts[-2][-1], state)
    for _ in range(2):  # also when that was stopped, and goes on
        found = choose_members(study, best)
        assert (found["is_kept"], found["reason"]) == (False, f"the last training of trials 0, 2 and 1 ended as {state}")
        task = begin_final(study, best)
        study.end_attempt(study.attempts[-2][-1], STOPPED, TrialOutcome(task.attempt, -2, 2, STOPPED))


def test_another_winner_has_members_of_its_own(tmp_path):
    study, best = timed(tmp_path, 100.0)
    choose_members(study, best)
    task = begin_final(study, best)
    study.end_attempt(study.attempts[-2][-1], STOPPED, TrialOutcome(task.attempt, -2, 2, STOPPED))
    assert trials_of(choose_members(study, study.rows[1]))[0] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_time_for_three_is_kept_from_the_trials(workers):
    workforce = Workforce(workers, 1, 1.5)
    plain, shared = (
        plan_budget(600.0, None, None, 0.001, 10_000, True, workforce, 12.0, True, has_ensemble=has)
        for has in (False, True)
    )
    assert (shared.final_stretch, shared.end) == (ENSEMBLE_STRETCH, plain.end)
    assert shared.search_until < plain.search_until
    assert 0.6 * plain.rungs[-1] < shared.rungs[-1] < 0.9 * plain.rungs[-1]
    assert ENSEMBLE_STRETCH <= MAX_STRETCH  # what they do not need, the winner can use
    assert FINAL_IMAGES > 1


def test_one_process_trains_all(tmp_path):
    study, best = searched(tmp_path, "first", "last", workforce=Workforce(2, 1))
    alone = study.pace.full_final_seconds([best])
    assert study.pace.full_final_seconds([best, study.rows[1]]) == pytest.approx(2 * alone - RESTART_SECONDS)


def test_trials_end_early_enough_for_three(tmp_path):
    left = []
    for number, stretch in enumerate((1.5, ENSEMBLE_STRETCH)):
        budget = Budget(600.0, None, RUNGS, 300.0, 580.0, final_stretch=stretch)
        study, best = searched(tmp_path / str(number), "first", budget=budget, clock=Clock())
        left.append(study.pace.time_left(best))
    assert left[0] - left[1] == pytest.approx((ENSEMBLE_STRETCH - 1.5) * 33.75)


# ---- what they say together -----------------------------------------------------------------------------------------


def test_the_mean_of_the_members_is_what_is_judged(tmp_path):
    facts = {"winner": 0, "ensemble": {"is_kept": True, "members": [{"trial": 0}, {"trial": 1}]}}
    assert judged_trials(facts) == [0, 1]
    assert judged_trials({"winner": 4, "ensemble": {"is_kept": False}}) == judged_trials({"winner": 4}) == [4]
    keep(tmp_path, 0, right_in("first"), right_in("all"))
    keep(tmp_path, 1, right_in("middle"), right_in("none"))
    said = read_mean(tmp_path, [0, 1])
    np.testing.assert_allclose(said.logits, (right_in("first") + right_in("middle")) / 2)
    np.testing.assert_allclose(said.averaged, (right_in("all") + right_in("none")) / 2)
    assert read_mean(tmp_path, [0, 7]) is None
    np.testing.assert_array_equal(read_mean(tmp_path, [0]).logits, right_in("first"))
    assert judge_validation(tmp_path, [0, 1], "val_accuracy")[0]["value"] == pytest.approx(50 / 60)
    keep(tmp_path, 1, right_in("middle"))
    assert read_mean(tmp_path, [0, 1]).averaged is None
    validation.logits_path(tmp_path, 1).write_bytes(b"damaged")
    reason = judge_validation(tmp_path, [0, 1], "val_accuracy")[1].reason
    assert reason.endswith("t00000.npz or " + str(validation.logits_path(tmp_path, 1)) + " is damaged")


def test_flips_are_averaged_by_all_members_and_count_for_all(tmp_path):
    keep(tmp_path, 0, right_in("first"), right_in("all"))
    keep(tmp_path, 1, right_in("first"), right_in("all"))
    params = {"filters": 16, "depth": 1}
    facts = {
        "winner": 0, "objective": "val_accuracy", "options": {"average_flips": True}, "space": {},
        "image": {"height": 8, "width": 8, "channels": 1}, "classes": ["ant", "bee"],
        "ensemble": {"is_kept": True, "members": [{"trial": 0, "params": params}, {"trial": 1, "params": params}]},
    }  # fmt: skip
    task = TrialTask(str(tmp_path), 1, -2, 2, 100, params, 0, 60.0)
    found = flip_average.choose(task, facts, None)
    assert (found["alone"], found["averaged"], found["is_kept"]) == (0.5, 1.0, True)
    one = 2 * (8 * 8 * 9 * 16 + 16 * 2)
    assert flip_average.work(task, facts) == 2 * one
    limited = {**facts, "limits": {"max_mflops": 3.9 * one / 1e6}}
    assert flip_average.choose(task, limited, None)["reason"].startswith(f"twice the work is {4 * one / 1e6:.6g}")


# ---- their last training --------------------------------------------------------------------------------------------


def planned(num: int) -> list[dict]:
    return [
        {
            "trial": 7 - n,
            "params": {"filters": n},
            "num_params": n,
            "mflops": 1.0,
            "samples": 10 * (n + 1),
            "share": 0.5,
            "num_micro_batches": 1 + n,
        }
        for n in range(num)
    ]


def trained(monkeypatch, outcomes, num=3):
    """Train members whose trainings end as named; return what became of them and the tasks."""
    tasks, plan = [], planned(num)

    def train_watched(task, facts, training, held_out, report, fold):
        tasks.append((task, fold))
        outcome = outcomes[len(tasks) - 1]
        if isinstance(outcome, str):
            raise TrialFailed(outcome, "by design")
        return f"model {len(tasks) - 1}", EpochRow(task.first_step + outcome[0] - 1, *[0.0] * 9), outcome[1]

    monkeypatch.setattr(members, "train_watched", train_watched)
    monkeypatch.setattr(members, "bare", lambda model: model)
    facts = {"seed": 3, "ensemble": {"is_kept": True, "members": plan, "reason": "", "winner": 7}}
    wanted_end = time.monotonic() + 60.0
    task = TrialTask("study", 1, -2, 2, 99, {"filters": 0}, 11, 60.0, 5, wanted_end=wanted_end, is_final=True)
    return *members.train_members(task, facts, None, None), tasks


def test_members_train_one_after_the_other_and_share_what_is_left(monkeypatch):
    began = time.monotonic()
    networks, found, tasks = trained(monkeypatch, [(4, 4), (2, 2), (3, 3)])
    assert [(each.model, each.epochs) for each in networks] == [("model 0", 4), ("model 1", 2), ("model 2", 3)]
    assert [fold for _, fold in tasks] == [None, 1, 2]
    assert [(task.params["filters"], task.samples, task.first_step) for task, _ in tasks] == [
        (0, 10, 5), (1, 20, 9), (2, 30, 11),
    ]  # fmt: skip
    assert [task.seconds_limit for task, _ in tasks] == [pytest.approx(60, abs=0.2)] * 3  # who is late takes the others'
    wanted = [task.wanted_end - began for task, _ in tasks]
    assert wanted == [pytest.approx(20, abs=0.2), pytest.approx(30, abs=0.2), pytest.approx(60, abs=0.2)]
    assert [task.num_micro_batches for task, _ in tasks] == [1, 2, 3]
    seeds = [task.seed for task, _ in tasks]
    assert (seeds[0], len(set(seeds))) == (11, 3)
    assert found["is_kept"]
    assert found["members"][1] == {"trial": 6, "params": {"filters": 1}, "num_params": 1, "mflops": 1.0, "epochs": 2}


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([(4, 4), FAILED], "the training of trial 6 ended as FAILED: by design"),
        ([(4, 4), (2, 2), (1, 3)], "the training of trial 5 was cut off: the time was over"),
    ],
)
def test_the_winner_answers_alone_where_another_does_not_train_to_its_end(monkeypatch, outcomes, text):
    networks, found, _ = trained(monkeypatch, outcomes)
    assert [each.model for each in networks] == ["model 0"]
    assert (found["is_kept"], found["reason"], "members" in found) == (False, text, False)


@pytest.mark.parametrize("outcomes", [[FAILED], [STOPPED], [(4, 4), STOPPED]])
def test_a_winner_that_fails_and_a_stop_end_the_training(monkeypatch, outcomes):
    with pytest.raises(TrialFailed):
        trained(monkeypatch, outcomes)


def test_without_an_ensemble_the_task_is_trained_as_it_is(monkeypatch):
    tasks = []

    def train_watched(task, facts, training, held_out, report, fold):
        tasks.append((task, fold))
        return "model", EpochRow(3, *[0.0] * 9), 4

    monkeypatch.setattr(members, "train_watched", train_watched)
    monkeypatch.setattr(members, "bare", lambda model: model)
    task = TrialTask("study", 1, -2, 2, 99, {"filters": 0}, 11, 60.0)
    assert members.train_members(task, {}, None, None) == ([("model", 3, 4)], {"is_kept": False})
    assert tasks == [(task, None)]
