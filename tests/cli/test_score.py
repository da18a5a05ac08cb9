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
from pipeline.cli.main import cli
from pipeline.cli.score import interruptions
from pipeline.errors import Interrupted

HEAVY = ("tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "pyarrow", "optuna", "numpy")


def run(*arguments: object):
    return CliRunner().invoke(cli, ["score", *map(str, arguments)])


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Lambda", "module": "keras.layers"}))
    image = {"height": 4, "width": 4, "channels": 3, "decoder_version": 1}
    write_bundle(folder, {"classes": ["a", "b"], "image": image})
    return folder


@pytest.fixture
def image_path(tmp_path) -> Path:
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 4)).save(path)
    return path


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
    if arguments == ["--help"]:
        assert found.stdout.splitlines()[-1] == "[]"
    else:
        assert found.stdout == "['numpy']\n"
        assert found.returncode == 3
        assert "typo: no such file or folder" in found.stderr


def test_empty_folder_is_a_data_error(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    result = run(bundle, tmp_path / "empty", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "no files; expected at least one image" in result.stderr


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
    result = run(bundle, image_path, "-o", image_path.parent)
    assert result.exit_code == 2
    assert "holds a.png; expected a new or empty folder" in result.stderr


def test_hidden_files_are_reported(tmp_path, bundle, image_path):
    (image_path.parent / ".hidden.png").touch()
    result = run(bundle, image_path.parent, "-o", tmp_path / "out")
    assert "Skipped 1 hidden files and folders." in result.stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_says_how_to_continue(tmp_path, number, exit_code):
    before = signal.getsignal(number)
    with (
        pytest.raises(Interrupted, match="run the same command again to continue") as raised,
        interruptions(tmp_path / "out"),
    ):
        signal.raise_signal(number)
    assert raised.value.exit_code == exit_code
    assert signal.getsignal(number) is before
