"""Several networks answer where validation images say so, no limit forbids it, and each has time to train."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Ensemble, Evaluation, FlipAverage
from pipeline.errors import InvalidUsage
from pipeline.limits import Limits
from pipeline.records import Objective, TrialRow
from pipeline.search import planning, setup
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.finalists import ensemble
from pipeline.search.finalists.ensemble import choose_networks, ensemble_text
from pipeline.search.finish import begin_final, cost_of, final_score
from pipeline.search.jobs import TrialOutcome
from pipeline.search.options import SearchOptions, check_ensemble
from pipeline.search.timing.budget import (
    ENSEMBLE_EPOCHS_FACTOR,
    RESTART_SECONDS,
    Budget,
    BudgetRequest,
    Parallelism,
    plan_budget,
)
from pipeline.search.timing.estimates import (
    HOPE,
    LATE_PART,
    LATE_SECONDS,
    MAX_EPOCHS_FACTOR,
    PLANNED_PART,
    TimeEstimates,
)
from pipeline.search.worker import flip_average, validation
from pipeline.search.worker.validation import Predictions, judge_validation, judged_trainings, read_mean
from pipeline.states import AttemptState, OutcomeState, TrainingKind, TrialState
from pipeline.tracking.figures import decision_tags
from pipeline.workspace import StudyFolder
from tests.search.stubs import (
    Clock,
    InstantEngine,
    Silence,
    digests_of,
    job_in,
    make_context,
    make_study,
    spec_of,
    unlimited,
)

LABELS = (np.arange(60) % 2).astype(np.int32)
ROWS = {"first": slice(0, 30), "middle": slice(20, 50), "none": slice(0, 0), "all": slice(0, 60)}
RUNGS = (3000, 9000, 27_000)  # 27 passes over the images of the stub


def right_in(name: str) -> np.ndarray:
    """Return logits of a network that is sure of its right answers, and unsure of its wrong ones."""
    margin = np.full(60, -1.0, np.float32)
    margin[ROWS[name]] = 3.0
    return np.eye(2, dtype=np.float32)[LABELS] * margin[:, None]


def keep(folder, number, logits, averaged=None):
    validation.keep(job_in(folder, 1, number, 2), [Predictions(logits, LABELS, averaged, digests_of(60))])


def searched(folder, objective="val_accuracy", budget=None, clock=None, **context):
    """Return a study and its winner, a network that is right in half of the validation images."""
    study = make_study(folder, budget or unlimited(), make_context(**context), clock, objective=Objective(objective))
    best = TrialRow(0, TrialState.COMPLETED, 0.5, study.context.typical, 1000, 2.0, 30.0, "", 27, 27, 2, RUNGS[-1], 1.5)
    study.rows[0] = best
    study.estimates.measured[0] = 0.001
    keep(folder, 0, right_in("first"))
    return study, best


def twin(says="middle", jobs=None, **changes):
    """Return an engine that trains a twin, which is right in some of the images."""

    def train(job, emit):
        if jobs is not None:
            jobs.append(job)
        checkpoint_path(job).parent.mkdir(exist_ok=True)
        checkpoint_path(job).touch()
        if says:
            keep(job.folders.data.parent, job.training, right_in(says))
        values = {"state": OutcomeState.COMPLETED, "score": 0.5, "seconds": 2.0, **changes}
        return TrialOutcome(job.attempt, job.training, job.rung, **values)

    return InstantEngine(train)


def choose(study, best, engine=None):
    return choose_networks(study, engine or twin(), Silence(), best)


# ---- who answers ----------------------------------------------------------------------------------------------------


def test_three_answer_where_the_mean_of_the_winner_and_its_twin_is_better_than_one(tmp_path):
    study, best = searched(tmp_path)
    jobs = []
    found = choose(study, best, twin("middle", jobs))
    assert study.store.get("ensemble") == {
        "winner": 0, "alone": 0.5, "averaged": pytest.approx(50 / 60), "is_kept": True, "reason": "",
        "num_networks": 3, "samples": 11_250,
    }  # fmt: skip
    assert study.store.ensemble() == found
    (job,) = jobs
    assert (job.training, job.samples, job.params, job.rung) == (TrainingKind.SECOND_SEED, 27_000, best.params, 2)
    assert (job.is_final, checkpoint_path(job).name) == (False, "twin.npz")
    assert not checkpoint_path(job).exists()
    assert [each.state for each in study.store.attempts(TrainingKind.SECOND_SEED)] == [AttemptState.DONE]
    assert ensemble_text(found, "val_accuracy") == (
        "each image is labelled by the mean of 3 networks like the winner's: val_accuracy of two 0.8333, of one "
        "0.5000; 3 times the work"
    )
    assert final_score(best, Evaluation(ensemble=found)) == pytest.approx(50 / 60)
    assert cost_of(best, Evaluation(ensemble=found, flip_average=FlipAverage(True))) == (3000, 12.0)
    assert decision_tags(Evaluation(ensemble=found)) == {"pipeline.num_networks": "3"}
    assert begin_final(study, best).samples == 3 * 11_250


def test_one_is_the_mean_of_the_winner_and_its_twin(tmp_path):
    study, best = searched(tmp_path)
    found = choose(study, best, twin("all"))
    assert (found.alone, found.value, found.is_kept) == (0.75, 1.0, True)


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_winner_answers_alone_where_the_mean_is_no_better(tmp_path, objective):
    study, best = searched(tmp_path, objective)
    found = choose(study, best, twin("first"))
    assert (found.is_kept, found.reason) == (False, "no better on the validation images")
    assert ensemble_text(found, objective).startswith(
        f"not used: no better on the validation images ({objective} of two"
    )
    evaluation = Evaluation(ensemble=found)
    assert (final_score(best, evaluation), decision_tags(evaluation)) == (0.5, {})
    assert cost_of(best, evaluation) == (1000, 2.0)
    study, best = searched(tmp_path / "another", objective)
    assert choose(study, best, twin("all")).is_kept


def test_the_rounding_of_a_mean_is_no_gain(tmp_path, monkeypatch):
    study, best = searched(tmp_path)
    values = {
        (0,): 0.1,
        (TrainingKind.SECOND_SEED,): 0.2,
        (0, TrainingKind.SECOND_SEED): 0.15,
    }  # 0.1 + 0.2 is a little more than 0.3
    monkeypatch.setattr(ensemble, "value_of", lambda folder, numbers, objective: -values[tuple(numbers)])
    assert choose(study, best).reason == "no better on the validation images"


def test_without_logits_of_the_winner_or_its_twin_nobody_knows(tmp_path):
    study, best = searched(tmp_path)
    assert choose(study, best, twin(says="")).reason == "the network with a second seed left no validation logits"
    for damage in (lambda path: path.write_bytes(b"damaged"), lambda path: path.unlink()):
        damage(validation.logits_path(StudyFolder(tmp_path).logits, 0))
        found = choose(study, best, InstantEngine(None))
        assert found.reason == "the winner has no validation logits of the highest rung"
    assert ensemble_text(found, "val_accuracy") == f"not used: {found.reason}"


def test_a_twin_that_fails_costs_this_only_and_one_that_dies_is_tried_once_more(tmp_path):
    study, best = searched(tmp_path)
    found = choose(study, best, twin(state=OutcomeState.FAILED, score=None, reason="ValueError: odd"))
    assert (
        found.reason
        == "the network with a second seed could not be compared: its training ended as FAILED: ValueError: odd"
    )
    assert study.running == {}
    study, best = searched(tmp_path / "another")
    states = iter([OutcomeState.CRASHED, OutcomeState.COMPLETED])

    def train(job, emit):
        keep(job.folders.data.parent, job.training, right_in("all"))
        return TrialOutcome(job.attempt, job.training, job.rung, next(states), 0.6)

    assert choose(study, best, InstantEngine(train)).is_kept
    assert [each.state for each in study.store.attempts(TrainingKind.SECOND_SEED)] == [
        AttemptState.DIED,
        AttemptState.DONE,
    ]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_params=1999), "2,000 parameters, more than 1,999"),
        (Limits(max_mflops=3.9), "4 MFLOPs, more than 3.9"),
        (Limits(max_latency_ms=2.9), "3.00 ms for one image on one core, more than 2.9"),
    ],
)
def test_no_more_answer_than_the_limits_allow(tmp_path, limits, text):
    study, best = searched(tmp_path, limits=limits)
    assert choose(study, best, InstantEngine(None)).reason == f"two networks are beyond the limits: {text}"
    wider = replace(limits, **{name: 1.4 * value for name, value in vars(limits).items() if value is not None})
    study, best = searched(tmp_path / "wider", limits=wider)
    assert choose(study, best).num_networks == 2


def test_a_twin_is_trained_once_for_each_network(tmp_path):
    study, best = searched(tmp_path)
    jobs = []
    found = choose(study, best, twin("middle", jobs))
    again, _ = searched(tmp_path)
    assert choose(again, best, InstantEngine(None)) == found
    other = again.rows[1] = replace(best, number=1)
    keep(tmp_path, 1, right_in("all"))
    again.estimates.measured[1] = 0.001
    assert choose(again, other, twin("middle", jobs)).winner == 1
    assert len(jobs) == 2
    assert begin_final(again, best).samples == 11_250  # what answers beside trial 1 is not asked for trial 0


@pytest.mark.parametrize("minimise", ["params", "mflops"])
def test_it_is_refused_where_a_cheap_network_is_wanted(minimise):
    with pytest.raises(InvalidUsage, match=f"two or three networks, while --minimise {minimise} looks for a cheap one"):
        check_ensemble(SearchOptions("photos", ensemble=True, minimise=minimise))
    check_ensemble(SearchOptions("photos", ensemble=True))
    check_ensemble(SearchOptions("photos", minimise=minimise))


# ---- their time -----------------------------------------------------------------------------------------------------


def timed(folder, seconds_left):
    """Return a study with some seconds left, and its winner; to train for a highest rung's passes takes 34 s."""
    clock = Clock()
    budget = Budget(600.0, None, RUNGS, 300.0, 580.0, 0.0, 28.5, ENSEMBLE_EPOCHS_FACTOR)
    study, best = searched(folder, budget=budget, clock=clock)
    study.estimates.reserved_for_retraining = 28.5
    clock.now = 580.0 - seconds_left
    return study, best


