"""The default network beside the winner: its share of the time, what becomes of it, and what it says of a search."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Baseline, Comparison, SearchGain
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.finalists.baseline import MIN_PART, NETWORK, baseline_params, plan_baseline, train_baseline
from pipeline.search.finish import chosen
from pipeline.search.jobs import Findings, TrialOutcome
from pipeline.search.timing.budget import (
    BASELINE_PART,
    MIN_BASELINE_SECONDS,
    Budget,
    BudgetRequest,
    Parallelism,
    plan_budget,
)
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.search.worker.comparison import gain_text, search_gain
from pipeline.space import load_space
from pipeline.states import AttemptState, OutcomeState, TrainingKind
from tests.search.stubs import Clock, InstantEngine, Silence, make_context, make_study, run_all, unlimited

PARAMS = {"filters": 16}


# ---- its share of the time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [30.0, 120.0, 130.0, 600.0, 86400.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_its_share_is_bounded_and_taken_from_the_trials(total, workers):
    parallelism = Parallelism(workers, 1, 1.5)
    plain, shared = (
        plan_budget(BudgetRequest(total, None, None, 0.001, 10_000, True, parallelism, 12.0, has))
        for has in (False, True)
    )
    assert plain.baseline_seconds == 0
    if BASELINE_PART * total < MIN_BASELINE_SECONDS:
        assert shared == plain
    else:
        assert shared.baseline_seconds == pytest.approx(0.08 * total)
        assert shared.end == plain.end
        assert shared.search_until < plain.search_until
        assert 0.85 * plain.rungs[-1] < shared.rungs[-1] <= plain.rungs[-1]


def timed_pace(clock: Clock, reserved: float = 48.0) -> TimeEstimates:
    budget = Budget(600.0, None, (1000, 3000, 9000), 400.0, 580.0, reserved)
    return TimeEstimates(make_context(baseline=PARAMS), budget, clock, probed=1.0, reserved=reserved)


def leader(tmp_path, estimates: TimeEstimates, seconds: float):
    """Return the row of a trial that took so long in the highest rung."""
    study = make_study(tmp_path, unlimited(1))
    study.ask()
    estimates.note(0, study.rows[0].params, 9000, seconds)
    return replace(study.rows[0], rung=2, samples=9000)


def test_until_it_is_trained_its_seconds_are_kept_from_trials_and_winner(tmp_path):
    estimates = timed_pace(Clock(300.0))
    row = leader(tmp_path, estimates, 240.0)
    before, samples = estimates.time_left(row), estimates.final_samples(row)
    estimates.reserved = 0.0
    assert estimates.time_left(row) == pytest.approx(before + 48.0)
    assert estimates.final_samples(row) > samples


def test_it_sees_as_many_images_as_the_winner_if_its_share_is_long_enough(tmp_path):
    estimates = timed_pace(Clock(300.0))
    row = leader(tmp_path, estimates, 40.0)
    estimates.ratios = [(1.0, 1.0)]
    assert plan_baseline(estimates, row) == (estimates.final_samples(row), "")
    assert estimates.baseline_samples(48.0) > estimates.final_samples(row)


def test_it_trains_less_where_its_share_is_short_and_not_at_all_for_less_than_half(tmp_path):
    estimates = timed_pace(Clock(300.0))
    row = leader(tmp_path, estimates, 40.0)
    wanted = estimates.final_samples(row)
    slow = estimates.baseline_samples(48.0) / wanted
    estimates.ratios = [
        (1.0, slow * estimates.factor() / 0.7)
    ]  # its share is long enough for 0.7 of the winner's images
    samples, reason = plan_baseline(estimates, row)
    assert (samples / wanted, reason) == (pytest.approx(0.7, rel=0.01), "")
    estimates.ratios = [(1.0, estimates.factor() * 0.7 / (0.9 * MIN_PART))]
    assert plan_baseline(estimates, row)[1].startswith("its share of the budget, 48 s, is less than half of")


def test_a_search_that_is_late_trains_the_winner_and_not_the_default_network(tmp_path):
    estimates = timed_pace(Clock(575.0))
    samples, reason = plan_baseline(estimates, leader(tmp_path, estimates, 40.0))
    assert (samples, "its share of the budget, 0 s," in reason) == (0, True)


def test_a_short_budget_has_none_and_says_so(tmp_path):
    estimates = timed_pace(Clock(10.0), reserved=0.0)
    reason = plan_baseline(estimates, leader(tmp_path, estimates, 40.0))[1]
    assert reason == "a budget of 600 s is too short for a second network"


def test_it_is_the_same_for_every_space_and_shallower_for_small_images():
    assert baseline_params((28, 28, 1), 10) == NETWORK
    assert baseline_params((3, 3, 1), 10)["depth"] == 2
    assert baseline_params((1, 1, 1), 10)["depth"] == 1


def test_on_a_gpu_it_trains_in_batches_as_large_as_those_of_the_space_for_one():
    params, space = baseline_params((32, 32, 3), 10, is_for_gpu=True), load_space("gpu").defaults()
    names = ("batch_size", "learning_rate", "weight_decay")
    assert [params[name] for name in names] == [space[name] for name in names]
    assert {name: params[name] for name in NETWORK} == NETWORK


# ---- what becomes of it ---------------------------------------------------------------------------------------------


def searched(tmp_path, baseline=PARAMS):
    study = make_study(tmp_path, unlimited(3), make_context(baseline=baseline))
    run_all(study)
    return study, chosen(study)


def as_completed(job, **changes) -> TrialOutcome:
    values = {"state": OutcomeState.COMPLETED, "score": 0.8, "seconds": 2.0, **changes}
    return TrialOutcome(job.attempt, job.training, job.rung, **values)


def test_it_is_trained_once_on_train_and_validation_and_is_no_trial(tmp_path):
    study, best = searched(tmp_path)
    jobs = []
    engine = InstantEngine(lambda job, emit: jobs.append(job) or as_completed(job))
    assert train_baseline(study, engine, Silence(), best) == ""
    (job,) = jobs
    assert (job.training, job.is_final, job.params) == (TrainingKind.BASELINE, True, PARAMS)
    assert job.samples == round(study.budget.rungs[-1] * 1.25)  # as many passes as the winner
    assert math.isinf(job.seconds_limit)
    assert checkpoint_path(job).name == "baseline.npz"
    assert len(study.store.trials()) == 3
    kept = study.store.get("baseline")
    assert (kept["params"], kept["epochs"], kept["reason"], kept["num_params"] > 0) == (PARAMS, 9, "", True)
    again = make_study(tmp_path, unlimited(3), make_context(baseline=PARAMS))
    assert train_baseline(again, engine, Silence(), best) == ""
    assert len(jobs) == 1


def test_one_that_was_cut_off_in_its_first_epoch_is_not_compared(tmp_path):
    study, best = searched(tmp_path)
    engine = InstantEngine(lambda job, emit: as_completed(job, findings=Findings(epochs=0)))
    reason = train_baseline(study, engine, Silence(), best)
    assert reason == "it was slower than planned and saw 0 passes, less than half of the winner's"
    assert (study.store.baseline().epochs, study.store.baseline().reason) == (0, reason)


def test_one_that_fails_costs_the_comparison_only(tmp_path):
    study, best = searched(tmp_path)
    engine = InstantEngine(
        lambda job, emit: as_completed(job, state=OutcomeState.FAILED, score=None, reason="ValueError: odd")
    )
    assert train_baseline(study, engine, Silence(), best) == "its training ended as FAILED: ValueError: odd"
    assert study.store.get("baseline")["reason"].endswith("ValueError: odd")
    assert [each.state for each in study.store.attempts(TrainingKind.BASELINE)] == [AttemptState.FAILED]
    assert study.running == {}


def test_a_process_that_dies_is_tried_once_more(tmp_path):
    study, best = searched(tmp_path)
    states = iter([OutcomeState.CRASHED, OutcomeState.COMPLETED])
    engine = InstantEngine(lambda job, emit: as_completed(job, state=next(states)))
    assert train_baseline(study, engine, Silence(), best) == ""
    assert [each.state for each in study.store.attempts(TrainingKind.BASELINE)] == [
        AttemptState.DIED,
        AttemptState.DONE,
    ]


def test_one_that_was_stopped_goes_on_as_it_began(tmp_path):
    study, best = searched(tmp_path)

    class Interrupted(InstantEngine):
        def poll(self, seconds):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_baseline(study, Interrupted(None), Silence(), best)
    (first,) = study.store.attempts(TrainingKind.BASELINE)
    assert first.state == AttemptState.STOPPED
    study.budget = study.estimates.budget = unlimited(3, (2000,))  # another plan than before
    train_baseline(study, InstantEngine(lambda job, emit: as_completed(job)), Silence(), best)
    assert [each.samples for each in study.store.attempts(TrainingKind.BASELINE)] == [first.samples] * 2


def test_a_study_without_one_says_so_and_trains_nothing(tmp_path):
    study, best = searched(tmp_path, None)
    assert train_baseline(study, InstantEngine(None), Silence(), best) == "this study has no reference network"


# ---- what it says ---------------------------------------------------------------------------------------------------


def simulated(rng, first: float, second: float, num_images: int = 2000):
    """Return logits and labels of two networks of some accuracies that mostly fail on the same images.

    How hard an image is is common to both; a latent normal variable with a correlation of 0.9, which makes two networks
    of 90 % agree on some 94 % of the images, as two seeds of one network do.
    """
    labels = rng.integers(0, 10, num_images).astype(np.int32)
    common, *own = rng.normal(size=(3, num_images))
    found = []
    for accuracy, noise in zip((first, second), own, strict=True):
        ease = math.sqrt(0.9) * common + math.sqrt(0.1) * noise
        threshold = np.quantile(rng.normal(size=200_000), 1 - accuracy)
        predicted = np.where(ease > threshold, labels, (labels + 1) % 10)
        found.append(np.eye(10, dtype=np.float32)[predicted])
    return *found, labels


@pytest.mark.heavy
def test_of_two_equal_networks_none_is_a_gain_in_at_least_95_of_100_searches():
    rng = np.random.default_rng(2024)
    agreements, gains = [], []
    for _ in range(100):
        first, second, labels = simulated(rng, 0.9, 0.9)
        agreements.append((first.argmax(axis=1) == second.argmax(axis=1)).mean())
        gains.append(search_gain(Baseline(""), first, second, labels, "val_accuracy").is_gain)
    assert 0.92 < np.mean(agreements) < 0.96
    assert 100 - sum(gains) >= 95


@pytest.mark.heavy
def test_a_network_that_is_better_by_two_points_is_a_gain():
    rng = np.random.default_rng(1)
    found = [search_gain(Baseline(""), *simulated(rng, 0.92, 0.90, 5000), "val_accuracy") for _ in range(30)]
    assert sum(each.is_gain for each in found) >= 28
    assert np.mean([each.comparison.ci95[0] <= 0.02 <= each.comparison.ci95[1] for each in found]) >= 0.85


def test_equal_networks_of_unbalanced_classes_are_compared_by_class():
    rng = np.random.default_rng(5)
    first, second, labels = simulated(rng, 0.9, 0.9)
    found = search_gain(Baseline(""), first, second, labels, "val_balanced_accuracy").comparison
    recalls = [np.mean([(x.argmax(axis=1) == labels)[labels == c].mean() for c in range(10)]) for x in (first, second)]
    assert (found.metric, found.value) == ("balanced_accuracy", pytest.approx(recalls[1]))
    assert found.gain == pytest.approx(recalls[0] - recalls[1])
    assert found.ci95[0] < found.gain < found.ci95[1]


@pytest.mark.parametrize(
    ("gain", "ci95", "text"),
    [
        (0.0132, [0.0091, 0.0174], "search gain +1.3 points (0.9 to 1.7) over the reference network (91.20% accuracy,"),
        (0.0011, [-0.0021, 0.0049], "no gain (-0.2 to +0.5 points) over the reference network (91.20% accuracy,"),
        (-0.01, [-0.015, -0.004], "no gain: -1.0 points (-1.5 to -0.4) over the reference network (91.20% accuracy,"),
    ],
)
def test_the_gain_in_words(gain, ci95, text):
    comparison = Comparison("accuracy", 0.912, gain, ci95, 0.01)
    shown = gain_text(SearchGain(Baseline("", {}, 24282, 1.0, 9), comparison, ci95[0] > 0))
    assert shown.startswith(text)
    assert "24,282 params, 9 epochs)" in shown
    assert gain_text(SearchGain(Baseline("too short"))) == "not measured: too short"
