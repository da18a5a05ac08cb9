"""Bundles that are refused, without Keras: files, fields, hashes and the layers that a config names."""

import json
import zipfile
from dataclasses import asdict, replace

import pytest

from pipeline.bundle import check_layers, load_model, read_bundle, write_bundle
from pipeline.card import Calibration, Evaluation, ModelCard
from pipeline.errors import InvalidUsage, ModelRefused
from pipeline.models.allowed import foreign_classes
from pipeline.records import ImageSpec

IMAGE = asdict(ImageSpec(8, 9, 3))
CARD = ModelCard(("cat", "dog"), ImageSpec(8, 9, 3), params={"blocks": 2})


def layer(name: str, module: str = "keras.layers", **config) -> dict:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def write_archive(folder, *layers):
    folder.mkdir(exist_ok=True)
    config = layer("Functional", "keras.src.models.functional", layers=list(layers))
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config | {"compile_config": {"class_name": "Adam"}}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_archive(tmp_path / "model", layer("Conv2D", filters=4), layer("Dense", units=2))


def test_bundle_reads_back_what_was_written(folder):
    written = write_bundle(folder, CARD)
    assert read_bundle(folder) == written
    assert written.classes == ("cat", "dog")
    assert written.image == ImageSpec(8, 9, 3)
    assert written.keras_path == folder / "model.keras"
    assert written.card.params == {"blocks": 2}
    assert json.loads((folder / "model.json").read_text())["schema"] == 1


def test_temperature_is_that_of_the_card_and_1_in_models_of_earlier_versions(folder):
    assert write_bundle(folder, CARD).card.temperature == 1.0
    softened = replace(CARD, evaluation=Evaluation(temperature=Calibration(1.7)))
    assert write_bundle(folder, softened).card.temperature == 1.7


def test_a_model_of_an_earlier_version_gives_one_label(folder):
    assert not write_bundle(folder, CARD).card.is_multi_label
    assert write_bundle(folder, replace(CARD, is_multi_label=True)).card.is_multi_label


def test_bundle_is_found_in_the_data_folder_of_an_mlflow_model(tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    written = write_bundle(write_archive(outer / "data"), CARD)
    assert read_bundle(outer) == written


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match=r"no model.json in it or in its data/ folder.*pipeline search"):
        read_bundle(tmp_path)


def test_bit_flip_in_the_model_is_refused(folder):
    expected = write_bundle(folder, CARD).sha256
    content = bytearray((folder / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.keras").write_bytes(content)
    with pytest.raises(ModelRefused, match=f"expected {expected}.*restore") as raised:
        read_bundle(folder)
    assert raised.value.exit_code == 6


def test_missing_keras_file_is_refused(folder):
    write_bundle(folder, CARD)
    (folder / "model.keras").unlink()
    with pytest.raises(ModelRefused, match=r"model.keras: no such file"):
        read_bundle(folder)
    with pytest.raises(ModelRefused, match=r"model.keras: no such file"):
        write_bundle(folder, CARD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema is 2; expected 1"),
        ({"classes": []}, r"classes is \[\]; expected a list of names"),
        ({"classes": ["a", "a"]}, "holds a name twice"),
        ({"image": {"height": 8, "width": 9, "channels": 3}}, "expected height, width, channels"),
        ({"image": IMAGE | {"channels": 0}}, "expected height, width, channels"),
        ({"image": IMAGE | {"dtype": "int8"}}, "expected height, width, channels, dtype"),
        ({"image": IMAGE | {"background": "black; rm"}}, "expected height, width, channels"),
        ({"image": IMAGE | {"height": -8}}, "expected height, width, channels"),
        ({"image": IMAGE | {"decoder_version": 1}}, "decoder_version is 1; expected 2"),
        ({"temperature": {"value": 0}}, "temperature is {'value': 0}; expected a value above 0"),
        ({"temperature": {"value": "hot"}}, "expected a value above 0"),
        ({"temperature": 1.5}, "temperature is 1.5; expected a value above 0"),
        ({"is_multi_label": "yes"}, "is_multi_label is 'yes'; expected true or false"),
        ({"sha256": "abc"}, "sha256 is 'abc'; expected 64 digits"),
        ({"temperature": {"value": 10**400}}, "expected a value above 0"),
        ({"temperature": {"value": float("inf")}}, "expected a value above 0"),
        ({"temperature": {"value": float("nan")}}, "expected a value above 0"),
        ({"temperature": {"value": True}}, "expected a value above 0"),
        ({"classes": ["a", "\ud800"]}, r"classes is \['a', '\\ud800'\]; expected a list of names"),
        ({"image": IMAGE | {"height": True}}, "expected height, width, channels"),
        (
            {"image": IMAGE | {"height": 10**6, "width": 10**6}},
            r"an image of \(1000000, 1000000, 3\) uint8 values takes 3,000,000,000,000 bytes; expected at most",
        ),
    ],
)
def test_malformed_facts_are_refused(folder, change, message):
    write_bundle(folder, CARD)
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(facts | change))
    with pytest.raises(ModelRefused, match=message):
        read_bundle(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '"text"', "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\0"],
    ids=lambda text: text[:8],
)
def test_facts_that_are_no_object_are_refused(folder, text):
    write_bundle(folder, CARD)
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelRefused, match="expected a JSON object"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "foreign",
    [
        layer("Lambda"),
        layer("TFSMLayer"),
        layer("StringLookup"),
        layer("TorchModuleWrapper"),
        layer("Conv2D", "os"),
        layer("Conv2D") | {"registered_name": "mine>Conv2D"},
        layer("TimeDistributed", layer=layer("Lambda")),
        layer("Dense", activation=layer("function", "builtins")),
        layer("Dense", kernel_initializer=layer("function", "keras.initializers")),
        layer("Dense", kernel_initializer=layer("__lambda__", "builtins")),
        layer("Sequential", "keras.models", layers=[layer("Lambda")]),
        layer("Dense") | {"compile_config": {"loss": layer("function", "os")}},
    ],
)
def test_foreign_class_is_refused_before_keras_reads_it(tmp_path, foreign):
    folder = write_archive(tmp_path / "model", layer("Dense", units=2), foreign)
    bundle = write_bundle(folder, CARD)
    with pytest.raises(ModelRefused, match="expected built-in layers only"):
        load_model(bundle)


