"""One contract for all oracles; what is particular to halving is in test_halving.py."""

import math
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.records import Objective
from pipeline.space import load_space

pytestmark = pytest.mark.heavy

NAMES = ["asha", "tpe", "random", "grid", "bayesian"]
SMALL = """
schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 2}
  optimizer: {type: choice, values: [adamw, sgd], default: adamw}
  dropout: {type: float, min_value: 0.0, max_value: 0.3, step: 0.1, default: 0.1, when: {optimizer: [adamw]}}
  learning_rate:
    - {type: choice, values: [0.001, 0.002], default: 0.001, when: {optimizer: [adamw]}}
    - {type: choice, values: [0.1], default: 0.1, when: {optimizer: [sgd]}}
"""  # 2 x (4 x 2 + 1) = 18 configurations
SIZE = 18


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SMALL)
    return load_space(str(path))


@pytest.fixture(scope="module")
def cnn():
    return load_space("cnn")


def proposer(name, space, seed=0, objective=None):
    from pipeline.search.oracles import Proposer

    return Proposer(name, space, seed, objective or Objective(), 3 if name == "asha" else 1)


def always(proposal):
    return True


def is_new(proposal):
    return proposal.rung == 0


def score_of(params):
    """Return a made-up accuracy in (0.4, 1)."""
    rate = params.get("learning_rate", 0.01)
    return 0.9 - 0.05 * abs(params["depth"] - 2) - 0.03 * abs(math.log10(rate) + 2.5) - params.get("dropout", 0) / 10


def key(params):
    return tuple(sorted(params.items()))


def ask_and_tell(oracle, count, first=0):
    """Train `count` rungs, one at a time; return the proposals."""
    proposed, next_number = [], first
    for _ in range(count):
        proposal = oracle.propose(next_number, always)
        if proposal is None:
            break
        next_number = max(next_number, proposal.number + 1)
        oracle.tell(proposal.number, proposal.rung, (score_of(proposal.params),))
        proposed.append(proposal)
    return proposed


def begun(proposed):
    """Return the configurations of the trials that began, without promotions."""
    return [proposal.params for proposal in proposed if proposal.rung == 0]


@pytest.mark.parametrize("name", NAMES)
def test_every_oracle_is_one_of_keras_tuner(name, small):
    import keras_tuner as kt

    assert isinstance(proposer(name, small).oracle, kt.Oracle)


@pytest.mark.parametrize("name", NAMES)
def test_proposals_lie_in_the_space_with_exactly_the_active_hyperparameters(name, cnn):
    proposed = ask_and_tell(proposer(name, cnn), 40)
    assert len(proposed) == 40
    assert all(cnn.contains(proposal.params) for proposal in proposed)
    assert [proposal.number for proposal in proposed if proposal.rung == 0] == list(range(len(begun(proposed))))


@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_is_searched_whole_once_and_then_exhausted(name, small):
    assert small.size() == SIZE
    oracle, params = proposer(name, small), []
    while proposal := oracle.propose(len(params), always):
        params += begun([proposal])
        oracle.tell(proposal.number, proposal.rung, (0.5,) if proposal.number % 2 else None)
    assert len(params) == len({key(values) for values in params}) == SIZE
    assert oracle.propose(SIZE, always) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_proposals_and_zero_is_a_seed(name, cnn):
    assert ask_and_tell(proposer(name, cnn, 0), 20) == ask_and_tell(proposer(name, cnn, 0), 20)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_other_seeds_give_other_proposals_and_no_shifted_copies(name, cnn):
    first, second = (begun(ask_and_tell(proposer(name, cnn, seed), 20)) for seed in (0, 1))
    assert not [params for params in first if params in second]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_study_began_itself_is_never_proposed(name, small):
    oracle = proposer(name, small)
    own = [{"depth": depth, "optimizer": "sgd", "learning_rate": 0.1} for depth in (2, 1)] + [small.defaults()]
    for number, params in enumerate(own):
        oracle.begin(number, 0, params)
        oracle.tell(number, 0, None)
    proposed = []
    while proposal := oracle.propose(3 + len(proposed), always):
        proposed.append(proposal.params)
        oracle.tell(proposal.number, 0, None)
    assert len(proposed) == SIZE - 3
    assert not [params for params in own if params in proposed]


