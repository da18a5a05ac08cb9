"""How a budget becomes rungs and deadlines, and what a study asks for while its clock runs."""

import math
from dataclasses import replace

import pytest

from pipeline.errors import InvalidUsage
from pipeline.limits import Limits
from pipeline.models.cost import Cost
from pipeline.records import Objective, TrialRow
from pipeline.search.finish import begin_final, chosen, standard_error
from pipeline.search.planning import check_budget
from pipeline.search.ranking import pareto_front, winner
from pipeline.search.scheduler import is_affordable
from pipeline.search.setup import SearchConfig
from pipeline.search.timing.budget import (
    CLOSING_SECONDS,
    DEFAULT_BUDGET,
    DEPTHWISE_SLOWNESS,
    FINAL_EPOCHS_FACTOR,
    FINAL_IMAGES,
    MAX_EPOCHS_FACTOR,
    MIN_SAMPLES,
    RESTART_SECONDS,
    SECONDS_PER_STEP,
    SECONDS_PER_TRIAL,
    Budget,
    BudgetRequest,
    Parallelism,
    correction,
    estimate_seconds,
    least_seconds,
    plan_budget,
    rung_samples,
)
from pipeline.search.timing.estimates import (
    HOPE,
    LATE_PART,
    LATE_SECONDS,
    MIN_SHRINK,
    PLANNED_PART,
    SLOWEST,
    TimeEstimates,
)
from pipeline.states import OutcomeState, TrialState
from tests.search.stubs import NUM_FINAL_IMAGES, NUM_IMAGES, TINY, Clock, make_context, make_study, run_all, train_into

ONE = Parallelism(1, 1)
SAMPLE_SECONDS = 0.001  # that a fake training takes for one image


def plan(seconds, max_trials=None, num_epochs=None, has_rungs=True, parallelism=ONE, num_images=10_000):
    return plan_budget(
        BudgetRequest(seconds, max_trials, num_epochs, SAMPLE_SECONDS, num_images, has_rungs, parallelism)
    )


def test_the_least_budget_holds_one_trial_the_last_training_and_the_end():
    asked = BudgetRequest(60.0, None, None, 0.01, 10_000, True, Parallelism(1, 1), start=6.0)
    trainings = (1.5 + 512 * 0.01) + (1.5 + 1.25 * 512 * 0.01)
    assert least_seconds(asked) == pytest.approx(6.0 + trainings + CLOSING_SECONDS)
    two = replace(asked, parallelism=Parallelism(2, 1, final_speedup=2.0))
    trainings = (1.5 + 512 * 0.01) + (1.5 + 1.25 * 512 * 0.01 / 2)
    assert least_seconds(two) == pytest.approx(6.0 + trainings + RESTART_SECONDS + CLOSING_SECONDS)


@pytest.mark.parametrize("seconds", [5.0, 30.0])
def test_a_budget_that_cannot_work_is_refused_with_the_least_one_that_can(seconds):
    context = make_context(typical=TINY.defaults())
    request = SearchConfig("stub-1", "asha", 3, Objective(), Limits(), seconds, None)
    message = rf"--budget {seconds:.0f}s is too short: here it takes 19 s until .* give it 35s or more"
    with pytest.raises(InvalidUsage, match=message):
        check_budget(context, request, 1.0, elapsed=19.0)
    check_budget(context, replace(request, budget_seconds=35.0), 1.0, elapsed=19.0)
    check_budget(context, replace(request, budget_seconds=None, max_trials=1), 1.0, elapsed=19.0)


# ---- seconds to rungs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [5.0, 20.0, 60.0, 180.0, 900.0, 86400.0])
@pytest.mark.parametrize("has_rungs", [True, False])
def test_every_budget_leaves_time_for_the_winner_and_the_end(total, has_rungs):
    budget = plan(total, has_rungs=has_rungs)
    assert 0 < budget.search_until < budget.end < budget.total == total
    assert budget.rungs[0] >= min(MIN_SAMPLES, budget.rungs[-1])
    assert list(budget.rungs) == sorted(budget.rungs)
    assert len(budget.rungs) == 1 or has_rungs


def test_without_any_limit_the_default_budget_holds():
    assert plan(None).total == DEFAULT_BUDGET