@pytest.mark.parametrize(("seconds_left", "number"), [(100.0, 3), (90.0, 3), (84.0, 2), (60.0, 2)])
def test_as_many_answer_as_can_train_for_long_after_the_twin(tmp_path, seconds_left, number):
    study, best = timed(tmp_path, seconds_left + 28.5)

    def train(job, emit):
        assert job.seconds_limit == pytest.approx(seconds_left + 28.5 - 35.25)
        study.estimates.elapsed.now += 28.5
        return twin("middle").train(job, emit)

    found = choose(study, best, InstantEngine(train))
    assert found.num_networks == number
    factor = PLANNED_PART * (seconds_left - number * 1.5) / (number * 33.75)
    assert 27 * factor >= 20
    assert found.samples == pytest.approx(min(HOPE * factor, MAX_EPOCHS_FACTOR) * 33_750, rel=1e-3)
    job = begin_final(study, best)
    assert job.samples == number * found.samples
    assert job.chosen.winner == 0


@pytest.mark.parametrize("is_late", [False, True])
def test_where_time_is_short_one_network_trains_longer(tmp_path, is_late):
    study, best = timed(tmp_path, 58.0 + 28.5 if is_late else 50.0 + 28.5)

    def train(job, emit):
        assert is_late
        study.estimates.elapsed.now += 28.5 + 8.0  # longer than was planned
        return twin("middle").train(job, emit)

    found = choose(study, best, InstantEngine(train))
    passes = 27 * PLANNED_PART * (50.0 - 3.0) / 67.5
    assert not found.is_kept
    assert f"two networks would see their images {passes:.1f} times each; below 20 one" in found.reason
    assert (found.value is not None) == is_late
    assert begin_final(study, best).samples == study.estimates.hoped_samples(best)
    assert study.estimates.reserved_for_retraining == 0