@pytest.mark.parametrize("name", NAMES)
def test_a_float_that_agrees_to_six_digits_is_the_same_configuration(name, cnn):
    oracle = proposer(name, cnn)
    proposal = oracle.propose(0, always)
    twin = {**proposal.params, "learning_rate": proposal.params["learning_rate"] * (1 + 1e-9)}
    assert twin["learning_rate"] != proposal.params["learning_rate"]
    again = proposer(name, cnn)
    again.begin(0, 0, twin)
    assert key(again.propose(1, always).params) != key(proposal.params)


@pytest.mark.parametrize("name", NAMES)
def test_refused_configurations_are_passed_over_for_good(name, small):
    oracle, refused = proposer(name, small), []

    def is_sgd(proposal):
        if proposal.params["optimizer"] != "sgd":
            refused.append(key(proposal.params))
        return proposal.params["optimizer"] == "sgd"

    for number in range(2):
        assert oracle.propose(number, is_sgd).params["optimizer"] == "sgd"
        oracle.tell(number, 0, None)
    assert oracle.propose(2, is_sgd) is None
    assert len(refused) == len(set(refused)) == SIZE - 2
    assert oracle.propose(2, always) is None


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_space_in_which_nothing_is_acceptable_ends(name, cnn):
    assert proposer(name, cnn).propose(0, lambda proposal: False) is None


@pytest.mark.parametrize("name", NAMES)
def test_failures_in_a_row_do_not_end_a_search(name, cnn):
    oracle = proposer(name, cnn)
    for number in range(30):
        assert oracle.propose(number, always).number == number
        oracle.tell(number, 0, None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [None, (math.nan,), (math.inf,)])
def test_a_failure_is_never_the_best(name, bad, small):
    oracle = proposer(name, small, objective=Objective("val_loss"))
    for number, values in enumerate([bad, (0.7,), bad, (0.4,), bad, (0.5,)]):
        oracle.propose(number, is_new)
        oracle.tell(number, 0, values)
    best = oracle.oracle.get_best_trials(6)
    assert [trial.score for trial in best] == [0.4, 0.5, 0.7, None, None, None]
    assert [trial.status for trial in best[3:]] == ["FAILED"] * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_direction_is_that_of_the_objective(name, small):
    for objective, best in (("val_loss", 0.2), ("val_accuracy", 0.8), ("val_macro_f1", 0.8)):
        oracle = proposer(name, small, objective=Objective(objective))
        for number, value in enumerate([0.5, 0.2, 0.8]):
            oracle.begin(number, 0, list_of_params(small)[number])
            oracle.tell(number, 0, (value,))
        assert oracle.oracle.get_best_trials(1)[0].score == best


def list_of_params(space):
    from pipeline.search.oracles.translation import configurations

    return list(configurations(space))