def test_without_seconds_every_trial_sees_as_many_images_and_time_has_no_end():
    budget = plan(None, max_trials=5, num_images=60_000)
    assert (budget.max_trials, budget.rungs[-1], budget.is_timed) == (5, 600_000, False)
    assert math.isinf(budget.search_until)
    assert plan(None, num_epochs=3).rungs == (3333, 10_000, 30_000)


def test_a_rung_is_a_third_of_the_next_one_and_tiny_ones_are_left_out():
    assert rung_samples(9000, True) == (1000, 3000, 9000)
    assert rung_samples(9000, False) == (9000,)
    assert rung_samples(3 * MIN_SAMPLES, True) == (MIN_SAMPLES, 3 * MIN_SAMPLES)
    assert rung_samples(3 * MIN_SAMPLES - 1, True) == (3 * MIN_SAMPLES - 1,)


def test_four_full_trainings_and_the_winner_fill_the_time():
    budget = plan(600.0)
    trial = SECONDS_PER_TRIAL + budget.rungs[-1] * SAMPLE_SECONDS
    assert (4 + FINAL_EPOCHS_FACTOR * FINAL_IMAGES) * trial == pytest.approx(600 - 12 - 12, rel=0.01)


def test_fewer_trials_and_more_workers_train_longer_and_epochs_are_obeyed():
    whole = plan(600.0).rungs[-1]
    assert plan(600.0, max_trials=3).rungs[-1] > 2 * whole
    assert plan(600.0, parallelism=Parallelism(2, 1, 1.5)).rungs[-1] > 1.5 * whole
    assert plan(600.0, num_epochs=2).rungs[-1] == 20_000


def test_an_estimate_counts_images_and_steps():
    cost = Cost(num_params=10, flops=1_000_000, shapes=())
    seconds = estimate_seconds(cost, {"batch_size": 64}, 64_000, Parallelism(1, num_threads=2).flops)
    assert seconds == pytest.approx(64_000 * 3e6 / (2 * 45e9) + 1000 * SECONDS_PER_STEP)
    slow = estimate_seconds(replace(cost, depthwise_flops=500_000), {"batch_size": 64}, 64_000, 90e9)
    assert slow - seconds == pytest.approx(64_000 * 3 * 500_000 * (DEPTHWISE_SLOWNESS - 1) / 90e9)


def test_the_correction_is_the_median_ratio():
    assert correction([1.0, 2.0, 4.0], [2.0, 4.0, 40.0]) == 2.0
    assert correction([], []) == 1.0


# ---- the pace -------------------------------------------------------------------------------------------------------


def timed(total=120.0, rungs=(1000, 3000, 9000), max_trials=None) -> Budget:
    return Budget(total, max_trials, rungs, search_until=0.8 * total, end=0.95 * total)


def test_a_trial_that_was_measured_is_known_and_others_follow_the_latest_ratios():
    context = make_context()
    estimates = TimeEstimates(context, timed(), Clock(), probed=2.0)
    estimate = context.estimate(context.typical, 3000)
    assert estimates.training_seconds(context.typical, 3000) == pytest.approx(SECONDS_PER_TRIAL + 2 * estimate)
    estimates.note(0, context.typical, 1000, SECONDS_PER_TRIAL + 5 * context.estimate(context.typical, 1000))
    assert estimates.training_seconds(context.typical, 3000) == pytest.approx(SECONDS_PER_TRIAL + 5 * estimate)
    estimates.note(1, context.typical, 1000, SECONDS_PER_TRIAL + 10.0)
    assert estimates.training_seconds(context.typical, 3000, number=1) == pytest.approx(SECONDS_PER_TRIAL + 30.0)


def finalist(study, seconds=SECONDS_PER_TRIAL + 9.0):
    """Return the row of a trial that took so long in the highest rung."""
    study.estimates.note(0, study.context.typical, 9000, seconds)
    return replace(first_row(study), rung=2, samples=9000)


def first_row(study):
    study.ask()
    return study.rows[0]


@pytest.mark.parametrize(
    ("seconds_left", "factor"),
    [
        (1000.0, MAX_EPOCHS_FACTOR),
        (1.5 + 1.5 * 11.25 / PLANNED_PART, 1.5),
        (1.5 + 0.5 * 11.25 / PLANNED_PART, 0.5),
        (0.0, MIN_SHRINK),
    ],
)
def test_the_last_training_stretches_and_shrinks_with_the_time_that_is_left(tmp_path, seconds_left, factor):
    clock = Clock()
    study = make_study(tmp_path, timed(2000.0), clock=clock)
    row = finalist(study)
    clock.now = study.budget.end - seconds_left
    assert study.estimates.final_samples(row) == pytest.approx(9000 * 1.25 * factor, abs=1)
    late = LATE_SECONDS + LATE_PART * 2000.0
    assert begin_final(study, row).seconds_limit == pytest.approx(max(seconds_left, 1.5) + late)