def test_missing_backend_is_named_before_keras_is_imported(folder, monkeypatch):
    bundle = write_bundle(folder, CARD)
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(InvalidUsage, match="KERAS_BACKEND is 'theano', but must be one of tensorflow, jax, torch"):
        load_model(bundle)


def test_plain_values_in_layers_are_allowed(tmp_path):
    values = {
        "kernel_initializer": layer("HeNormal", "keras.initializers"),
        "kernel_regularizer": layer("L2", "keras.regularizers"),
        "dtype": layer("DTypePolicy", "keras"),
        "args": [{"class_name": "__keras_tensor__", "config": {"shape": [None, 8]}}],
    }
    check_layers(write_archive(tmp_path / "model", layer("Dense", **values)) / "model.keras")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x89HDF\r\n\x1a\n"])
def test_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"expected a .keras archive"):
        check_layers(tmp_path / "model.keras")


def write_config(path, config, method=zipfile.ZIP_STORED, flags=0):
    """Write an archive with a config.json, whose headers may have more flags."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", config)
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= flags
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (b"{}", {"flags": 1}, "encrypted, password required"),
        (b"{}", {"flags": 0x20}, "compressed patched data"),
        (b"{}", {"flags": 0x40}, "strong encryption"),
        (b"{}", {"method": zipfile.ZIP_BZIP2}, "config.json uses zip compression method 12"),
        (b"{}", {"method": zipfile.ZIP_LZMA}, "config.json uses zip compression method 14"),
        (bytes(17 << 20), {"method": zipfile.ZIP_DEFLATED}, "config.json takes 17825792 bytes"),
        (b"[" * 100_000, {}, "maximum recursion depth exceeded"),
        (b"9" * 5000, {}, "Exceeds the limit"),
        (b"\xff", {}, "codec can't decode"),
    ],
    ids=["encrypted", "patched", "strongly encrypted", "bzip2", "lzma", "bomb", "deep", "long number", "no text"],
)
def test_config_that_cannot_be_read_is_refused(tmp_path, config, options, message):
    path = write_config(tmp_path / "model.keras", config, **options)
    with pytest.raises(ModelRefused, match=f"{message}.*; expected a .keras archive with a config.json"):
        check_layers(path)


def test_packed_config_that_is_damaged_is_refused(tmp_path):
    path = write_config(tmp_path / "model.keras", b'{"a": 1}' * 50, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    content[41:45] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"Error -3 while decompressing data.*; expected a .keras archive"):
        check_layers(path)


def test_foreign_class_is_found_however_deep_it_lies():
    config = {"class_name": "Lambda", "module": "keras.layers"}
    for _ in range(5000):
        config = {"inner": [config]}
    assert list(foreign_classes(config)) == ["keras.layers.Lambda"]


def test_facts_without_an_end_are_not_read(folder):
    write_bundle(folder, CARD)
    with (folder / "model.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelRefused, match="more than 16 MiB; expected a JSON object"):
        read_bundle(folder)


def test_folder_in_the_place_of_a_file_is_refused(folder):
    write_bundle(folder, CARD)
    (folder / "model.keras").unlink()
    (folder / "model.keras").mkdir()
    with pytest.raises(ModelRefused, match=r"model.keras: is a directory; expected the model"):
        read_bundle(folder)


def test_archive_without_config_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(ModelRefused, match=r"expected a .keras archive with a config.json"):
        check_layers(tmp_path / "model.keras")
