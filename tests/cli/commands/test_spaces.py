"""`pipeline spaces`: what is printed where, JSON documents and exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli

ONE = """schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 5, step: 2}
  squeeze_excite: {type: boolean}
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
        ["cnn", "18", "infinite"],
        ["finetune", "13", "infinite"],
        ["gpu", "16", "infinite"],
        ["mobile", "18", "infinite"],
        ["resnet", "17", "infinite"],
        ["tiny", "7", "infinite"],
    ]
    assert done.stderr == "Next: pipeline spaces show cnn  # show what it varies\n"


def test_list_as_json_writes_an_infinite_size_as_null() -> None:
    document = json.loads(run("list", "--json").stdout)
    assert document["schema"] == 1
    assert [space["name"] for space in document["spaces"]] == ["cnn", "finetune", "gpu", "mobile", "resnet", "tiny"]
    assert document["spaces"][5]["size"] is None
    assert document["spaces"][5]["source"] == "search_spaces/tiny.yaml"
    assert document["spaces"][5]["params"][0] == "depth"


def test_show_prints_ranges_conditions_and_what_is_not_varied() -> None:
    done = run("show", "cnn")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["dense_units", "choice", "64,", "128", "128", "dense_layers", "=", "1"] in rows
    assert ["dropout", "float", "0.0..0.4", "step", "0.1", "0.1"] in rows
    assert ["learning_rate", "float", "0.01..0.3", "log", "0.1", "optimizer", "=", "sgd"] in rows
    assert "Size: infinite configurations" in done.stdout
    assert "Not varied: backbone none, squeeze_excite false, norm batch, activation relu, resolution 1.0" in done.stdout
    assert "Next: pipeline search digits --space cnn" in done.stderr
    assert "dropout 0.1, resolution 1.0" in run("show", "tiny").stdout
    assert ["squeeze_excite", "boolean", "false,", "true", "false"] in [
        line.split() for line in run("show", "resnet").stdout.splitlines()
    ]


@pytest.mark.heavy
def test_show_of_pretrained_networks_leaves_out_what_they_have_no_use_for() -> None:
    done = run("show", "finetune", "--image", "64x64x1")
    assert "Not varied: resolution 1.0\n" in done.stdout
    assert "--space finetune --image-size 96" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["smallest", "2,270,794"] in [row[:2] for row in rows]  # MobileNetV2 has 2,257,984 without its last layer
    assert "backbone none" in run("show", "cnn").stdout
    assert "frozen" not in run("show", "cnn").stdout


def test_show_counts_the_smallest_and_the_largest_network() -> None:
    # conv 3x3x1x8, batch norm, dense of 8 and of all pixels; two stages of 16 and 32 and all of a quarter of the pixels
    rows = [line.split() for line in run("show", "tiny", "--image", "8x8x1", "--classes", "2").stdout.splitlines()]
    assert ["smallest", str(9 * 8 + 4 * 8 + 9 * 2), "0.01"] in rows
    assert ["largest", f"{9 * 16 + 4 * 16 + 9 * 16 * 32 + 4 * 32 + (16 * 32 + 1) * 2:,}", "0.17"] in rows
    networks = json.loads(run("show", "tiny", "--image", "8x8x1", "--classes", "2", "--json").stdout)["networks"]
    assert (networks["smallest"]["params"]["depth"], networks["largest"]["params"]["depth"]) == (1, 2)
    assert "No network of this space fits" in run("show", "cnn", "--image", "1x1x1").stdout


def test_an_image_is_three_numbers() -> None:
    done = run("show", "cnn", "--image", "32x32")
    assert done.exit_code == 2
    assert "'32x32' is not an image size; write height x width x channels, such as 32x32x3" in done.stderr


def test_init_writes_a_commented_file_that_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    done = run("init", str(path), "--from", "tiny")
    assert (done.exit_code, done.stdout) == (0, f"{path}\n")
    assert f"Next: pipeline spaces check {path}" in done.stderr
    assert path.read_text().startswith("# A small space of small networks")
    assert run("check", str(path)).exit_code == 0
    again = run("init", str(path))
    assert again.exit_code == 2
    assert "my.yaml: already exists; choose another name" in again.stderr
    assert path.read_text().startswith("# A small space of small networks")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.txt"], "a.txt: the name of a search space must end in .yaml or .yml; write a.txt.yaml"),
        (["no/such/a.yaml"], "no/such/a.yaml: cannot be written (No such file or directory)"),
        (["a.yaml", "--from", "cn"], "did you mean cnn?"),
    ],
)
def test_init_refuses_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("init", *arguments)
    assert done.exit_code == 2
    assert message in str(done.exception) + done.stderr
    assert list(tmp_path.iterdir()) == []


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
    assert "expected cnn, finetune, gpu, mobile, resnet, tiny, or a file" in done.stderr


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