def test_without_a_time_limit_the_winner_sees_as_many_passes_as_before(tmp_path):
    study = make_study(tmp_path)
    assert study.estimates.final_samples(finalist(study)) == 9000 * NUM_FINAL_IMAGES // NUM_IMAGES
    assert study.estimates.final_limits(first_row(study)) == (math.inf, math.inf)


def test_the_winner_begins_with_more_than_is_sure_to_fit_unless_it_is_short_or_has_time_for_all(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(2000.0), clock=clock)
    row = finalist(study)
    most = 9000 * 1.25 * MAX_EPOCHS_FACTOR
    clock.now = study.budget.end - SECONDS_PER_TRIAL - 0.5 * 11.25 / PLANNED_PART
    assert study.estimates.hoped_samples(row) == pytest.approx(HOPE * 0.5 * 9000 * 1.25, abs=1)
    clock.now = study.budget.end - SECONDS_PER_TRIAL - 2.8 * 11.25 / PLANNED_PART
    assert study.estimates.hoped_samples(row) == pytest.approx(most, abs=1)
    study.estimates.context = replace(
        study.estimates.context, num_final_images=20_000, num_images=16_000
    )  # two passes fit
    assert study.estimates.hoped_samples(row) == study.estimates.final_samples(row)


def test_time_is_kept_for_a_test_of_many_images(tmp_path):
    clock = Clock()
    context = make_context(num_test_images=300_000)
    study = make_study(tmp_path, timed(2000.0), context, clock=clock)
    row = finalist(study)  # a millisecond an image in training, a third of it forward
    seconds = 100.0
    assert study.estimates.test_seconds(row.params, row.number) == pytest.approx(seconds)
    clock.now = study.budget.end - 150.0
    assert study.estimates.final_limits(row)[1] == pytest.approx(150.0 - seconds)
    expected = PLANNED_PART * (150.0 - SECONDS_PER_TRIAL - seconds) / 11.25 * 11_250
    assert study.estimates.final_samples(row) == pytest.approx(min(expected, MAX_EPOCHS_FACTOR * 11_250), rel=1e-3)
    assert study.estimates.time_left(row) == pytest.approx(
        150.0 - SECONDS_PER_TRIAL - FINAL_EPOCHS_FACTOR * 11.25 - seconds
    )


def test_compiling_takes_its_time_and_is_no_part_of_what_an_image_takes():
    context = make_context().starting_in(10.0)
    estimates = TimeEstimates(context, timed(), Clock(), probed=1.0)
    estimates.note(0, context.typical, 1000, 12.5)
    assert estimates.training_seconds(context.typical, 2000, number=0) == pytest.approx(10.0 + 2 * 2.5)
    estimates.note(0, context.typical, 1000, 20.0)
    assert estimates.training_seconds(context.typical, 2000, number=0) == pytest.approx(10.0 + 20.0)
    estimates.note(0, context.typical, 1000, 20.0, rung=1)  # what was compiled for the lowest rung is there
    assert estimates.training_seconds(context.typical, 2000, number=0) == pytest.approx(
        10.0 + 2 * (20.0 - SECONDS_PER_TRIAL)
    )


def test_a_gpu_is_taken_to_be_faster_than_a_core():
    context = make_context(parallelism=Parallelism(1, 16, has_gpus=True))
    assert context.estimate(context.typical, 3000) < make_context().estimate(context.typical, 3000)


def test_several_workers_give_the_winner_all_cores_and_a_new_process(tmp_path):
    context = make_context(parallelism=Parallelism(2, 1, 1.5))
    estimates = TimeEstimates(context, timed(), Clock(), probed=1.0)
    training = estimates.training_seconds(context.typical, 11_250)
    assert estimates.final_seconds(context.typical, 9000) == pytest.approx(training / 1.5 + RESTART_SECONDS)


# ---- a study and its clock ------------------------------------------------------------------------------------------


