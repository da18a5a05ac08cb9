"""`pipeline score` as far as it goes without a real model: help, refusals and signals."""

import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.bundle import write_bundle
from pipeline.card import ModelCard
from pipeline.cli.main import cli
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.errors import Interrupted
from pipeline.records import ImageSpec

HEAVY = ("tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "pyarrow", "optuna", "numpy")


def run(*arguments: object):
    return CliRunner().invoke(cli, ["score", *map(str, arguments)])


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Lambda", "module": "keras.layers"}))
    write_bundle(folder, ModelCard(("a", "b"), ImageSpec(4, 4, 3)))
    return folder


@pytest.fixture
def image_path(tmp_path) -> Path:
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 4)).save(path)
    return path


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", [["--help"], ["champion", "typo", "-o", "out"]])
def test_help_and_a_mistyped_input_load_nothing_heavy(tmp_path, arguments):
    code = f"""
import sys
from pipeline.cli.main import main
sys.argv = ["pipeline", "score", *{arguments!r}]
try:
    main()
finally:
    print(sorted(name for name in {HEAVY!r} if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1] == "[]"
    if arguments != ["--help"]:
        assert found.returncode == 3
        assert "typo: no such file or folder" in found.stderr


def test_empty_folder_is_a_data_error(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    result = run(bundle, tmp_path / "empty", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "no files found; give at least one image" in result.stderr


def test_tampered_model_ends_with_6(tmp_path, bundle, image_path):
    content = bytearray((bundle / "model.keras").read_bytes())
    content[40] ^= 1
    (bundle / "model.keras").write_bytes(content)
    result = run(bundle, image_path, "-o", tmp_path / "out")
    assert result.exit_code == 6
    assert "damaged or changed after it was saved" in result.stderr
    assert not (tmp_path / "out").exists()


def test_model_with_a_foreign_layer_ends_with_6(tmp_path, bundle, image_path):
    result = run(bundle, image_path, "-o", tmp_path / "out")
    assert result.exit_code == 6
    assert "holds keras.layers.Lambda; expected built-in layers only" in result.stderr


def test_output_with_foreign_files_ends_with_2(tmp_path, bundle, image_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").touch()
    result = run(bundle, image_path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "holds b.png; expected a new or empty folder" in result.stderr


def test_folder_that_is_no_output_is_not_overwritten(tmp_path, bundle, image_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").touch()
    result = run(bundle, image_path, "-o", tmp_path / "out", "--overwrite")
    assert result.exit_code == 2
    assert "holds b.png and no _PLAN.json; expected an output of `pipeline score`" in result.stderr
    assert (tmp_path / "out" / "b.png").exists()


def test_an_output_is_not_moved_aside_for_a_model_that_is_refused(tmp_path, bundle, image_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_PLAN.json").write_text("{}")
    result = run(bundle, image_path, "-o", tmp_path / "out", "--overwrite")
    assert result.exit_code == 6
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_input_inside_the_output_ends_with_2(bundle, image_path, options):
    result = run(bundle, image_path, "-o", image_path.parent, *options)
    assert result.exit_code == 2
    assert f"{image_path}: lies inside the output {image_path.parent}; expected inputs outside of it" in result.stderr
    assert image_path.exists()


@pytest.mark.parametrize("name", ["a.png/rows.csv", "a.png/new/rows.csv"])
def test_csv_file_below_a_file_ends_with_2(tmp_path, bundle, image_path, name):
    result = run(bundle, image_path, "-o", tmp_path / "out", "--csv", image_path.parent / name)
    assert result.exit_code == 2
    assert f"{image_path} is a file, not a folder; change --csv" in result.stderr
    assert not (tmp_path / "out").exists()


def test_help_lists_every_form_of_a_model():
    text = " ".join(run("--help").stdout.split())
    for form in (
        "champion",
        "models:/NAME/VERSION",
        "models:/NAME@ALIAS",
        "models:/m-ID",
        "the id of a run",
        "a folder",
    ):
        assert form in text, form


def test_what_is_skipped_is_reported(tmp_path, bundle, image_path):
    (image_path.parent / ".hidden.png").touch()
    (image_path.parent / "old").mkdir()
    (image_path.parent / "old" / "_PLAN.json").touch()
    (image_path.parent / "rows.csv").touch()
    result = run(bundle, image_path.parent, "-o", tmp_path / "out", "--csv", image_path.parent / "rows.csv")
    assert "Skipped 3 hidden or generated files." in result.stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_says_how_to_continue(number, exit_code):
    before = signal.getsignal(number)
    with (
        pytest.raises(Interrupted, match="run the same command again to continue") as raised,
        interruptions(lambda: "run the same command again to continue"),
    ):
        signal.raise_signal(number)
    assert raised.value.exit_code == exit_code
    assert signal.getsignal(number) is before
