"""Asynchronous successive halving: who is promoted, when, and what it is good for; and how an ask stays cheap."""

import contextlib
import heapq
import math
import random
import statistics
import sys
import time

import pytest

from pipeline.records import Objective
from pipeline.space import load_space

pytestmark = pytest.mark.heavy

COMPUTE = (1, 3, 9)  # samples of the rungs, in units of the first


@pytest.fixture(scope="module")
def cnn():
    return load_space("cnn")


def proposer(space, seed=0, oracle="asha", objective=None, costs=None):
    from pipeline.search.oracles import Proposer

    num_rungs = 3 if oracle == "asha" else 1
    return Proposer(oracle, space, seed, objective or Objective(), num_rungs, *([costs] if costs else []))


def always(proposal):
    return True


def is_new(proposal):
    return proposal.rung == 0


def is_promotion(proposal):
    return proposal.rung > 0


def train(oracle, num_trials, value_of):
    """Train `num_trials` new trials, one at a time, and whatever is promoted; return {(number, rung): value}."""
    told = {}
    while True:
        begun = sum(rung == 0 for _, rung in told)
        proposal = oracle.propose(begun, always if begun < num_trials else is_promotion)
        if proposal is None:
            return told
        value = value_of(proposal)
        oracle.tell(proposal.number, proposal.rung, None if value is None else (value,))
        told[proposal.number, proposal.rung] = value


def numbers_of(told, rung):
    return {number for number, level in told if level == rung}


def test_of_81_trials_in_falling_order_27_and_9_go_on(cnn):
    told = train(proposer(cnn), 81, lambda proposal: 1 - proposal.number / 100)
    assert [len(numbers_of(told, rung)) for rung in range(3)] == [81, 27, 9]
    assert numbers_of(told, 1) == set(range(27))
    assert numbers_of(told, 2) == set(range(9))


def test_in_any_order_the_best_third_goes_on_and_few_besides(cnn):
    rng = random.Random(0)
    values = [rng.random() for _ in range(81)]
    told = train(proposer(cnn), 81, lambda proposal: values[proposal.number])
    best = sorted(range(81), key=lambda number: -values[number])
    assert set(best[:27]) <= numbers_of(told, 1)
    assert 27 <= len(numbers_of(told, 1)) <= 40


def test_a_loss_is_promoted_where_it_is_small(cnn):
    told = train(proposer(cnn, objective=Objective("val_loss")), 9, lambda proposal: 1 + proposal.number)
    assert numbers_of(told, 1) == {0, 1, 2}


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_failures_take_no_promotion_away(cnn, share):
    rng = random.Random(1)
    fails = {number for number in range(81) if rng.random() < share}

    def value_of(proposal):
        return None if proposal.rung == 0 and proposal.number in fails else 1 - proposal.number / 100

    told = train(proposer(cnn), 81, value_of)
    assert numbers_of(told, 1) >= set(sorted(set(range(81)) - fails)[:27])
    assert len(numbers_of(told, 1)) >= 27
    assert len(numbers_of(told, 2)) >= 9
    assert not numbers_of(told, 1) & fails


def test_the_highest_promotion_comes_first(cnn):
    oracle = proposer(cnn)
    for number in range(12):
        oracle.begin(number, 0, oracle.propose(number, is_new).params)
        oracle.tell(number, 0, (1 - number / 100,))
    for number in range(3):
        oracle.begin(number, 1, params_of(oracle, number))
        oracle.tell(number, 1, (0.5 + number / 10,))
    first = oracle.propose(12, always)
    assert (first.number, first.rung) == (2, 2)
    second = oracle.propose(12, always)
    assert (second.number, second.rung) == (3, 1)
    assert oracle.propose(12, always).rung == 0


def at_last_rung_but_one(space, policies, values):
    """Return an oracle to which trials with these augmentations came to the last rung but one."""
    oracle = proposer(space)
    for number, (policy, value) in enumerate(zip(policies, values, strict=True)):
        params = {**space.defaults(), "filters": (16, 32, 48, 64)[number], "augment": policy}
        for rung in range(2):
            oracle.begin(number, rung, params)
            oracle.tell(number, rung, (value,))
    return oracle