@pytest.mark.parametrize("name", NAMES)
def test_reports_reach_keras_tuner_and_the_last_value_is_the_score(name, small):
    oracle = proposer(name, small)
    oracle.propose(0, always)
    for step, value in ((1, 0.9), (2, math.nan), (3, 0.6)):
        oracle.report(0, 0, step, value)
    (trial,) = oracle.oracle.trials.values()
    oracle.tell(0, 0, (0.5,))
    history = trial.metrics.get_history("val_accuracy")
    assert [(row.step, row.mean()) for row in history] == [(1, 0.9), (3, 0.6), (4, 0.5)]
    assert trial.score == 0.5
    assert trial.best_step == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_cost_beside_the_objective_is_taken_by_all(name, small):
    oracle = proposer(name, small, objective=Objective("val_accuracy", "mflops"))
    for number in range(14):
        proposal = oracle.propose(number, is_new)
        oracle.tell(number, 0, (score_of(proposal.params), float(proposal.params["depth"])))
    assert proposal.number == 13


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_in_an_oracle_leaves_no_lock_held(name, small, monkeypatch):
    from keras_tuner.src.engine.oracle import LOCKS

    oracle = proposer(name, small)
    with monkeypatch.context() as patch:
        patch.setattr(oracle.oracle, "candidates", lambda trial_id: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            oracle.propose(0, always)
    assert not LOCKS[oracle.oracle].locked()
    proposed = []
    thread = threading.Thread(target=lambda: proposed.append(oracle.propose(0, always)), daemon=True)
    thread.start()
    thread.join(60)
    assert proposed[0].number == 0


@pytest.mark.parametrize("name", NAMES)
def test_several_trainings_may_run_at_once_and_end_in_any_order(name, small):
    oracle = proposer(name, small)
    running = [oracle.propose(number, always) for number in range(4)]
    for number in (2, 0, 3, 1):
        oracle.tell(number, 0, None)
    running.append(oracle.propose(4, always))
    assert len({key(proposal.params) for proposal in running}) == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_is_begun_twice_runs_once(name, small):
    oracle = proposer(name, small)
    oracle.begin(0, 0, small.defaults())
    oracle.begin(0, 0, small.defaults())
    assert len(oracle.oracle.trials) == 1


@pytest.mark.parametrize("name", ["asha", "tpe"])
def test_an_oracle_that_learns_prefers_what_was_good(name, cnn):
    """Chance has the good optimizer in half of the cases."""
    oracle, late = proposer(name, cnn), 0
    for number in range(60):
        proposal = oracle.propose(number, is_new)
        late += number >= 40 and proposal.params["optimizer"] == "sgd"
        oracle.tell(number, 0, (0.9 if proposal.params["optimizer"] == "sgd" else 0.1,))
    assert late >= 15


def is_acceptable(proposal):
    """Refuse one in four, always the same."""
    return (proposal.params["depth"] + round(100 * proposal.params.get("dropout", 0.3)) // 10) % 4 > 0


class Life:
    """A study that trains `num_workers` at once and keeps a journal."""

    def __init__(self, name, space, num_workers):
        self.make = lambda: proposer(name, space, 7)
        self.oracle, self.num_workers = self.make(), num_workers
        self.running, self.journal, self.proposed, self.next_number = [], [], [], 0

    def step(self, choice):
        """Propose if a worker is free, else end one of those that run; `choice` says which and how."""
        proposal = None
        if len(self.running) < self.num_workers:
            proposal = self.oracle.propose(self.next_number, is_acceptable)
            self.proposed.append(proposal)
        if proposal is not None:
            self.next_number += proposal.rung == 0
            self.running.append(proposal)
            self.journal.append(("begin", proposal.number, proposal.rung, proposal.params))
        elif self.running:
            ended = self.running.pop(choice % len(self.running))
            values = None if choice % 3 == 0 else (score_of(ended.params) + choice / 1000,)
            self.oracle.tell(ended.number, ended.rung, values)
            self.journal.append(("tell", ended.number, ended.rung, values))

    def resume(self):
        """Go on with a new oracle that knows the journal alone."""
        self.oracle = self.make()
        for verb, *arguments in self.journal:
            getattr(self.oracle, verb)(*arguments)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    choices=st.lists(st.integers(0, 30), min_size=5, max_size=60),
    num_workers=st.integers(1, 3),
    kills=st.sets(st.integers(0, 60), max_size=3),
)
def test_a_resumed_study_goes_on_as_if_it_had_never_stopped(name, small, choices, num_workers, kills):
    choices = choices[:24] if name == "bayesian" else choices
    whole, resumed = Life(name, small, num_workers), Life(name, small, num_workers)
    for index, choice in enumerate(choices):
        whole.step(choice)
        if index in kills:
            resumed.resume()
        resumed.step(choice)
    assert resumed.journal == whole.journal
    new = [key(proposal.params) for proposal in whole.proposed if proposal and proposal.rung == 0]
    assert len(new) == len(set(new))


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_goes_on_when_the_estimators_decide(name, tmp_path):
    """Two hyperparameters: Gaussian process and TPE begin after 6 and 10 trials."""
    path = tmp_path / "narrow.yaml"
    rate = "{type: float, min_value: 1.0e-3, max_value: 1.0e-1, sampling: log}"
    path.write_text(
        f"schema: 1\nparams:\n  depth: {{type: int, min_value: 1, max_value: 3}}\n  learning_rate: {rate}\n"
    )
    space = load_space(str(path))
    unkilled = proposer(name, space)
    before = ask_and_tell(unkilled, 14)
    resumed = proposer(name, space)
    for proposal in before:
        resumed.begin(proposal.number, proposal.rung, proposal.params)
        resumed.tell(proposal.number, proposal.rung, (score_of(proposal.params),))
    assert ask_and_tell(resumed, 4, first=14) == ask_and_tell(unkilled, 4, first=14)
