"""The tracking URI, the client and the experiments of a workspace."""

import sqlite3
from pathlib import Path

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import experiments, store


def test_uri_is_the_database_of_the_workspace(tmp_path: Path) -> None:
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_uri_quotes_what_mlflow_would_unquote(tmp_path: Path) -> None:
    odd = tmp_path / "50% of what?"
    uri = store.tracking_uri(odd)
    assert uri == f"sqlite:///{tmp_path}/50%25 of what%3F/mlflow.db"
    assert store.sqlite_path(uri) == odd / "mlflow.db"


def test_relative_database_of_the_environment_is_relative_to_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/x.db")
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/sub/x.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_folder_as_tracking_uri_is_refused(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match="unset it to use"):
        store.tracking_uri(tmp_path)


def test_unknown_kind_of_uri_is_refused_and_a_server_that_is_down_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://ada:secret@host:5000")
    with pytest.raises(TrackingError, match=r"'htp://\*\*\*@host:5000', of the unknown kind htp://; expected http"):
        store.check_settings(tmp_path)
    for uri in ("http://127.0.0.1:9", "postgresql+psycopg://db/mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store.check_settings(tmp_path) == uri


def test_old_file_store_is_refused_with_the_command_that_migrates_it(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    with pytest.raises(TrackingError, match="mlflow migrate-filestore --source mlruns"):
        store.open_client(tmp_path)


def test_experiment_folder_with_letters_is_no_file_store(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "digits").mkdir(parents=True)
    (tmp_path / "mlruns" / "digits" / "meta.yaml").touch()
    assert store.find_file_store(tmp_path) is None


def test_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, but it is long enough to be read as one" * 10)
    with pytest.raises(TrackingError, match=r"mlflow\.db: file is not a database"):
        store.open_client(tmp_path)


def test_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    with pytest.raises(TrackingError) as caught:
        store.open_client(tmp_path)
    assert caught.value.exit_code == 7
    assert str(caught.value).startswith("http://***@127.0.0.1:9: no answer within 5 s")
    assert "secret" not in str(caught.value)


def test_credentials_are_redacted() -> None:
    assert (
        store.public_uri("at http://ada:p@ss@host:5000/x and s3://bucket")
        == "at http://***@host:5000/x and s3://bucket"
    )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("flowers", "flowers"),
        ("a/b c", "a-b-c"),
        ("studies", "experiment-studies"),
        ("12", "experiment-12"),
        ("..", "experiment"),
    ],
)
def test_experiment_folder_never_collides(name: str, folder: str) -> None:
    assert experiments.slug(name) == folder


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_loopback_hosts(host: str) -> None:
    assert store.is_loopback(host)


@pytest.mark.parametrize(
    ("location", "uri", "is_fit"),
    [
        ("mlflow-artifacts:/1", "sqlite:////w/mlflow.db", False),
        ("file:///w/mlruns/x", "sqlite:////w/mlflow.db", True),
        ("mlflow-artifacts:/1", "http://host:5000", True),
        ("s3://bucket/x", "http://host:5000", True),
        ("/srv/mlruns/1", "http://host:5000", False),
        ("file:///w/mlruns/x", "http://127.0.0.1:5000", True),
    ],
)
def test_artifact_location_must_be_in_reach(location: str, uri: str, is_fit: bool) -> None:
    if is_fit:
        experiments.check_artifact_location(location, uri, "x")
        return
    with pytest.raises(TrackingError, match="keeps its artifacts at"):
        experiments.check_artifact_location(location, uri, "x")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["plain", "50% of what?"])
def test_new_store_is_in_wal_mode_with_artifacts_beside_it(name: str, tmp_path: Path) -> None:
    workspace = tmp_path / name
    workspace.mkdir()
    client = store.open_client(workspace)
    identity = experiments.experiment_id(client, "flowers", workspace, "val_accuracy")
    assert experiments.experiment_id(client, "flowers", workspace, "val_accuracy") == identity
    experiment = client.get_experiment(identity)
    assert experiment.artifact_location == (workspace / "mlruns" / "flowers").as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    with sqlite3.connect(workspace / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    run_id = client.create_run(identity).info.run_id
    client.log_text(run_id, "hello", "a.txt")
    files = list((workspace / "mlruns" / "flowers").rglob("a.txt"))
    assert len(files) == 1


@pytest.mark.heavy
def test_deleted_experiment_is_refused_with_the_command_that_restores_it(tmp_path: Path) -> None:
    client = store.open_client(tmp_path)
    identity = experiments.experiment_id(client, "flowers", tmp_path, "val_accuracy")
    client.delete_experiment(identity)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore -x {identity}"):
        experiments.experiment_id(client, "flowers", tmp_path, "val_accuracy")