@pytest.mark.parametrize(
    ("policies", "values", "finalists"),
    [
        (("none", "standard", "none"), (0.90, 0.89, 0.88), [0, 1]),
        (("none", "light", "standard"), (0.90, 0.89, 0.88), [0, 1, 2]),
        (("standard", "none", "light"), (0.90, 0.89, 0.88), [0]),
        (("none", "none", "none", "strong"), (0.90, 0.89, 0.88, 0.87), [0]),  # not one of the best three
    ],
)
def test_more_augmentation_than_all_that_went_on_is_tried_in_the_highest_rung(cnn, policies, values, finalists):
    oracle = at_last_rung_but_one(cnn, policies, values)
    proposals = [oracle.propose(None, always) for _ in range(4)]
    assert [each.number for each in proposals if each and each.rung == 2] == finalists


def test_a_rival_that_was_refused_may_go_on_later(cnn):
    oracle = at_last_rung_but_one(cnn, ("none", "standard", "none"), (0.90, 0.89, 0.88))
    assert oracle.propose(None, always).number == 0
    assert oracle.propose(None, lambda proposal: proposal.rung < 2) is None
    assert (oracle.propose(None, always).number, oracle.propose(None, always)) == (1, None)


def params_of(oracle, number):
    from pipeline.search.oracles.translation import from_tuner

    return from_tuner(oracle.space, oracle.oracle.trials[oracle.latest[number]].hyperparameters.values)


def test_a_promotion_carries_the_words_of_hyperband_and_the_parents_configuration(cnn):
    oracle = proposer(cnn)
    told = train(oracle, 3, lambda proposal: 1 - proposal.number)
    assert set(told) == {(0, 0), (1, 0), (2, 0), (0, 1)}
    trials = list(oracle.oracle.trials.values())
    (child,) = (trial for trial in trials if "tuner/trial_id" in trial.hyperparameters.values)
    assert child.hyperparameters.values["tuner/rung"] == 1
    parent = oracle.oracle.trials[child.hyperparameters.values["tuner/trial_id"]]
    assert {**parent.hyperparameters.values, "tuner/trial_id": parent.trial_id, "tuner/rung": 1} == (
        child.hyperparameters.values
    )


def test_of_equal_scores_the_cheaper_goes_on(cnn):
    oracle = proposer(cnn, costs=lambda params: (params["filters"], params["depth"]))
    small, shallow = {"filters": 16, "depth": 4}, {"filters": 24, "depth": 2}
    for number, values in enumerate([{"filters": 24, "depth": 3}, shallow, small]):
        oracle.begin(number, 0, {**cnn.defaults(), **values})
        oracle.tell(number, 0, (0.9,))
    assert oracle.propose(3, always).number == 2
    oracle.tell(2, 1, (0.9,))
    for number in range(3, 6):
        oracle.begin(number, 0, {**cnn.defaults(), "filters": 48, "dropout": number / 10 - 0.2})
        oracle.tell(number, 0, (0.9,))
    assert oracle.propose(6, always).number == 1


def test_reports_of_an_epoch_do_not_promote(cnn):
    oracle = proposer(cnn)
    for number, (reported, told) in enumerate([(0.99, 0.1), (0.2, 0.3), (0.2, 0.2)]):
        oracle.propose(number, is_new)
        oracle.report(number, 0, 1, reported)
        oracle.tell(number, 0, (told,))
    assert oracle.propose(3, always).number == 1


def test_a_refused_promotion_is_passed_over_this_time_only(cnn):
    oracle = proposer(cnn)
    for number in range(6):
        oracle.propose(number, is_new)
        oracle.tell(number, 0, (1 - number / 10,))
    assert oracle.propose(6, lambda proposal: proposal.number != 0).number == 1
    assert oracle.propose(6, is_new).rung == 0
    assert oracle.propose(7, always).number == 0


