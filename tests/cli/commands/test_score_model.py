"""`pipeline score` with a real Keras model, from files to rows."""

import json
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.bundle import load_model, read_bundle, write_bundle
from pipeline.card import ModelCard
from pipeline.cli.main import cli
from pipeline.errors import ModelRefused
from pipeline.records import ImageSpec
from tests.scoring.colours import parts_table

pytestmark = pytest.mark.heavy

IMAGE = asdict(ImageSpec(8, 8, 3))


def save(folder, *layers, classes=("red", "green", "blue"), image=IMAGE):
    """Save uint8 images -> layers -> mean of each plane as a bundle whose logits are the colour times 10."""
    import keras

    folder.mkdir()
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    values = keras.layers.Rescaling(1 / 255)(inputs)
    for layer in layers:
        values = layer(values)
    conv = keras.layers.Conv2D(3, 1, use_bias=False)
    values = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("relu")(conv(values)))
    dense = keras.layers.Dense(3)
    model = keras.Model(inputs, dense(values))
    conv.set_weights([np.eye(3).reshape(1, 1, 3, 3)])
    dense.set_weights([10 * np.eye(3), np.zeros(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.save(folder / "model.keras")
    return write_bundle(folder, ModelCard(tuple(classes), ImageSpec(**image), versions={"keras": "3"}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save(tmp_path_factory.mktemp("bundle") / "model")


def run(*arguments):
    return CliRunner().invoke(cli, ["score", *map(str, arguments)])


def test_loaded_model_gives_the_logits_of_the_saved_one(bundle):
    model = load_model(read_bundle(bundle.folder))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 1] = 255
    np.testing.assert_allclose(np.asarray(model(images)), [[0, 10, 0]], atol=1e-4)


def test_command_writes_rows_and_csv_and_repeats_nothing(tmp_path, bundle):
    (tmp_path / "in").mkdir()
    for index, colour in enumerate(["red", "lime", "blue", "red", "red"]):
        Image.new("RGB", (20, 10), colour).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "5.png").write_text("text")
    (tmp_path / "in" / ".hidden").touch()
    arguments = (bundle.folder, tmp_path / "in", "-o", tmp_path / "out", "--csv", tmp_path / "rows.csv")
    result = run(*arguments, "--batch-size", 2)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:2] == ["label  files  share", "red        3  60.0%"]
    assert f"6 rows in {tmp_path / 'out'}: 5 ok, 1 errors" in result.stdout
    assert f"{tmp_path / 'in' / '5.png'}: unsupported: begins with b'text'" in result.stderr
    assert "3 classes, 8 x 8 RGB images" in result.stderr
    table = parts_table(tmp_path / "out")
    assert table.label.tolist()[:5] == ["red", "green", "blue", "red", "red"]
    np.testing.assert_allclose(table.probability[:5], np.exp(10) / (np.exp(10) + 2), rtol=1e-4)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 1 + 6
    assert json.loads((tmp_path / "out" / "MANIFEST.json").read_text())["skipped"] == 1
    again = run(*arguments, "--json")
    assert "already complete" in again.stderr
    document = json.loads(again.stdout)
    assert (document["rows"], document["ok"], document["errors"]) == (6, 5, 1)
    assert document["errors_by_code"] == {"unsupported": 1}
    assert document["skipped"] == 1
    assert document["model_sha256"] == bundle.sha256
    refused = run(*arguments, "--top-k", 1)
    assert refused.exit_code == 2
    assert "top_k 3, now 1" in refused.stderr
    moved = run(*arguments, "--top-k", 1, "--overwrite")
    assert moved.exit_code == 0
    assert len(list(tmp_path.glob("out.old-*"))) == 1


def test_no_readable_file_ends_with_3(tmp_path, bundle):
    (tmp_path / "a.png").touch()
    result = run(bundle.folder, tmp_path / "a.png", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert parts_table(tmp_path / "out").error_code.tolist() == ["empty"]


def test_lambda_layer_is_refused(tmp_path):
    import keras

    bundle = save(tmp_path / "model", keras.layers.Lambda(lambda x: x, output_shape=(8, 8, 3)))
    with pytest.raises(ModelRefused, match=r"holds keras.layers.Lambda; expected built-in layers only"):
        load_model(bundle)


@pytest.mark.parametrize("change", [{"classes": ["a", "b"]}, {"image": IMAGE | {"height": 9}}])
def test_facts_of_another_model_are_refused(tmp_path, change):
    with pytest.raises(ModelRefused, match="do not belong together"):
        load_model(save(tmp_path / "model", **change))


def test_archive_without_weights_is_refused(tmp_path, bundle):
    folder = tmp_path / "model"
    folder.mkdir()
    with zipfile.ZipFile(bundle.keras_path) as source, zipfile.ZipFile(folder / "model.keras", "w") as target:
        for name in ("config.json", "metadata.json"):
            target.writestr(name, source.read(name))
    with pytest.raises(ModelRefused, match="cannot load it"):
        load_model(write_bundle(folder, ModelCard(("a", "b", "c"), ImageSpec(**IMAGE))))
