"""`pipeline search` over pretrained networks, with weights that lie where Keras keeps them."""

import json
import shutil
import subprocess
import sys

import pytest

from pipeline.models.backbones.applications import weights_path
from tests.cli.workspace import env, pipeline, write_photos
from tests.models.presets import efficientnet, write_preset
from tests.models.weights import write_weights

pytestmark = pytest.mark.heavy

SPACE = """
schema: 1
params:
  backbone: {type: choice, values: [mobilenet_v2]}
  frozen: {type: choice, values: [0.2, 0.5]}
  optimizer: {type: fixed, value: adamw}
  learning_rate: {type: fixed, value: 0.003}
  batch_size: {type: fixed, value: 16}
"""
SEARCH = ("search", "photos", "--space", "./mobile.yaml", "--image-size", "48", "--workers", "1", "--json")


@pytest.fixture
def folder(tmp_path):
    """A workspace with grey pictures and a space of one pretrained network."""
    write_photos(tmp_path, count=10)
    (tmp_path / "mobile.yaml").write_text(SPACE)
    return tmp_path


def test_a_pretrained_network_is_searched_saved_and_scored(folder):
    home = str(folder / "keras")
    write_weights(folder / "keras", "mobilenet_v2")
    plan = pipeline(folder, *SEARCH, "--trials", "2", "--epochs", "1", "--dry-run", KERAS_HOME=home)
    assert plan.returncode == 0, plan.stderr
    done = pipeline(folder, *SEARCH, "--trials", "2", "--epochs", "1", KERAS_HOME=home)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["trials"]["completed"] == 2
    assert facts["winner"]["params"]["backbone"] == "mobilenet_v2"
    assert facts["winner"]["num_params"] == 2_257_984 + 1281 * 3
    assert "dense_params" not in facts["winner"]  # what is inside is not planned layer by layer
    scored = pipeline(folder, "score", "models:/photos/1", "photos/dark", "--out", "labels", KERAS_HOME=str(folder))
    assert scored.returncode == 0, scored.stderr  # without the weights: they are in the model


def test_a_preset_of_keras_hub_is_searched_and_scored_where_keras_hub_is_not_installed(folder):
    write_preset(folder / "preset", efficientnet())
    space = SPACE.replace("[mobilenet_v2]", f'["hub:{folder / "preset"}"]')
    (folder / "mobile.yaml").write_text(space)
    done = pipeline(folder, *SEARCH, "--trials", "2", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["winner"]["params"]["backbone"] == f"hub:{folder / 'preset'}"
    shutil.rmtree(folder / "preset")
    blocked = "import sys; sys.modules['keras_hub'] = None; from pipeline.cli.main import main; main()"
    arguments = ("score", "models:/photos/1", "photos/dark", "--out", "labels")
    scored = subprocess.run([sys.executable, "-c", blocked, *arguments], cwd=folder, env=env(), capture_output=True)
    assert scored.returncode == 0, scored.stderr


def test_a_preset_that_is_missing_is_named_before_any_time_is_spent(folder):
    (folder / "mobile.yaml").write_text(SPACE.replace("[mobilenet_v2]", f'["hub:{folder / "nothing"}"]'))
    done = pipeline(folder, *SEARCH, "--trials", "2")
    assert done.returncode == 2, done.stderr
    assert str(folder / "nothing") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "mlruns" / "studies").exists()


def test_without_weights_and_network_the_file_is_named_before_any_time_is_spent(folder, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
    offline = {"https_proxy": "http://127.0.0.1:9", "KERAS_HOME": str(folder / "keras")}
    done = pipeline(folder, *SEARCH, "--trials", "2", **offline)
    assert done.returncode == 2, done.stderr
    assert str(weights_path("mobilenet_v2")) in done.stderr
    assert "put it there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "mlruns" / "studies").exists()