def run_timed(study, clock):
    """Train until nothing is asked for any more, each training as long as its images take; return the tasks."""
    jobs = []
    while job := study.ask():
        study.store.save()
        seconds = SECONDS_PER_TRIAL + job.samples * SAMPLE_SECONDS
        jobs.append(job)
        clock.now += seconds
        study.tell(train_into(study, job, seconds=seconds))
    study.complete()
    study.store.save()
    return jobs


@pytest.mark.parametrize("total", [30.0, 60.0, 120.0, 600.0])
@pytest.mark.parametrize("max_trials", [None, 5])
def test_a_search_ends_in_time_with_a_winner_of_the_highest_rung(tmp_path, total, max_trials):
    clock = Clock()
    budget = plan(total, max_trials, num_images=NUM_IMAGES)
    study = make_study(tmp_path, budget, clock=clock)
    study.estimates.probed = NUM_IMAGES * SAMPLE_SECONDS / study.context.estimate(study.context.typical, NUM_IMAGES)
    jobs = run_timed(study, clock)
    best = winner(study.store.trials(), Objective())
    assert best.rung == len(budget.rungs) - 1
    assert clock.now <= budget.end
    assert clock.now + SECONDS_PER_TRIAL + study.estimates.final_samples(best) * SAMPLE_SECONDS <= budget.end + 0.01
    wanted = begin_final(study, best).seconds_wanted
    assert wanted == pytest.approx(max(budget.end - clock.now, SECONDS_PER_TRIAL), abs=0.5)
    assert len(study.rows) >= (3 if max_trials is None else min(max_trials, 2))
    assert max_trials is None or len(study.rows) <= max_trials
    assert all(job.seconds_limit <= budget.end for job in jobs)


def test_nothing_is_asked_for_that_does_not_fit(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(120.0), clock=clock)
    study.estimates.probed = NUM_IMAGES * SAMPLE_SECONDS / study.context.estimate(study.context.typical, NUM_IMAGES)
    while True:
        left = study.time_left()
        job = study.ask()
        if job is None:
            break
        assert SECONDS_PER_TRIAL + job.samples * SAMPLE_SECONDS <= left + 0.01
        clock.now += SECONDS_PER_TRIAL + job.samples * SAMPLE_SECONDS
        study.tell(train_into(study, job, seconds=SECONDS_PER_TRIAL + job.samples * SAMPLE_SECONDS))
    assert study.estimates.training_seconds({**study.context.typical}, 1000) > study.time_left()


def test_networks_that_are_far_slower_than_the_typical_one_are_not_asked_for(tmp_path):
    study = make_study(tmp_path, timed(1e6))
    study.ask()
    slow = {**study.context.typical, "batch_size": 1, "filters": 1024}
    assert study.estimates.slowness(slow) > SLOWEST
    assert not is_affordable(study, slow, 0)
    assert is_affordable(study, {**study.context.typical, "filters": 48}, 0)


def test_with_one_rung_slow_networks_are_not_asked_for_either(tmp_path):
    study = make_study(tmp_path, timed(1e6, rungs=(9000,)))
    study.ask()
    assert not is_affordable(study, {**study.context.typical, "batch_size": 1, "filters": 1024}, 0)


def test_a_network_n_times_as_slow_takes_the_same_time_in_the_highest_rung_and_its_root_in_the_lowest(tmp_path):
    study = make_study(tmp_path, timed(1e6))
    full = study.budget.rungs[-1]
    context, slow = study.context, {**study.context.typical, "filters": 64}
    slowness = context.estimate(slow, 1000) / context.estimate(context.typical, 1000)
    assert slowness > 2
    assert study.estimates.rung_samples(slow, -1) == round(full / slowness)
    assert study.estimates.rung_samples(slow, 1) == round(study.budget.rungs[1] / slowness**0.75)
    assert study.estimates.rung_samples(slow, 0) == round(study.budget.rungs[0] / slowness**0.5)
    assert study.estimates.rung_samples({**slow, "filters": 8}, -1) == full
    study.ask()
    study.rows[0] = replace(study.rows[0], params=slow, rung=len(study.budget.rungs) - 1, samples=full)
    assert study.start(0, 1).samples == study.estimates.rung_samples(slow, 1)
    untimed = replace(study.budget, total=math.inf)
    assert replace(study.estimates, budget=untimed).rung_samples(slow, -1) == full


