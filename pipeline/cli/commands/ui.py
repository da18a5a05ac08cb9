"""`pipeline ui`: starts MLflow's server on this workspace, light and on this machine only."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.cli.terminal.output import next_steps, result, say, verbosity_options
from pipeline.errors import Interrupted, InvalidUsage, TrackingError
from pipeline.workspace import Workspace

PORTS_TO_TRY = 20
# MLflow's defaults take 15 processes, 2.9 GB and 46 s to the first answer; with one worker and no jobs it is
# 2 processes, 0.5 GB and 20 s (2 CPU cores, MLflow 3.17.2, n=1).
LIGHT_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@click.command("ui")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback name or address to listen on.")
@click.option("--print", "is_dry", is_flag=True, help="Print address and command only.")
@verbosity_options
def command(port: int, host: str, is_dry: bool) -> None:
    """Open the MLflow user interface on this workspace.

    Runs of searches that were killed are marked so first. Ctrl-C ends it. With MLFLOW_TRACKING_URI set to a server
    it prints that address only. The server has no passwords, so it listens on this machine only.

    \b
    Example:
      pipeline ui
      pipeline ui --port 5001
      pipeline ui --print
    """
    from pipeline.tracking.store import is_loopback, is_remote, public_uri, refuse_file_store, tracking_uri

    workspace = Path.cwd()
    uri = tracking_uri(workspace)
    if is_remote(uri):
        result(public_uri(uri))
        next_steps(("pipeline runs", "the same runs in this terminal"))
        return
    if not is_loopback(host):
        raise InvalidUsage(
            f"--host {host}: not this machine; expected localhost, 127.0.0.1 or ::1, because the server has no"
            f" passwords; to look from elsewhere, run `ssh -L {port}:127.0.0.1:{port} <this host>` there"
        )
    refuse_file_store(workspace)
    arguments = server_arguments(workspace, host, port)
    result(server_address(host, port))
    if is_dry:
        settings = (f"{name}={shlex.quote(public_uri(value))}" for name, value in server_settings(uri).items())
        result(" ".join([*settings, shlex.join(arguments)]))
    else:
        refuse_used_port(host, port)
        close_stale(workspace)
        say("It takes up to 20 s to answer; Ctrl-C ends it. `mlflow ui` in this folder shows the same runs.")
        serve(arguments, server_settings(uri), workspace)
    next_steps(
        ("pipeline runs", "the leaderboard here"),
        ("pipeline score champion IMAGES -o scores/", "label images"),
    )


def server_address(host: str, port: int) -> str:
    """Return the URL to open in a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_settings(uri: str) -> dict[str, str]:
    """Return the environment of a light MLflow server that imports nothing of the workspace.

    The URI is here because every user of the machine can read a command line, and the password in it.
    """
    # uvicorn puts the current folder before all others (its --app-dir), whatever PYTHONSAFEPATH says.
    options = shlex.join(["--app-dir", sysconfig.get_path("stdlib")])
    return {
        **LIGHT_ENVIRONMENT,
        "PYTHONSAFEPATH": "1",
        "MLFLOW_UVICORN_OPTS": f"{os.environ.get('MLFLOW_UVICORN_OPTS', '')} {options}".strip(),
        "MLFLOW_BACKEND_STORE_URI": uri,
    }


def server_arguments(workspace: Path, host: str, port: int) -> list[str]:
    """Return the command line of a light MLflow server.

    The artifact root is for experiments that are made in the user interface: without it, they would be out of reach
    for a search that uses the database directly.
    """
    names = ("localhost", "127.0.0.1", "[::1]")
    arguments = {
        "--default-artifact-root": Workspace(workspace).mlruns.as_uri(),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": ",".join(f"{name}:{port}" for name in names),
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for pair in arguments.items() for word in pair)]


def refuse_used_port(host: str, port: int) -> None:
    """Say so before the server takes 20 s to fail.

    Raises:
        InvalidUsage: another process listens there; the message names a free port.
    """
    if is_free(host, port):
        return
    others = range(port + 1, min(port + 1 + PORTS_TO_TRY, 65536))
    free = next((other for other in others if is_free(host, other)), None)
    advice = "stop that process" if free is None else f"try `pipeline ui --port {free}`"
    raise InvalidUsage(f"--port {port}: in use on {host}; expected a free port; {advice}")


def is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def close_stale(workspace: Path) -> None:
    """Mark the runs of killed searches; the interface opens even when that fails."""
    from pipeline.search.studies import is_alive
    from pipeline.tracking.registry import close_stale_runs

    try:
        num_closed = close_stale_runs(workspace, lambda study: is_alive(workspace, study))
    except TrackingError as error:
        say(f"The runs of ended searches stay as they are: {error}")
        return
    if num_closed:
        say(f"{num_closed} runs of ended searches were marked KILLED; resuming a study opens them again.")


def serve(arguments: list[str], settings: Mapping[str, str], workspace: Path) -> None:
    """Run the server until it ends or Ctrl-C or SIGTERM arrives; no process of it stays behind.

    Raises:
        Interrupted: SIGTERM.
        TrackingError: the server ended by itself with an error.
    """
    received: list[int] = []
    server = subprocess.Popen(arguments, cwd=workspace, env={**os.environ, **settings}, start_new_session=True)

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # workers that outlived the server
    if signal.SIGTERM in received:
        raise Interrupted("SIGTERM ended the MLflow server", 143)
    if code != 0 and not received:
        raise TrackingError(
            f"the MLflow server ended with code {code}; expected it to run until Ctrl-C; its messages are above;"
            " run `pipeline doctor`"
        )
