"""MLflow's server on a workspace, light and on this machine only: where, how it is called, and what it needs."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InvalidUsage, TrackingError
from pipeline.search.storage.studies import is_alive
from pipeline.tracking.registry import close_stale_runs
from pipeline.tracking.store import is_loopback, is_remote, public_uri, refuse_file_store, tracking_uri
from pipeline.workflows.progress import SILENT, Progress
from pipeline.workspace import Workspace

_PORTS_TO_TRY = 20
# MLflow's defaults take 15 processes, 2.9 GB and 46 s to the first answer; with one worker and no jobs it is
# 2 processes, 0.5 GB and 20 s (2 CPU cores, MLflow 3.17.2, n=1).
_LIGHT_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class UiRequest:
    """Where the server is to listen."""

    port: int = 5000
    host: str = "127.0.0.1"
    workspace: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class UiServer:
    """A server that was not started: the URL to open, its command line, and its further environment."""

    request: UiRequest
    address: str
    arguments: tuple[str, ...]
    settings: dict[str, str]

    def shown_command(self) -> str:
        """Return what to type for it, without passwords."""
        settings = (f"{name}={shlex.quote(public_uri(value))}" for name, value in self.settings.items())
        return " ".join([*settings, shlex.join(self.arguments)])


def remote_address(workspace: Path | None = None) -> str | None:
    """Return where MLflow is if a server was set up for the workspace; None where it has a database."""
    uri = tracking_uri(workspace or Path.cwd())
    return public_uri(uri) if is_remote(uri) else None


def plan_server(request: UiRequest) -> UiServer:
    """Return the server of a workspace that has a database.

    Raises:
        InvalidUsage: others could reach the host.
        TrackingError: the workspace has an older kind of store.
    """
    host, port = request.host, request.port
    if not is_loopback(host):
        raise InvalidUsage(
            f"--host {host}: not this machine; use localhost, 127.0.0.1 or ::1, because the server has no"
            f" passwords; to look from elsewhere, run `ssh -L {port}:127.0.0.1:{port} <this host>` there"
        )
    refuse_file_store(request.workspace)
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return UiServer(request, address, _arguments(request), _settings(tracking_uri(request.workspace)))


def start_server(server: UiServer, progress: Progress = SILENT) -> subprocess.Popen[bytes]:
    """Mark the runs of killed searches, then start the server as the leader of a process group of its own.

    Raises:
        InvalidUsage: another process listens there; the message names a free port.
    """
    request = server.request
    _refuse_used_port(request.host, request.port)
    _close_stale(request.workspace, progress)
    progress.say("It takes up to 20 s to answer; Ctrl-C ends it. `mlflow ui` in this folder shows the same runs.")
    environment = {**os.environ, **server.settings}
    return subprocess.Popen(server.arguments, cwd=request.workspace, env=environment, start_new_session=True)


def end_server(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to all processes of the server that still run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def refuse_failure(code: int) -> None:
    """Raise TrackingError if the server ended by itself with an error."""
    if code != 0:
        raise TrackingError(
            f"the MLflow server ended by itself with code {code}; its messages are above; run `pipeline doctor`"
        )


def _settings(uri: str) -> dict[str, str]:
    """Return the environment of a light MLflow server that imports nothing of the workspace.

    The URI is here because every user of the machine can read a command line, and the password in it.
    """
    # uvicorn puts the current folder before all others (its --app-dir), whatever PYTHONSAFEPATH says.
    options = shlex.join(["--app-dir", sysconfig.get_path("stdlib")])
    return {
        **_LIGHT_ENVIRONMENT,
        "PYTHONSAFEPATH": "1",
        "MLFLOW_UVICORN_OPTS": f"{os.environ.get('MLFLOW_UVICORN_OPTS', '')} {options}".strip(),
        "MLFLOW_BACKEND_STORE_URI": uri,
    }


def _arguments(request: UiRequest) -> tuple[str, ...]:
    """Return the command line of a light MLflow server.

    The artifact root is for experiments that are made in the user interface: without it, they would be out of reach
    for a search that uses the database directly.
    """
    names = ("localhost", "127.0.0.1", "[::1]")
    arguments = {
        "--default-artifact-root": Workspace(request.workspace).mlruns.as_uri(),
        "--host": request.host,
        "--port": str(request.port),
        "--workers": "1",
        "--allowed-hosts": ",".join(f"{name}:{request.port}" for name in names),
    }
    return (sys.executable, "-m", "mlflow", "server", *(word for pair in arguments.items() for word in pair))


def _refuse_used_port(host: str, port: int) -> None:
    """Say so before the server takes 20 s to fail."""
    if _is_free(host, port):
        return
    others = range(port + 1, min(port + 1 + _PORTS_TO_TRY, 65536))
    free = next((other for other in others if _is_free(host, other)), None)
    advice = "stop that process" if free is None else f"try `pipeline ui --port {free}`"
    raise InvalidUsage(f"--port {port}: already in use on {host}; {advice}")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _close_stale(workspace: Path, progress: Progress) -> None:
    """Mark the runs of killed searches; the interface opens even when that fails."""
    try:
        num_closed = close_stale_runs(workspace, lambda study: is_alive(workspace, study))
    except TrackingError as error:
        progress.say(f"The runs of ended searches stay as they are: {error}")
        return
    if num_closed:
        progress.say(f"{num_closed} runs of ended searches were marked KILLED; resuming a study opens them again.")