@pytest.mark.parametrize(("seconds", "kept"), [(90.0, "the knee"), (9.0, "half of the best")])
def test_where_a_cheap_network_wins_time_is_kept_for_it_and_for_half_of_what_the_best_needs(tmp_path, seconds, kept):
    study = make_study(tmp_path, timed(2000.0), objective=Objective("val_accuracy", "mflops"))
    typical = study.context.typical
    row = TrialRow(0, "COMPLETED", 0.5, typical, 1, 1.0, 1.0, "", 9, 9, rung=2, samples=9000)
    rows = row, replace(row, number=1, score=0.9, mflops=2.0), replace(row, number=2, score=0.92, mflops=10.0)
    study.rows = {each.number: each for each in rows}
    study.estimates.note(1, typical, 9000, SECONDS_PER_TRIAL + seconds)
    study.estimates.note(2, typical, 9000, SECONDS_PER_TRIAL + 90.0)
    assert study.time_left() == pytest.approx(study.budget.search_until)  # nobody has told of them
    study.leader, study.front = rows[2], list(rows)
    whole = study.estimates.time_left(rows[1]), study.estimates.time_left(rows[2])
    half = (whole[1] + study.budget.end - SECONDS_PER_TRIAL) / 2
    assert whole[1] < half
    assert study.time_left() == pytest.approx(whole[0] if kept == "the knee" else half, abs=0.02)


def test_the_front_is_known_after_each_trial_and_after_a_resume(tmp_path):
    objective = Objective("val_accuracy", "mflops")
    study = make_study(tmp_path, timed(120.0), objective=objective)
    run_all(study)
    assert study.front == pareto_front(study.rows.values(), objective)
    assert len(study.front) > 1
    study.store.close()
    assert make_study(tmp_path, timed(120.0), objective=objective).front == study.front


def test_a_trial_is_in_the_front_with_its_latest_score(tmp_path):
    study = make_study(tmp_path, timed(1e6), objective=Objective("val_accuracy", "mflops"))
    for rung, score in ((0, 0.9), (1, 0.5)):
        job = study.start(0, rung) if study.rows else study.ask()
        study.store.save()
        study.oracle = None  # it did not promote the trial
        study.tell(train_into(study, job, score=score))
        assert [(row.number, row.score) for row in study.front] == [(0, score)]


def test_when_the_machine_is_slower_than_thought_one_trial_still_reaches_the_highest_rung(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(120.0), clock=clock)
    run_timed(study, clock)  # some ten times slower than the estimate, which nobody corrected
    assert study.leader.rung == 2
    assert clock.now <= study.budget.end


def test_a_task_knows_when_the_time_is_over_and_a_pruned_trial_keeps_its_place(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(120.0), clock=clock)
    job = study.ask()
    assert job.seconds_limit == pytest.approx(0.8 * 120.0)
    clock.now = 110.0
    study.tell(train_into(study, job, state=OutcomeState.PRUNED, score=None, reason="the time was over"))
    assert study.ask() is None
    assert study.rows[0].state == TrialState.PRUNED


def test_a_resumed_study_spends_only_what_is_left(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(60.0), clock=clock)
    for _ in range(2):
        job = study.ask()
        clock.now += 3.0
        study.tell(train_into(study, job, seconds=3.0))
    study.store.save()
    study.store.close()
    later = Clock(now=6.0)
    resumed = make_study(tmp_path, timed(60.0), clock=later)
    assert resumed.store.get("elapsed") == 6.0
    run_all(resumed, seconds=3.0)
    assert later.now <= resumed.budget.end


def test_a_trial_of_a_lower_rung_wins_if_it_is_clearly_better_and_can_still_be_trained(tmp_path):
    clock = Clock()
    study = make_study(tmp_path, timed(2000.0), make_context(), clock=clock)
    row = TrialRow(0, "COMPLETED", 0.90, {}, 1, 1.0, 1.0, "", 9, 9, rung=2, samples=9000)
    low = replace(row, number=1, rung=0, samples=1000)
    params = study.context.typical
    error = standard_error(0.90, study.context.num_val_images)
    for score, number in ((0.90 + 0.9 * error, 0), (0.90 + 1.1 * error, 1)):
        study.rows = {0: replace(row, params=params), 1: replace(low, params=params, score=score)}
        assert chosen(study).number == number
    clock.now = study.budget.end
    assert chosen(study).number == 0  # there is no time to train the other one
