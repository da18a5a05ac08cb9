"""MLflow down, killed, hanging, broken, locked or forgetful: the search goes on and in the end all is there, once."""

import contextlib
import itertools
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrackingError
from pipeline.search import mirroring
from pipeline.search.mirroring import BackgroundMirror
from pipeline.tracking.mirror import MlflowMirror
from pipeline.tracking.registry import Registration, log_and_register
from pipeline.tracking.store import open_client
from tests.tracking.fakes import FakeView, epochs, small_study, snapshot, study_facts, trial
from tests.tracking.unreliable import Proxy, Server

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.send(signal.SIGKILL)


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that the tracking URI names."""
    proxy = Proxy(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    yield proxy
    proxy.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Push more often than a search does."""
    monkeypatch.setattr(mirroring, "PUSH_SECONDS", 0.02)


def view_of(name: str, view: FakeView | None = None) -> FakeView:
    view = view or small_study()
    view.fact_dict = study_facts("study", name)
    return view


def shown(workspace: Path, mirror: MlflowMirror) -> dict[str, Any]:
    return snapshot(open_client(workspace), str(mirror.experiment_id))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MLflow shows of the small study when nothing ever fails."""
    workspace = tmp_path_factory.mktemp("undisturbed")
    mirror = MlflowMirror(view_of("undisturbed"), workspace)
    mirror.close("KILLED")
    return shown(workspace, mirror)


def until_it_works(step: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a step returns when it works, and how often it failed before."""
    for num_failures in range(500):
        with contextlib.suppress(TrackingError):
            return step(), num_failures
    raise AssertionError("it never worked")


def test_lost_answers_double_nothing(proxy: Proxy, tmp_path: Path, expected: dict[str, Any]) -> None:
    mirror = MlflowMirror(view_of("lost"), tmp_path)
    proxy.fault = "lose"
    _, num_failures = until_it_works(lambda: mirror.close("KILLED"))
    assert num_failures >= 10
    proxy.fault = "ok"
    assert shown(tmp_path, mirror) == expected


def test_lost_answers_double_no_model_and_no_version(proxy: Proxy, tmp_path: Path, bundle: Path) -> None:
    mirror = MlflowMirror(view_of("model-lost", FakeView()), tmp_path)
    run_id = mirror.close("FINISHED")
    client = open_client(tmp_path)
    proxy.fault = "lose"
    arguments = (client, tmp_path, run_id, bundle, Registration("lossy", {"test/accuracy": 0.75}, 3, {}))
    model, num_failures = until_it_works(lambda: log_and_register(*arguments))
    assert num_failures >= 7
    proxy.fault = "ok"
    assert [str(v.version) for v in client.search_model_versions("name = 'lossy'")] == [model.version]
    assert str(client.get_model_version_by_alias("lossy", "champion").version) == model.version
    (logged,) = client.search_logged_models([str(mirror.experiment_id)])
    assert logged.model_id == model.model_id
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model.model_id]
    assert len(client.get_metric_history(run_id, "test/accuracy")) == 1


@pytest.mark.parametrize("fault", ["error", "hang"])
def test_search_begins_and_goes_on_without_mlflow(
    fault: str, proxy: Proxy, quick: None, tmp_path: Path, expected: dict[str, Any]
) -> None:
    proxy.fault = fault
    view, warnings, caught_up = view_of(f"begins-{fault}"), [], threading.Event()
    warned = threading.Event()
    mirror = MlflowMirror(view, tmp_path)

    def warn(text: str) -> None:
        warnings.append(text)
        warned.set()

    background = BackgroundMirror(mirror, "study", warn, caught_up.set)
    background.start()
    assert warned.wait(60)
    proxy.released.set()
    proxy.fault = "ok"
    assert caught_up.wait(60)
    run_id = background.finish("KILLED")
    assert run_id == mirror.run_id
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow is behind and will be caught up: http://127.0.0.1")
    assert shown(tmp_path, mirror) == expected


def test_end_of_a_search_does_not_wait_for_a_server_that_hangs(
    proxy: Proxy, quick: None, tmp_path: Path, expected: dict[str, Any]
) -> None:
    view, warnings, caught_up = view_of("ends"), [], threading.Event()
    background = BackgroundMirror(MlflowMirror(view, tmp_path), "study", warnings.append, caught_up.set)
    background.start()
    assert caught_up.wait(60)
    proxy.fault = "hang"
    begin = time.monotonic()
    assert background.finish("FINISHED") is None
    assert time.monotonic() - begin < mirroring.LAST_SECONDS + 3
    assert warnings[-1].endswith("nothing is lost; when MLflow answers, `pipeline sync study` finishes it")
    proxy.released.set()
    proxy.fault = "ok"
    again = MlflowMirror(view, tmp_path)
    again.close("KILLED")
    assert shown(tmp_path, again) == expected


