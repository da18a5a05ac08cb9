"""Where MLflow keeps things: the tracking URI of a workspace, the client on it and the experiments in it."""

import atexit
import contextlib
import fcntl
import hashlib
import ipaddress
import logging
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.errors import TrackingError
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HEALTH_SECONDS = 5
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")  # plugins add others
STUDY_TAG = "pipeline.study"
WORKSPACE_TAG = "pipeline.workspace"
_DATABASE_STORES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store")
_FORCED_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    # MLflow sends again what a server has done but not answered, which makes a run twice, and blocks a call for
    # 244 s while a server is down. The mirror looks before it sends again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_DEFAULT_ENVIRONMENT = {
    # A connection that was opened while the database could only be read stays so: open it anew now and then.
    "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "60",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def tracking_uri(workspace: Path) -> str:
    """Return MLFLOW_TRACKING_URI if it is set, else the URI of mlflow.db in the workspace.

    Raises:
        TrackingError: the variable names a folder, which MLflow refuses since 3.13.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return _sqlite_uri(Workspace(workspace).database)
    if uri.startswith(_SQLITE) and not uri.startswith(_SQLITE + "/"):
        return _sqlite_uri(workspace / unquote(uri.removeprefix(_SQLITE)))
    if urlsplit(uri).scheme in ("", "file"):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {public_uri(uri)!r}, a folder, which MLflow refuses since 3.13; expected"
            f" http(s)://... or {_SQLITE}/path/to/mlflow.db; unset it to use {Workspace(workspace).database}"
        )
    return uri


def _sqlite_uri(path: Path) -> str:
    """Return the URI of an SQLite file; MLflow unquotes it, and cuts it at a question mark."""
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """Return the file behind an SQLite URI; None for any other store."""
    return Path(unquote(uri.removeprefix(_SQLITE))) if uri.startswith(_SQLITE) else None


def is_remote(uri: str) -> bool:
    """Tell whether a store is reached through a server."""
    return uri.startswith(("http://", "https://"))


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def public_uri(text: str) -> str:
    """Return a text without the user names and passwords of the URLs in it."""
    return _CREDENTIALS.sub("//***@", text)


def workspace_tag(workspace: Path) -> str:
    """Return a tag that tells the runs of this folder on this host from those of others in a shared store."""
    return hashlib.sha256(f"{socket.gethostname()}:{workspace.absolute()}".encode()).hexdigest()[:16]


@contextlib.contextmanager
def tracking_errors(action: str) -> Iterator[None]:
    """Turn what MLflow, its transport and its files raise into a TrackingError without credentials."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:  # OSError holds those of requests
        lines = [line.strip() for line in public_uri(str(error)).splitlines() if line.strip()]
        detail = " ".join(lines)[:500] or type(error).__name__
        raise TrackingError(
            f"MLflow failed while {action}: {detail}; expected a store that answers; see `pipeline doctor`"
        ) from error


def check_settings(workspace: Path) -> str:
    """Return the tracking URI after the checks of what no waiting heals; nothing is asked of a server.

    Raises:
        TrackingError: the URI is none that MLflow knows, or an old file store is in the way.
    """
    uri = tracking_uri(workspace)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in _SCHEMES and not entry_points(group="mlflow.tracking_store", name=scheme):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {public_uri(uri)!r}, of the unknown kind {scheme}://; expected http(s)://... or"
            f" {_SQLITE}/path/to/mlflow.db; unset it to use {Workspace(workspace).database}"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        refuse_file_store(workspace)
    return uri


def _check_store(workspace: Path) -> str:
    """Return the tracking URI after all checks that need no mlflow.

    Raises:
        TrackingError: as `check_settings`, or a server does not answer.
    """
    uri = check_settings(workspace)
    if is_remote(uri):
        _check_server(uri)
    return uri


