"""One contract for KerasTuner's three oracles."""

import pytest

from pipeline.space import load_space

pytestmark = pytest.mark.heavy

NAMES = ["random", "bayesian", "grid"]
SMALL = """
schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 2}
  optimizer: {type: choice, values: [adamw, sgd], default: adamw}
  dropout: {type: float, min_value: 0.0, max_value: 0.3, step: 0.1, default: 0.1, when: {optimizer: [adamw]}}
  learning_rate:
    - {type: choice, values: [0.001, 0.002], default: 0.001, when: {optimizer: [adamw]}}
    - {type: choice, values: [0.1, 0.2], default: 0.1, when: {optimizer: [sgd]}}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return load_space(str(path))


def proposer(name, space, seed=0):
    from pipeline.search.oracles import Proposer

    return Proposer(name, space, seed)


def ask_and_tell(oracle, count, first=0):
    proposed = []
    for number in range(first, first + count):
        params = oracle.propose(number, lambda params: True)
        if params is None:
            break
        oracle.tell(number, 0.5 + len(params) / 100)
        proposed.append(params)
    return proposed


@pytest.mark.parametrize("name", NAMES)
def test_proposals_are_complete_configurations_of_the_space(name):
    space = load_space("cnn")
    assert all(space.contains(params) for params in ask_and_tell(proposer(name, space), 20))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_proposed_twice(name, small):
    proposed = ask_and_tell(proposer(name, small), 12)
    assert len({tuple(sorted(params.items())) for params in proposed}) == len(proposed) == 12


@pytest.mark.parametrize("name", ["random", "grid"])
def test_a_small_space_is_searched_whole_and_then_exhausted(name, small):
    assert small.size() == 2 * (4 * 2 + 2)
    proposed = ask_and_tell(proposer(name, small), 50)
    assert len({tuple(sorted(params.items())) for params in proposed}) == 20


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_proposals_and_zero_is_a_seed(name, small):
    assert ask_and_tell(proposer(name, small), 6) == ask_and_tell(proposer(name, small), 6)


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_neighbouring_seeds_are_not_shifted_copies(name):
    space = load_space("cnn")
    first = ask_and_tell(proposer(name, space, 0), 10)
    second = ask_and_tell(proposer(name, space, 1), 10)
    assert not [params for params in first if params in second]


@pytest.mark.parametrize("name", NAMES)
def test_refused_proposals_are_passed_over(name, small):
    oracle = proposer(name, small)
    for number in range(5):
        params = oracle.propose(number, lambda params: params["optimizer"] == "sgd")
        if params is None:
            break
        assert params["optimizer"] == "sgd"
        oracle.tell(number, 0.5)
    assert number >= 3


@pytest.mark.parametrize("name", NAMES)
def test_failures_in_a_row_do_not_end_a_search(name, small):
    oracle = proposer(name, small)
    for number in range(6):
        assert oracle.propose(number, lambda params: True) is not None
        oracle.tell(number, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_oracle_goes_on_where_the_first_one_was(name, small):
    whole = ask_and_tell(proposer(name, small), 10)
    resumed = proposer(name, small)
    for number, params in enumerate(whole[:6]):
        resumed.replay(number, params)
        resumed.tell(number, 0.5 + len(params) / 100)
    rest = ask_and_tell(resumed, 4, first=6)
    assert not [params for params in rest if params in whole[:6]]
    if name != "bayesian":
        assert rest == whole[6:]


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_a_replayed_oracle_repeats_nothing_of_a_continuous_space_either(name):
    space = load_space("cnn")
    whole = ask_and_tell(proposer(name, space), 8)
    resumed = proposer(name, space)
    for number, params in enumerate(whole[:5]):
        resumed.replay(number, params)
        resumed.tell(number, 0.5)
    assert ask_and_tell(resumed, 3, first=5) == whole[5:]


def test_a_grid_keeps_all_workers_busy(small):
    oracle = proposer("grid", small)
    proposed = [oracle.propose(number, lambda params: True) for number in range(6)]
    assert len({tuple(sorted(params.items())) for params in proposed}) == 6


@pytest.mark.parametrize("name", NAMES)
def test_several_trials_may_run_at_once(name, small):
    oracle = proposer(name, small)
    first = oracle.propose(0, lambda params: True)
    second = oracle.propose(1, lambda params: True)
    assert first != second
    oracle.tell(1, 0.4)
    oracle.tell(0, 0.6)
    assert oracle.propose(2, lambda params: True) not in (first, second)