def test_many_passes_do_not_make_up_for_time_that_is_over(tmp_path):
    study, best = timed(tmp_path, 20.0 + 28.5)
    study.estimates.budget = replace(study.budget, rungs=(30_000, 90_000, 270_000))
    found = choose(study, best, InstantEngine(None))
    assert "two networks would see their images 6.3 times each" in found.reason
    study.estimates.budget = replace(study.budget, end=5800.0, rungs=(600, 1800, 5400))  # and time not for their lack
    assert "two networks would see their images 16.2 times each" in choose(study, best).reason


def test_one_process_trains_all(tmp_path):
    study, best = timed(tmp_path, 200.0)
    study.estimates.context = replace(study.estimates.context, parallelism=Parallelism(2, 1))
    available = PLANNED_PART * (200.0 - 28.5 - 3 * 1.5)
    assert study.estimates.fitting_epochs_factor(best, 3) == pytest.approx(available / (3 * 33.75 + RESTART_SECONDS))


def test_time_is_kept_for_the_tests_of_all(tmp_path):
    study, best = timed(tmp_path, 300.0)
    study.estimates.context = replace(study.estimates.context, num_test_images=30_000)
    choose(study, best)
    late = begin_final(study, best).seconds_limit
    assert late == pytest.approx(300.0 - 3 * 10.0 + LATE_SECONDS + LATE_PART * 600.0)