def open_client(workspace: Path) -> "MlflowClient":
    """Return a client on the workspace's store, which is created when it is a local file that does not exist.

    Raises:
        TrackingError: an old file store is in the way, a server does not answer, or a file is no database.
    """
    uri = _check_store(workspace)
    _prepare_environment()
    if is_remote(uri):
        with tracking_errors(f"opening {public_uri(uri)}"):
            return _make_client(uri)
    with first_use_lock(workspace):
        path = sqlite_path(uri)
        if path is not None:
            _prepare_sqlite(path)
        with tracking_errors(f"opening {public_uri(uri)}"):
            return _make_client(uri)


def _prepare_environment() -> None:
    """Set what this process and its children need before mlflow is imported."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # would attach every run to that one
    os.environ.update(_FORCED_ENVIRONMENT)
    for name, value in _DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _make_client(uri: str) -> "MlflowClient":
    """Import mlflow, keep its INFO lines off stderr and return a client."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))
    atexit.unregister(_close_databases)
    atexit.register(_close_databases)
    return MlflowClient(uri, registry_uri=uri)


def _close_databases() -> None:
    """Close this process's connections of MLflow to databases: with the last one SQLite merges its log, mlflow.db-wal.

    MLflow keeps them until Python collects its garbage, which a command no longer does when it ends.
    """
    for name in _DATABASE_STORES:
        engines = getattr(getattr(sys.modules.get(name), "SqlAlchemyStore", None), "_engine_map", {})
        for engine in list(engines.values()):
            engine.dispose()


def find_file_store(workspace: Path) -> Path | None:
    """Return a file of MLflow's old folder store; its presence alone makes even `mlflow ui` fail."""
    found = sorted(Workspace(workspace).mlruns.glob("*/meta.yaml"))
    return next((path for path in found if path.parent.name.isdigit()), None)


def refuse_file_store(workspace: Path) -> None:
    """Refuse a workspace that holds MLflow's old folder store.

    Raises:
        TrackingError: it does.
    """
    found = find_file_store(workspace)
    if found is not None:
        raise TrackingError(
            f"{found}: the folder store of an older MLflow, which MLflow refuses since 3.13; expected"
            f" {_SQLITE}mlflow.db; run `mlflow migrate-filestore --source mlruns --target {_SQLITE}mlflow.db`"
            " and then `rm mlruns/*/meta.yaml`, or work in another folder"
        )


def _check_server(uri: str) -> None:
    """Ask a server's GET /health.

    Raises:
        TrackingError: no answer within _HEALTH_SECONDS, or an answer that says that it is broken.
    """
    import requests

    address = public_uri(uri)
    advice = "start the server, correct MLFLOW_TRACKING_URI, or unset it to use ./mlflow.db"
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=_HEALTH_SECONDS)
    except requests.RequestException as error:
        kind = type(error).__name__
        raise TrackingError(
            f"{address}: no answer within {_HEALTH_SECONDS} s ({kind}); expected an MLflow server; {advice}"
        ) from error
    if answer.status_code >= 500:
        raise TrackingError(
            f"{address}: its /health answers {answer.status_code}; expected a working MLflow server; {advice}"
        )


@contextlib.contextmanager
def first_use_lock(workspace: Path) -> Iterator[None]:
    """Wait until no other process creates the tables: MLflow migrates a new database without a lock."""
    folder = Workspace(workspace).mlruns
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".store.lock").open("a")
    except OSError as error:
        raise TrackingError(
            f"{folder}: {error.strerror}; expected a folder that can be written; change its permissions,"
            " or work in another folder"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare_sqlite(path: Path) -> None:
    """Create the file in WAL mode, which halves MLflow's latency, or check that it is SQLite.

    Raises:
        TrackingError: it cannot be opened, which MLflow itself would try for 100 s, or is no SQLite file.
    """
    is_new = not path.exists() or path.stat().st_size == 0
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL" if is_new else "PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise TrackingError(
            f"{path}: {error}; expected MLflow's SQLite file in a folder that can be written;"
            " move the file away, or work in another folder"
        ) from error
