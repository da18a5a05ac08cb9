"""`pipeline spaces`: what is printed where, JSON documents and exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli

ONE = """schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 5, step: 2}
  batch_norm: {type: boolean}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["spaces", *arguments])


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good one.yaml"
    path.write_text(ONE)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(ONE.replace("depth", "dept"))
    return str(path)


def test_list_shows_the_installed_spaces_and_the_next_command() -> None:
    done = run("list")
    assert done.exit_code == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["name", "params", "size"],
        ["cnn", "17", "infinite"],
        ["tiny", "7", "infinite"],
    ]
    assert done.stderr == "Next: pipeline spaces show cnn  # show what it varies\n"


def test_list_as_json_writes_an_infinite_size_as_null() -> None:
    document = json.loads(run("list", "--json").stdout)
    assert document["schema"] == 1
    assert [space["name"] for space in document["spaces"]] == ["cnn", "tiny"]
    assert document["spaces"][1]["size"] is None
    assert document["spaces"][1]["source"] == "search_spaces/tiny.yaml"
    assert document["spaces"][1]["params"][0] == "depth"


def test_show_prints_ranges_conditions_and_what_is_not_varied() -> None:
    done = run("show", "cnn")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["dense_units", "choice", "64,", "128", "128", "dense_layers", "=", "1"] in rows
    assert ["dropout", "float", "0.0..0.4", "step", "0.1", "0.1"] in rows
    assert ["learning_rate", "float", "0.01..0.3", "log", "0.1", "optimizer", "=", "sgd"] in rows
    assert ["batch_norm", "boolean", "false,", "true", "true"] in rows
    assert "Size: infinite configurations" in done.stdout
    assert "Not varied" not in done.stdout
    assert "Next: pipeline search digits --space cnn" in done.stderr
    assert "dropout 0.1, batch_norm true" in run("show", "tiny").stdout


def test_show_lists_the_portfolio_by_what_it_changes() -> None:
    rows = [" ".join(line.split()) for line in run("show", "cnn").stdout.splitlines()]
    assert "portfolio changes of the defaults" in rows
    assert "medium none" in rows
    assert "small filters 16, dropout 0.0, augment none" in rows
    assert "portfolio" not in run("show", "tiny").stdout
    document = json.loads(run("show", "cnn", "--json").stdout)
    assert document["portfolio"]["small"]["filters"] == 16
    assert document["portfolio"]["small"]["depth"] == 3


def test_show_counts_a_file_and_quotes_it_in_the_next_command(good: str) -> None:
    done = run("show", good)
    assert "1..5 step 2" in done.stdout
    assert "Size: 6 configurations" in done.stdout
    assert f"--space '{good}'" in done.stderr


def test_show_as_json_is_the_whole_space_with_its_size(good: str) -> None:
    document = json.loads(run("show", good, "--json").stdout)
    assert (document["size"], document["source"], document["name"]) == (6, good, "good one")
    assert document["params"][0]["max_value"] == 5


def test_show_of_an_unknown_name_is_a_usage_error() -> None:
    done = run("show", "nope")
    assert done.exit_code == 2
    assert "expected cnn, tiny, or a file" in done.stderr


def test_check_reports_every_file_and_ends_with_2_if_one_is_bad(good: str, bad: str) -> None:
    done = run("check", bad, good, "--quiet")
    assert done.exit_code == 2
    assert done.stdout == f"{good}: ok, 2 hyperparameters\n"
    assert f"{bad}: params.dept is not a hyperparameter" in done.stderr
    assert "did you mean depth?" in done.stderr


def test_check_of_good_files_names_the_next_command(good: str) -> None:
    done = run("check", good)
    assert done.exit_code == 0
    assert f"Next: pipeline spaces show '{good}'" in done.stderr


def test_check_as_json_has_a_row_for_each_file(good: str, bad: str) -> None:
    done = run("check", good, bad, "--json")
    rows = json.loads(done.stdout)["files"]
    assert done.exit_code == 2
    assert [(row["file"], row["ok"], row["params"]) for row in rows] == [(good, True, 2), (bad, False, None)]
    assert rows[0]["error"] is None
    assert "params.dept" in rows[1]["error"]


@pytest.mark.parametrize("arguments", [(), ("list",), ("show",), ("check",)])
def test_every_help_has_an_example(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "--help")
    assert done.exit_code == 0
    assert f"Example:\n{'    '}pipeline spaces {arguments[0] if arguments else 'list'}" in done.stdout
