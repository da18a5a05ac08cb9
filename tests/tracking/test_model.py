"""A bundle as an MLflow model: written, registered, found again and loaded by MLflow's own loaders."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError, ModelRefused
from pipeline.tracking.mirror import MlflowMirror
from pipeline.tracking.registry import RegisteredModel, Registration, log_and_register
from pipeline.tracking.resolve import resolve_model
from pipeline.tracking.store import open_client
from tests.tracking.fakes import FakeView, small_study, study_facts, tiny_bundle

pytestmark = pytest.mark.heavy

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def register(workspace: Path, bundle: Path, dataset: str, name: str) -> tuple[str, RegisteredModel]:
    """Push a study and register a bundle on its parent run."""
    run_id = MlflowMirror(FakeView(fact_dict=study_facts(dataset, dataset)), workspace).close("FINISHED")
    metrics = {"test/accuracy": 0.75, "test/ci95_low": float("nan")}
    client = open_client(workspace)
    wanted = Registration(name, metrics, 7, {"origin": "a test"})
    return run_id, log_and_register(client, workspace, run_id, bundle, wanted)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for the tests of this module."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def registered(workspace: Path, bundle: Path) -> tuple[str, RegisteredModel]:
    """A run with a registered model."""
    return register(workspace, bundle, "digits", "digits")


def frame(*images: Any) -> Any:
    """Return a data frame of images."""
    import pandas

    return pandas.DataFrame({"image": images})


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pyfunc_model(workspace: Path, registered: tuple[str, RegisteredModel], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The registered model as mlflow.pyfunc loads it."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace}/mlflow.db")
    return mlflow.pyfunc.load_model(registered[1].model_uri)


def test_version_carries_alias_tags_and_metrics(workspace: Path, registered: tuple[str, RegisteredModel]) -> None:
    run_id, model = registered
    client = open_client(workspace)
    version = client.get_model_version_by_alias("digits", "champion")
    assert (model.version, model.model_uri) == (str(version.version), "models:/digits/1")
    assert version.tags["test_accuracy"] == "0.7500"
    assert version.tags["origin"] == "a test"
    logged = client.get_logged_model(model.model_id)
    assert {metric.key: (metric.value, metric.step) for metric in logged.metrics} == {"test/accuracy": (0.75, 7)}
    assert logged.status == "READY"
    assert logged.params == {"depth": "1"}
    assert client.get_run(run_id).data.metrics["test/accuracy"] == 0.75


def test_global_tracking_uri_is_not_touched(registered: tuple[str, RegisteredModel]) -> None:
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_second_call_makes_no_second_version(
    workspace: Path, bundle: Path, registered: tuple[str, RegisteredModel]
) -> None:
    run_id, model = registered
    client = open_client(workspace)
    assert log_and_register(client, workspace, run_id, bundle, Registration("digits", {}, 7, {})) == model


def test_both_loaders_of_mlflow_agree(
    workspace: Path, registered: tuple[str, RegisteredModel], pyfunc_model: Any
) -> None:
    import mlflow

    logits = mlflow.keras.load_model(registered[1].model_uri).predict(PIXELS, verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = pyfunc_model.predict(PIXELS)
    np.testing.assert_allclose(np.stack(found["probabilities"]), expected, rtol=1e-5)
    assert list(found["label"]) == [["cat", "dog"][index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(found["probability"], expected.max(axis=1), rtol=1e-5)


def test_a_model_of_several_labels_answers_with_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    bundle = tiny_bundle(tmp_path / "several", "several-1", is_multi_label=True)
    _, model = register(tmp_path, bundle, "several", "several")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    logits = mlflow.keras.load_model(model.model_uri).predict(PIXELS, verbose=0)
    found, shares = loaded.predict(PIXELS), 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(np.stack(found["probabilities"]), shares, rtol=1e-5)
    expected = [[name for name, share in zip(("cat", "dog"), row, strict=True) if share >= 0.5] for row in shares]
    assert list(found["label"]) == expected
    assert [len(row) for row in found["probability"]] == [len(row) for row in expected]
    assert loaded.metadata.metadata["is_multi_label"] is True
    assert str(loaded.metadata.signature.outputs.inputs[0].type) == "Array(string)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"image": PIXELS},
        lambda: PIXELS.astype(np.float32),
        lambda: PIXELS.tolist(),
        lambda: frame(*map(png, PIXELS)),
        lambda: frame(*(base64.b64encode(png(row)).decode() for row in PIXELS)),
        lambda: {"image": np.array([base64.b64encode(png(row)).decode() for row in PIXELS], dtype=object)},
    ],
    ids=["dict", "floats", "lists", "bytes", "base64", "base64-array"],
)
def test_every_form_of_input_gives_the_same_answer(make: Any, pyfunc_model: Any) -> None:
    from pandas.testing import assert_frame_equal

    expected = pyfunc_model.predict(PIXELS)
    given = make()
    found = pyfunc_model.predict(np.array(given) if isinstance(given, list) else given)
    assert_frame_equal(found, expected)


def test_a_request_of_many_files_is_decoded_and_answered_in_batches(pyfunc_model: Any) -> None:
    files = [png(row) for row in PIXELS]
    expected = pyfunc_model.predict(PIXELS)
    found = pyfunc_model.predict(frame(*files * 100))
    assert list(found["label"]) == list(expected["label"]) * 100
    with pytest.raises(DataError, match="row 299: unsupported"):
        pyfunc_model.predict(frame(*(files * 100)[:-1], b"no picture"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: frame("/etc/passwd"), "row 0: .*a path is never opened"),
        (lambda: frame(b"no picture"), "row 0: unsupported"),
        (lambda: PIXELS / 255, "do not scale them before"),
        (lambda: PIXELS[:, :4], r"expected \(num_images, 8, 8, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(make: Any, message: str, pyfunc_model: Any) -> None:
    given = make()
    with pytest.raises(DataError, match=message):
        pyfunc_model.predict(given)


def test_empty_input_gives_an_empty_table(pyfunc_model: Any) -> None:
    found = pyfunc_model.predict(np.zeros((0, 8, 8, 3), np.uint8))
    assert list(found.columns) == ["label", "probability", "probabilities"]
    assert len(found) == 0


def test_model_loads_where_the_package_is_not_installed(
    workspace: Path, registered: tuple[str, RegisteredModel], tmp_path: Path
) -> None:
    folder = resolve_model(workspace, "champion").folder.parent
    assert (folder / "code" / "pipeline" / "data" / "decoding" / "decode.py").is_file()
    script = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        "import importlib.util; assert importlib.util.find_spec('pipeline') is None;"
        f"import mlflow, numpy; m = mlflow.pyfunc.load_model({str(folder)!r});"
        "print(m.predict(numpy.zeros((1, 8, 8, 3), 'uint8'))['label'][0] in ('cat', 'dog'));"
        "import pipeline; print(pipeline.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["True", str(folder / "code" / "pipeline" / "__init__.py")], done.stderr


def test_requirements_are_pins_of_what_is_installed(workspace: Path, registered: tuple[str, RegisteredModel]) -> None:
    folder = resolve_model(workspace, "champion").folder.parent
    lines = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    assert {line.split("==")[0] for line in lines} >= {"keras", "numpy", "pillow", "mlflow"}


def test_model_is_found_by_alias_version_run_and_folder(
    workspace: Path, registered: tuple[str, RegisteredModel], bundle: Path
) -> None:
    run_id, model = registered
    by_version = resolve_model(workspace, "models:/digits/1")
    assert (by_version.folder / "model.keras").is_file()
    assert by_version.uri == "models:/digits/1"
    assert resolve_model(workspace, "models:/digits@champion") == by_version
    by_run = resolve_model(workspace, run_id)
    assert (by_run.folder, by_run.uri) == (by_version.folder, f"models:/{model.model_id}")
    assert resolve_model(workspace, by_run.uri) == by_run
    assert resolve_model(workspace, str(bundle)).folder == bundle
    assert resolve_model(workspace, str(by_version.folder.parent)).folder == by_version.folder


@pytest.mark.parametrize(
    "name",
    ["nothing", "models:/none/1", "models:/digits/99", "models:/digits@x", "models:/a/b", "models:/m-0", "0" * 32],
)
def test_unknown_model_is_refused(name: str, workspace: Path, registered: tuple[str, RegisteredModel]) -> None:
    with pytest.raises(ModelRefused):
        resolve_model(workspace, name)


def test_champion_of_an_empty_folder_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="run `pipeline search` first"):
        resolve_model(tmp_path, "champion")
    assert list(tmp_path.iterdir()) == []


def test_newest_of_two_champions_wins_and_the_other_is_named(tmp_path: Path, bundle: Path) -> None:
    register(tmp_path, bundle, "one", "one")
    register(tmp_path, tiny_bundle(tmp_path / "second", seed=1), "two", "two")
    found = resolve_model(tmp_path, "champion")
    assert found.uri == "models:/two/1"
    assert found.note == (
        "champion is the newest one of this workspace, models:/two@champion; others: models:/one@champion"
    )


def test_champion_of_this_workspace_comes_before_newer_ones_of_the_store(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    register(tmp_path / "here", bundle, "one", "one")
    register(tmp_path / "there", bundle, "two", "two")
    found = resolve_model(tmp_path / "here", "champion")
    assert found.uri == "models:/one/1"
    assert found.note.endswith("one of this workspace, models:/one@champion; others: models:/two@champion")
    found = resolve_model(tmp_path / "elsewhere", "champion")
    assert found.uri == "models:/two/1"
    assert found.note.endswith("one of the store, models:/two@champion; others: models:/one@champion")


def test_new_version_becomes_champion_and_knows_the_one_before(tmp_path: Path, bundle: Path) -> None:
    register(tmp_path, bundle, "one", "m")
    register(tmp_path, tiny_bundle(tmp_path / "second", seed=1), "two", "m")
    assert resolve_model(tmp_path, "champion").uri == "models:/m/2"
    version = open_client(tmp_path).get_model_version("m", "2")
    assert version.tags["champion.previous_version"] == "1"


def test_model_travels_through_a_server(
    server: str, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    mirror = MlflowMirror(small_study(), tmp_path)
    run_id = mirror.close("FINISHED")
    client = open_client(tmp_path)
    model = log_and_register(client, tmp_path, run_id, bundle, Registration("served", {"test/accuracy": 0.5}, 2, {}))
    found = resolve_model(tmp_path, "models:/served@champion")
    assert found.uri == model.model_uri == "models:/served/1"
    assert found.folder == tmp_path / "mlruns" / "cache" / "models" / model.model_id
    assert (found.folder / "model.keras").read_bytes() == (bundle / "model.keras").read_bytes()
    assert resolve_model(tmp_path, run_id).folder == found.folder