def test_a_twin_for_which_no_time_was_kept_must_fit(tmp_path):
    study, best = timed(tmp_path, 60.0)
    study.estimates.reserved_for_retraining = 0.0  # it was decided before, on another winner
    found = choose(study, best, InstantEngine(None))
    assert found.reason == "it takes some 28 s to see what it is worth, of which the budget has 25 s"


@pytest.mark.parametrize("is_decided", [False, True])
def test_a_resumed_search_keeps_time_until_it_is_decided(tmp_path, is_decided):
    study, _ = timed(tmp_path, 100.0)
    if is_decided:
        study.store.put("ensemble", {"is_kept": False, "reason": "any", "winner": 0})
    estimates = TimeEstimates(study.context, study.budget, Clock(), probed=1.0)
    setup.make_study(
        study.store, setup.SearchConfig("stub-1", "asha", 3, Objective(), Limits(), 600.0, None), estimates
    )
    assert estimates.reserved_for_retraining == (0.0 if is_decided else 28.5)


def test_a_last_training_that_was_stopped_goes_on_as_it_began(tmp_path):
    study, best = timed(tmp_path, 100.0 + 28.5)
    found = choose(study, best)
    job = begin_final(study, best)
    study.end_attempt(
        study.attempts[TrainingKind.FINAL][-1],
        AttemptState.STOPPED,
        TrialOutcome(job.attempt, TrainingKind.FINAL, 2, OutcomeState.STOPPED),
    )
    study.estimates.elapsed.now += 40.0
    assert choose(study, best, InstantEngine(None)) == found
    assert begin_final(study, best).samples == job.samples
    study.end_attempt(study.attempts[TrainingKind.FINAL][-1], AttemptState.DONE)
    assert choose(study, best, InstantEngine(None)).samples < found.samples  # it has less time now


@pytest.mark.parametrize("state", [AttemptState.DIED, AttemptState.FAILED, AttemptState.INFEASIBLE])
def test_after_a_last_training_of_several_that_failed_the_winner_answers_alone(tmp_path, state):
    study, best = searched(tmp_path)
    assert choose(study, best).is_kept
    begin_final(study, best)
    study.end_attempt(study.attempts[TrainingKind.FINAL][-1], state)
    for _ in range(2):  # also when that was stopped, and goes on
        found = choose(study, best, InstantEngine(None))
        assert (found.is_kept, found.reason) == (False, f"the last training of 3 networks ended as {state}")
        job = begin_final(study, best)
        assert job.samples == 11_250
        outcome = TrialOutcome(job.attempt, TrainingKind.FINAL, 2, OutcomeState.STOPPED)
        study.end_attempt(study.attempts[TrainingKind.FINAL][-1], AttemptState.STOPPED, outcome)


@pytest.mark.parametrize("workers", [1, 2])
def test_time_for_the_twin_and_three_is_kept_from_the_trials(workers):
    parallelism = Parallelism(workers, 1, 1.5)
    asked = BudgetRequest(600.0, None, None, 0.001, 10_000, True, parallelism, 12.0, has_baseline=True)
    plain, shared = (plan_budget(replace(asked, has_ensemble=has)) for has in (False, True))
    assert (shared.final_epochs_factor, shared.end) == (ENSEMBLE_EPOCHS_FACTOR, plain.end)
    assert shared.retrain_seconds == pytest.approx(shared.rungs[-1] * 0.001 / 1.5 + parallelism.start_seconds)
    assert shared.search_until < plain.search_until
    assert 0.5 * plain.rungs[-1] < shared.rungs[-1] < 0.9 * plain.rungs[-1]
    assert ENSEMBLE_EPOCHS_FACTOR <= MAX_EPOCHS_FACTOR  # what several do not need, the winner can use