def test_with_a_cost_the_front_is_promoted_then_what_only_the_front_beats(cnn):
    oracle = proposer(cnn, objective=Objective("val_accuracy", "mflops"))
    points = [
        (0.9, 9.0),
        (0.8, 8.0),
        (0.85, 9.5),
        (0.7, 1.0),
        (0.6, 2.0),
        (0.5, 5.0),
        (0.4, 6.0),
        (0.3, 7.0),
        (0.2, 8.5),
    ]
    for number, point in enumerate(points):
        oracle.propose(number, is_new)
        oracle.tell(number, 0, point)
    promoted = [oracle.propose(9, always) for _ in range(4)]
    assert [(proposal.number, proposal.rung) for proposal in promoted] == [(0, 1), (1, 1), (3, 1), (9, 0)]


@pytest.mark.parametrize(("num_losses", "size"), [(1, 5), (2, 3), (2, 8), (2, 1000)])
def test_a_rung_ranks_as_the_definition_of_fronts_says_whatever_was_promoted_and_taken_back(num_losses, size):
    from pipeline.search.oracles.rung import Rung

    for seed in range(20):
        rng, rung, results, promoted = random.Random(seed), Rung(), [], set()
        for index in range(60):
            if rng.random() < 0.2:
                rung.fail(str(index))
            else:
                rung.add(str(index), tuple(rng.randrange(size) for _ in range(num_losses)), (rng.randrange(2),))
                results.append(rung.arrived[str(index)])
            best = [result.trial_id for result in by_definition(results)]
            waiting = [trial_id for trial_id in best[: (index + 1) // 3] if trial_id not in promoted]
            assert list(rung.promotable(3)) == waiting
            assert [result.trial_id for result in rung.best(60)] == best
            if waiting and rng.random() < 0.8:
                chosen = rng.choice(waiting)
                rung.promote(chosen)
                promoted.add(chosen)
            if promoted and rng.random() < 0.2:
                rung.take_back(returned := min(promoted))
                promoted.remove(returned)


def by_definition(results):
    """Return results front by front; with one loss, in their order."""
    left, found = sorted(results), []
    if left and len(left[0].losses) == 1:
        return left
    while left:
        front = [point for point in left if not any(dominates(other, point) for other in left)]
        found += front
        left = [point for point in left if point not in front]
    return found


LOSSES = {
    "one": (1, lambda loss, noise: (loss,)),
    "two that disagree": (1, lambda loss, noise: (loss, -loss)),
    "two by chance": (4, lambda loss, noise: (loss, noise)),  # the fronts grow with the root of the trials
}


@pytest.mark.parametrize("case", LOSSES)
def test_an_ask_of_a_rung_takes_no_more_steps_after_16_times_the_trials(case):
    from pipeline.search.oracles.rung import Rung

    root, losses = LOSSES[case]
    rng, rung, steps = random.Random(0), Rung(), {}
    for index in range(4000):
        counted = Steps()
        with counted if index % 10 == 0 else contextlib.nullcontext():
            rung.add(str(index), losses(rng.random(), rng.random()), ())
            chosen = next(rung.promotable(3), None)
            if chosen is not None:
                rung.promote(chosen)
        steps[index] = counted.number
    early, late = (sum(steps[index] for index in range(end - 200, end)) for end in (250, 4000))
    assert late < 1.6 * root * early


class Steps:
    """Counts the lines of Python that run within a block: what a clock says, but the same each time."""

    number = 0

    def __enter__(self):
        sys.settrace(self.note)

    def __exit__(self, *error):
        sys.settrace(None)

    def note(self, frame, event, argument):
        self.number += 1
        return self.note


def dominates(left, right):
    return left.losses != right.losses and all(a <= b for a, b in zip(left.losses, right.losses, strict=True))


def test_four_workers_are_never_kept_waiting(cnn):
    """Rungs take 1, 3 and 9 units; whenever a worker is free there is something to train."""
    oracle, rng = proposer(cnn), random.Random(0)
    busy, begun, rungs = [], 0, []
    for index in range(200):
        now = 0.0
        if len(busy) == 4:
            now, _, ended = heapq.heappop(busy)
            oracle.tell(ended.number, ended.rung, None if rng.random() < 0.3 else (rng.random(),))
        proposal = oracle.propose(begun, always)
        assert proposal is not None
        begun += proposal.rung == 0
        rungs.append(proposal.rung)
        heapq.heappush(busy, (now + COMPUTE[proposal.rung] * rng.uniform(0.5, 2), index, proposal))
    assert rungs.count(1) >= 30
    assert rungs.count(2) >= 8


def test_the_first_proposals_vary_the_best_results(cnn):
    oracle = proposer(cnn)
    for number, (_, params) in enumerate(cnn.portfolio):
        oracle.begin(number, 0, params)
        oracle.tell(number, 0, (0.9 - 0.1 * number,))
    best = [params for _, params in cnn.portfolio[:3]]
    told, changes = len(cnn.portfolio), []
    while told < 18:
        proposal = oracle.propose(told, always)
        if proposal.rung == 0:
            distances = [len({*each.items()} ^ {*proposal.params.items()}) / 2 for each in best]
            changes.append(min(distances))
            told += 1
        oracle.tell(proposal.number, proposal.rung, (0.1,))
    assert all(0.5 <= number <= 9 for number in changes)
    assert 1 < statistics.mean(changes) < 5  # of sixteen; a random configuration differs in ten or more


def quality(params, samples):
    """Return a made-up accuracy: rises with the samples towards a limit, the slower the larger the network is."""
    rate = math.log10(params["learning_rate"]) + (2.3 if params["optimizer"] == "adamw" else 1.1)
    size = params["filters"] / 48 + params["depth"] / 4 + params["convs_per_stage"] / 2
    limit = (
        0.80 + 0.04 * size - 0.08 * rate**2 - 0.3 * (params["dropout"] - 0.2) ** 2 + 0.02 * (params["block"] == "plain")
    )
    limit -= 0.03 * (params["head"] == "flatten") + 0.02 * (params["pooling"] == "stride")
    return limit - 0.3 * math.exp(-samples / (0.6 + 0.4 * size))


def best_found(space, oracle_name, seed, budget):
    """Return the quality at the highest rung of the best that a search finds for a number of samples."""
    oracle, begun, spent, found = proposer(space, seed, oracle_name), 0, 0, []
    while spent < budget:
        proposal = oracle.propose(begun, always)
        begun += proposal.rung == 0
        samples = COMPUTE[proposal.rung if oracle_name == "asha" else -1]
        spent += samples
        value = quality(proposal.params, samples)
        oracle.tell(proposal.number, proposal.rung, (value,))
        found.append((samples, value))
    return max(value for samples, value in found if samples == COMPUTE[-1])


@pytest.mark.heavy
def test_halving_and_tpe_find_better_networks_than_chance_for_the_same_samples(cnn):
    means = {  # their standard errors are 0.003
        name: statistics.mean(best_found(cnn, name, seed, 360) for seed in range(16))
        for name in ("random", "tpe", "asha")
    }
    assert means["asha"] > means["random"] + 0.005
    assert means["tpe"] > means["random"] + 0.005


@pytest.mark.parametrize("minimise", [None, "mflops"])
@pytest.mark.parametrize("oracle_name", ["asha", "random", "grid"])
def test_the_bookkeeping_of_3000_trials_is_cheap(cnn, oracle_name, minimise):
    """Bookkeeping alone: the trials come from the study, so that TPE itself does not take part."""
    oracle, rng = proposer(cnn, 0, oracle_name, Objective("val_accuracy", minimise)), random.Random(0)
    start = time.process_time()
    for number in range(3000):
        oracle.begin(number, 0, cnn.sample(rng))
        oracle.tell(number, 0, (rng.random(), rng.random())[: 2 if minimise else 1])
    for number in range(3000, 3050):
        oracle.propose(number, always)
    assert time.process_time() - start < 60
