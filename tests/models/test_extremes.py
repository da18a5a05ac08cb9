"""The smallest and the largest network of a space."""

import itertools
import random

import pytest

from pipeline.models.extremes import extremes
from pipeline.models.measure import measure
from pipeline.space import builtin_spaces, load_space, space_from

TEXT = b"""
schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 3, default: 2}
  filters: {type: choice, values: [8, 24, 16]}
  block: {type: choice, values: [plain, residual]}
  dense_layers: {type: int, min_value: 0, max_value: 1}
  dense_units: {type: choice, values: [8, 64], when: {dense_layers: [1]}}
  learning_rate: {type: float, min_value: 1.0e-3, max_value: 1.0e-2, sampling: log, default: 3.0e-3}
"""


def test_the_extremes_are_those_of_all_networks():
    space = space_from(TEXT, "a", "a.yaml")
    sizes = []
    for depth, filters, block, units in itertools.product(range(1, 4), (8, 16, 24), ("plain", "residual"), (0, 8, 64)):
        dense = {"dense_layers": 1, "dense_units": units} if units else {"dense_layers": 0}
        sizes.append(measure({"depth": depth, "filters": filters, "block": block, **dense}, (16, 16, 1), 10).num_params)
    (small, smallest), (large, largest) = extremes(space, (16, 16, 1), 10)
    assert (smallest.num_params, largest.num_params) == (min(sizes), max(sizes))
    assert (small["depth"], small["dense_layers"], large["depth"], large["dense_units"]) == (1, 0, 3, 64)
    assert space.contains(small)
    assert space.contains(large)


def test_images_too_small_for_a_space_have_no_extremes():
    assert extremes(space_from(TEXT, "a", "a.yaml"), (1, 1, 1), 10) is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] * (name == "finetune")) for name in builtin_spaces()]
)
def test_no_random_network_of_an_installed_space_is_outside(name):
    space, rng = load_space(name), random.Random(0)
    (_, smallest), (_, largest) = extremes(space, (32, 32, 3), 10)
    sizes = [measure(space.sample(rng), (32, 32, 3), 10).num_params for _ in range(300)]
    assert smallest.num_params <= min(sizes)
    assert max(sizes) <= largest.num_params