def test_server_that_stops_and_goes_on_makes_no_run_twice(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    view = view_of("stopped", FakeView([trial(0, "COMPLETED", 0.5)], {0: epochs(2)}))
    mirror = MlflowMirror(view, tmp_path)
    mirror.push()
    view.trial_rows.append(trial(1, "COMPLETED", 0.6))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server.send(signal.SIGSTOP)
    with pytest.raises(TrackingError):
        mirror.push()  # the server will obey this request when it goes on
    server.send(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    mirror.close("FINISHED")
    runs = shown(tmp_path, mirror)
    assert sorted(runs) == ["study", "t000 d3 f64 max 0.500", "t001 d3 f64 max 0.600"]
    assert runs["study"][2]["best_val_accuracy"] == [(1, 0.5), (2, 0.6)]


def test_server_that_flaps_all_the_time_holds_everything_once(
    proxy: Proxy, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "LONGEST_PAUSE", 0.1)
    view, warnings = view_of("flaps", FakeView()), []
    mirror = MlflowMirror(view, tmp_path)
    background = BackgroundMirror(mirror, "study", warnings.append)
    background.start()
    faults = itertools.cycle(["error", "ok", "lose"])
    for number in range(12):
        view.epoch_rows[number] = epochs(2)
        view.trial_rows.append(trial(number, "COMPLETED", number / 100))
        for _ in range(4):
            proxy.fault = next(faults)
            time.sleep(0.07)
    proxy.fault = "ok"
    assert background.finish("FINISHED") == mirror.run_id
    assert [text.startswith("MLflow is behind and will be caught up") for text in warnings] == [True]
    found = shown(tmp_path, mirror)
    undisturbed = MlflowMirror(view_of("calm", FakeView(view.trial_rows, view.epoch_rows)), tmp_path)
    undisturbed.close("FINISHED")
    assert len(found) == 13
    assert found == shown(tmp_path, undisturbed)


def test_server_that_is_killed_and_comes_back_is_caught_up(
    server: Server, quick: None, tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    view, warnings, caught_up = view_of("killed"), [], threading.Event()
    mirror = MlflowMirror(view, tmp_path)
    background = BackgroundMirror(mirror, "study", warnings.append, caught_up.set)
    background.start()
    server.send(signal.SIGKILL)  # in the middle of the first push, or before it
    assert background.finish("KILLED") is None
    server.start()
    again = MlflowMirror(view, tmp_path)
    again.close("KILLED")
    assert again.is_complete()
    assert shown(tmp_path, again) == expected


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the write lock of a database, as a program that forgot to end its transaction does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_locked_database_delays_neither_the_search_nor_its_end(
    quick: None, tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "LAST_SECONDS", 1.0)
    view, warnings, caught_up = view_of("locked"), [], threading.Event()
    mirror = MlflowMirror(view, tmp_path)
    background = BackgroundMirror(mirror, "study", warnings.append, caught_up.set)
    background.start()
    assert caught_up.wait(60)
    with write_lock(tmp_path / "mlflow.db"):
        assert background.finish("KILLED") is None
    assert "no end within 1 s" in warnings[-1]
    background.thread.join()  # the lock is gone and the thread that was left to itself gets through
    assert shown(tmp_path, mirror) == expected


def test_read_only_database_is_caught_up_when_it_can_be_written(
    tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "1")
    open_client(tmp_path)
    path = tmp_path / "mlflow.db"
    set_write_version(path, 3)  # SQLite writes no file of a version that it does not know
    view = view_of("read-only")
    mirror = MlflowMirror(view, tmp_path)
    with pytest.raises(TrackingError, match="readonly"):
        mirror.push()
    set_write_version(path, 2)
    until_it_works(lambda: mirror.close("KILLED"))  # at first by connections that still believe what they read
    assert shown(tmp_path, mirror) == expected


def set_write_version(path: Path, version: int) -> None:
    """Write the write version in the header of an SQLite file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(18)
        file.write(bytes([version]))