@pytest.mark.parametrize(("num_images", "is_shared"), [(1000, True), (30_000, False)])
def test_nothing_is_kept_where_two_could_not_train_for_long(num_images, is_shared):
    context = replace(make_context(), num_images=num_images, num_final_images=num_images)
    alone, wanted = (
        planning.make_budget(
            context, setup.SearchConfig("a", "asha", 0, Objective(), Limits(), 600.0, None, ensembles=wanted), 9.0
        )
        for wanted in (False, True)
    )
    passes_of_two = 1.5 * alone.rungs[-1] / num_images
    assert (passes_of_two > 30, passes_of_two < 20) == (is_shared, not is_shared)
    assert (wanted.retrain_seconds > 0, wanted != alone) == (is_shared, is_shared)


def test_trials_end_early_enough_for_three(tmp_path):
    left = []
    for number, factor in enumerate((1.5, ENSEMBLE_EPOCHS_FACTOR)):
        budget = Budget(600.0, None, RUNGS, 300.0, 580.0, final_epochs_factor=factor)
        study, best = searched(tmp_path / str(number), budget=budget, clock=Clock())
        left.append(study.estimates.time_left(best))
    assert left[0] - left[1] == pytest.approx((ENSEMBLE_EPOCHS_FACTOR - 1.5) * 33.75)


# ---- what they say together -----------------------------------------------------------------------------------------


def test_the_mean_of_the_winner_and_its_twin_is_what_is_judged(tmp_path):
    assert judged_trainings(0, Ensemble(True, num_networks=3)) == [0, TrainingKind.SECOND_SEED]
    assert judged_trainings(4, Ensemble(False)) == judged_trainings(4, None) == [4]
    keep(tmp_path, 0, right_in("first"), right_in("all"))
    keep(tmp_path, 1, right_in("middle"), right_in("none"))
    answers = read_mean(StudyFolder(tmp_path).logits, [0, 1])
    np.testing.assert_allclose(answers.logits, (right_in("first") + right_in("middle")) / 2)
    np.testing.assert_allclose(answers.averaged, (right_in("all") + right_in("none")) / 2)
    assert read_mean(StudyFolder(tmp_path).logits, [0, 7]) is None
    np.testing.assert_array_equal(read_mean(StudyFolder(tmp_path).logits, [0]).logits, right_in("first"))
    assert judge_validation(StudyFolder(tmp_path).logits, [0, 1], "val_accuracy")[0].value == pytest.approx(50 / 60)
    keep(tmp_path, 1, right_in("middle"))
    assert read_mean(StudyFolder(tmp_path).logits, [0, 1]).averaged is None
    validation.logits_path(StudyFolder(tmp_path).logits, 1).write_bytes(b"damaged")
    reason = judge_validation(StudyFolder(tmp_path).logits, [0, 1], "val_accuracy")[1].reason
    path = validation.logits_path(StudyFolder(tmp_path).logits, 1)
    assert f"t00000.npz or {path} cannot be used: " in reason


def test_flips_are_averaged_by_all_networks_and_count_for_all(tmp_path):
    for number in (0, TrainingKind.SECOND_SEED):
        keep(tmp_path, number, right_in("first"), right_in("all"))
    spec, three = spec_of(options={"average_flips": True}), Ensemble(True, num_networks=3)
    job = job_in(tmp_path, 1, TrainingKind.FINAL, 2, 100, {"filters": 16, "depth": 1}, spec=spec)
    found = flip_average.choose(job, three, None)
    assert (found.alone, found.value, found.is_kept) == (0.5, 1.0, True)
    one = 2 * (8 * 8 * 9 * 16 + 16 * 2)
    assert flip_average.work(job, three) == 3 * one
    limited = replace(job, spec=replace(spec, limits=Limits(max_mflops=5.9 * one / 1e6)))
    assert flip_average.choose(limited, three, None).reason.startswith(f"twice the work is {6 * one / 1e6:.6g}")
