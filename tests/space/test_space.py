"""Search spaces: what a file may say, what each error tells, and the arithmetic of spaces."""

import itertools
import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import SpaceError
from pipeline.space import (
    DEFAULTS,
    KNOWN_PARAMS,
    Builder,
    Param,
    SearchSpace,
    builtin_spaces,
    complete,
    load_space,
    space_from,
)
from pipeline.space.values import yaml_number

SMALL = """
schema: 1
description: for tests
params:
  depth: {type: int, min_value: 1, max_value: 3}
  dense_layers: {type: choice, values: [0, 1, 2], default: 1}
  dense_units: {type: choice, values: [64, 128], default: 128, when: {dense_layers: [1, 2]}}
  dropout: {type: float, min_value: 0.0, max_value: 0.5, step: 0.1, default: 0.3}
  squeeze_excite: {type: boolean}
  pooling: {type: fixed, value: avg}
  optimizer: {type: choice, values: [adamw, sgd]}
  learning_rate:
    - {type: choice, values: [1.0e-3, 1.0e-2, 3.0e-3], when: {optimizer: [adamw]}}
    - {type: choice, values: [1.0e-1, 1.0e-2], default: 1.0e-2, when: {optimizer: [sgd]}}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> SearchSpace:
    return load_space(write(tmp_path, SMALL))


def brute_force(space: SearchSpace) -> set[str]:
    """Return all configurations as JSON: every combination of all values, less what is not active."""
    values: dict[str, list[object]] = {name: [] for name in space.names()}
    for param in space.params:
        values[param.name] += list(param.grid() or ())
    combinations = (dict(zip(values, row, strict=True)) for row in itertools.product(*values.values()))
    active = (space.active(combination) for combination in combinations)
    return {json.dumps(params) for params in active if space.contains(params)}


def test_a_file_becomes_a_space(small: SearchSpace) -> None:
    assert small.name == "a"
    assert small.description == "for tests"
    assert small.names() == [
        "depth",
        "dense_layers",
        "dense_units",
        "dropout",
        "squeeze_excite",
        "pooling",
        "optimizer",
        "learning_rate",
    ]
    assert small.params[0] == Param("depth", "int", (), 1, 3, 1, "linear", 1, None)
    assert small.params[2].when == ("dense_layers", (1, 2))
    assert small.params[4].values == (False, True)
    assert [param.default for param in small.params] == [1, 1, 128, 0.3, False, "avg", "adamw", 0.001, 0.01]


def test_defaults_are_those_of_the_active_hyperparameters(small: SearchSpace) -> None:
    assert small.defaults() == {
        "depth": 1,
        "dense_layers": 1,
        "dense_units": 128,
        "dropout": 0.3,
        "squeeze_excite": False,
        "pooling": "avg",
        "optimizer": "adamw",
        "learning_rate": 0.001,
    }


def test_active_drops_what_its_parent_switches_off(small: SearchSpace) -> None:
    values = {**small.defaults(), "dense_layers": 0, "extra": 1}
    assert "dense_units" not in small.active(values)
    assert "extra" not in small.active(values)
    assert small.active({**values, "dense_layers": 2})["dense_units"] == 128


def test_active_names_what_is_missing(small: SearchSpace) -> None:
    values = small.defaults()
    del values["dense_units"]
    with pytest.raises(SpaceError, match=r"params\.dense_units is missing"):
        small.active(values)


@pytest.mark.parametrize(
    ("change", "is_inside"),
    [
        ({}, True),
        ({"dropout": 0.1 + 0.2}, True),
        ({"dropout": 0}, True),
        ({"dropout": 0.25}, False),
        ({"dropout": 0.6}, False),
        ({"dropout": math.nan}, False),
        ({"depth": 3}, True),
        ({"depth": 4}, False),
        ({"depth": True}, False),
        ({"depth": "2"}, False),
        ({"squeeze_excite": 1}, False),
        ({"dense_layers": 0}, False),
        ({"pooling": "max"}, False),
        ({"learning_rate": 0.1}, False),
        ({"optimizer": "sgd", "learning_rate": 0.1}, True),
        ({"augment": "none"}, False),
    ],
)
def test_contains(small: SearchSpace, change: dict[str, object], is_inside: bool) -> None:
    assert small.contains({**small.defaults(), **change}) is is_inside


def test_size_counts_conditions_as_a_brute_force_does(small: SearchSpace) -> None:
    # depth 3, dense layers and units 1 + 2 x 2, dropout 6, batch norm 2, optimizer and rate 3 + 2
    assert small.size() == 3 * 5 * 6 * 2 * 5 == len(brute_force(small))


def test_a_continuous_range_makes_a_space_infinite() -> None:
    assert load_space("tiny").size() == math.inf


@pytest.mark.parametrize("name", builtin_spaces())
def test_installed_spaces_hold_their_defaults_and_200_samples(name: str) -> None:
    space = load_space(name)
    rng = random.Random(0)
    assert space.source == f"search_spaces/{name}.yaml"
    assert space.contains(space.defaults())
    samples = [space.sample(rng) for _ in range(200)]
    assert all(space.contains(sample) for sample in samples)
    assert all(space.active(sample) == sample for sample in samples)
    assert len({json.dumps(sample) for sample in samples}) == 200


def test_samples_reach_every_value_and_are_repeatable(small: SearchSpace) -> None:
    samples = [small.sample(random.Random(seed)) for seed in range(200)]
    assert {sample["depth"] for sample in samples} == {1, 2, 3}
    assert {sample["dropout"] for sample in samples} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {sample["learning_rate"] for sample in samples} == {0.001, 0.01, 0.003, 0.1}
    assert small.sample(random.Random(0)) == small.sample(random.Random(0))


def test_log_sampling_draws_small_and_large_values_equally_often() -> None:
    rate = Param("learning_rate", "float", (), 1e-4, 1e-2, None, "log", 1e-3)
    units = Param("dense_units", "int", (), 1, 100, None, "log", 10)
    rng = random.Random(0)
    below = sum(float(rate.sample(rng)) < 1e-3 for _ in range(1000))
    drawn = {units.sample(rng) for _ in range(2000)}
    assert 450 < below < 550
    assert (min(drawn), max(drawn)) == (1, 100)
    assert all(type(value) is int for value in drawn)


def test_installed_spaces_vary_every_hyperparameter_and_cnn_from_the_default_recipe() -> None:
    space = load_space("cnn")
    varied = {name for each in map(load_space, builtin_spaces()) for name in each.names()}
    assert varied == set(KNOWN_PARAMS) == set(DEFAULTS)
    assert complete(space.defaults()) == DEFAULTS


def test_the_pretrained_networks_of_a_space_are_known_each_once() -> None:
    assert load_space("finetune").backbones() == ["mobilenet_v2", "efficientnet_v2_b0", "resnet50_v2"]
    assert load_space("cnn").backbones() == []
    mixed = space_from(b"schema: 1\nparams:\n  backbone: {type: choice, values: [none, resnet50_v2]}\n", "a", "a.yaml")
    assert mixed.backbones() == ["resnet50_v2"]
    hub = "hub:resnet_18_imagenet", "hub:/presets/mine", "hub:hf://user/mine"
    named = space_from(
        f"schema: 1\nparams:\n  backbone: {{type: choice, values: {list(hub)}}}\n".encode(), "a", "a.yaml"
    )
    assert named.backbones() == list(hub)
    assert replace(mixed, builder=Builder("a.py", "build", "")).backbones() == []


def test_every_default_is_legal() -> None:
    assert all(KNOWN_PARAMS[name].is_legal(value) for name, value in DEFAULTS.items())


def test_a_hyperparameter_can_be_fixed_for_a_whole_space() -> None:
    for space in (load_space("cnn"), load_space("tiny")):  # tiny does not vary it
        fixed = space.with_fixed("augment", "strong")
        rng = random.Random(0)
        everything = [
            fixed.defaults(),
            *(params for _, params in fixed.portfolio),
            *(fixed.sample(rng) for _ in range(9)),
        ]
        assert {params["augment"] for params in everything} == {"strong"}
        assert all(fixed.contains(params) for params in everything)
        assert len(fixed.portfolio) == len(space.portfolio)
        assert fixed.to_json() != space.to_json()


def test_complete_fills_in_the_defaults_and_refuses_unknown_names() -> None:
    assert complete({"depth": 2}) == {**DEFAULTS, "depth": 2}
    for backbone in ("mobilenet_v2", "hub:resnet_18_imagenet"):
        values = complete({"backbone": backbone, "batch_size": 8})
        changed = {name for name, value in values.items() if value != DEFAULTS[name]}
        assert changed == {"backbone", "batch_size", "optimizer", "learning_rate"}
        assert (values["optimizer"], values["learning_rate"], values["batch_size"]) == ("adamw", 3e-3, 8)
    with pytest.raises(SpaceError, match=r"params\.dept is not .*did you mean depth\?"):
        complete({"dept": 2})


def test_to_json_holds_everything_but_the_place(small: SearchSpace, tmp_path: Path) -> None:
    document = json.loads(json.dumps(small.to_json(), allow_nan=False))
    assert document["params"][2] == {
        "name": "dense_units",
        "type": "choice",
        "values": [64, 128],
        "default": 128,
        "when": {"dense_layers": [1, 2]},
    }
    (tmp_path / "b").mkdir()
    assert load_space(write(tmp_path / "b", SMALL)).to_json() == document


def test_installed_spaces_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert builtin_spaces() == ["cnn", "finetune", "gpu", "mobile", "resnet", "tiny"]
    assert load_space("tiny").names()[0] == "depth"


@pytest.mark.heavy
def test_spaces_need_no_heavy_package() -> None:
    code = "import sys, pipeline.space; print({'keras', 'keras_tuner', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", "1.0e-4"), ("1e4", "1.0e+4"), ("1.5E3", "1.5e+3"), ("12", "12"), ("a", "")],
)
def test_yaml_number(text: str, number: str) -> None:
    assert yaml_number(text) == number


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SpaceError) as caught:
        load_space("cn")
    known = "expected cnn, finetune, gpu, mobile, resnet, tiny, or a file"
    assert f"'cn' is not installed; {known}; did you mean cnn?" in str(caught.value)


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "large.yaml").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "latin.yaml").write_bytes("schema: 1 # é".encode("latin-1"))
    for name, text in [
        ("missing.yaml", "no such file"),
        ("folder.yaml", "cannot be read (Is a directory)"),
        ("large.yaml", "is larger than 1 MiB"),
        ("latin.yaml", "byte 12 is not UTF-8; expected UTF-8 text; save the file as UTF-8"),
    ]:
        with pytest.raises(SpaceError) as caught:
            load_space(str(tmp_path / name))
        assert f"{tmp_path / name}: {text}" in str(caught.value)


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, "\ufeff" + SMALL)).size() == 900


def test_whole_numbers_become_floats_where_floats_are_meant(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "schema: 1\nparams:\n  filters_growth: {type: choice, values: [1, 2]}\n"))
    assert [type(value) for value in space.params[0].values] == [float, float]


def test_a_stepped_float_range_reaches_its_maximum(small: SearchSpace) -> None:
    assert small.params[3].grid() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def test_a_portfolio_holds_complete_active_configurations_in_order(tmp_path: Path) -> None:
    text = SMALL + "portfolio:\n  plain: {}\n  momentum: {optimizer: sgd, dense_layers: 0, dropout: 0}\n"
    space = load_space(write(tmp_path, text))
    assert [name for name, _ in space.portfolio] == ["plain", "momentum"]
    (_, plain), (_, momentum) = space.portfolio
    assert plain == space.defaults()
    assert momentum == {
        "depth": 1,
        "dense_layers": 0,
        "dropout": 0.0,
        "squeeze_excite": False,
        "pooling": "avg",
        "optimizer": "sgd",
        "learning_rate": 0.01,
    }
    assert space.contains(momentum)
    assert space.to_json()["portfolio"] == {"plain": plain, "momentum": momentum}


def test_a_portfolio_may_be_left_out(small: SearchSpace) -> None:
    assert small.portfolio == ()
    assert small.to_json()["portfolio"] == {}


@pytest.mark.parametrize("name", builtin_spaces())
def test_installed_portfolios_begin_with_the_defaults_and_fit_small_images(name: str) -> None:
    from pipeline.models.measure import measure

    space = load_space(name)
    for _, params in space.portfolio:
        assert space.contains(params)
        assert space.backbones() or measure(params, (8, 8, 1), 10).num_params > 0
    assert [params for _, params in space.portfolio[:1]] in ([], [space.defaults()])


def test_the_portfolio_of_cnn_is_named() -> None:
    names = ["medium", "small", "bare", "early", "bare_early", "residual", "separable", "wide"]
    assert [name for name, _ in load_space("cnn").portfolio] == names


def test_a_neighbour_keeps_most_values_and_is_a_configuration_of_the_space():
    space, rng = load_space("cnn"), random.Random(0)
    params = space.sample(rng)
    near = [space.neighbour(params, rng, 0.2) for _ in range(200)]
    assert all(space.contains(each) for each in near)
    shares = [sum(each.get(name) == value for name, value in params.items()) / len(params) for each in near]
    assert 0.75 < sum(shares) / 200 < 0.95  # a fifth is drawn anew, and some of it is the same again
    assert space.neighbour(params, rng, 0.0) == params
