"""`pipeline ui`: starts MLflow's server on this workspace, light and on this machine only."""

import signal
from typing import TYPE_CHECKING

import click

from pipeline.cli.terminal.output import next_steps, result, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.errors import Interrupted

if TYPE_CHECKING:
    from pipeline.workflows.ui import UiServer


@click.command("ui")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback name or address to listen on.")
@click.option("--print", "is_dry", is_flag=True, help="Only print the address and the command.")
@verbosity_options
def command(port: int, host: str, is_dry: bool) -> None:
    """Open the MLflow user interface on this workspace.

    It first marks the runs of searches that were killed. Press Ctrl-C to end it. If MLFLOW_TRACKING_URI is set to a
    server, it only prints that address. The server has no passwords, so it listens on this machine only.

    \b
    Example:
      pipeline ui
      pipeline ui --port 5001
      pipeline ui --print
    """
    from pipeline.workflows import ui

    if address := ui.remote_address():
        result(address)
        next_steps(("pipeline runs", "the same runs in this terminal"))
        return
    server = ui.plan_server(ui.UiRequest(port, host))
    result(server.address)
    if is_dry:
        result(server.shown_command())
    else:
        _serve(server)
    next_steps(("pipeline runs", "the leaderboard here"), ("pipeline score champion IMAGES -o scores/", "label images"))


def _serve(server: "UiServer") -> None:
    """Run the server until it ends or Ctrl-C or SIGTERM arrives; no process of it stays behind.

    Raises:
        Interrupted: SIGTERM.
    """
    from pipeline.workflows.ui import end_server, refuse_failure, start_server

    received: list[int] = []
    process = start_server(server, TerminalProgress())

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        end_server(process, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        end_server(process)  # workers that outlived the server
    if signal.SIGTERM in received:
        raise Interrupted("SIGTERM ended the MLflow server", 143)
    if not received:
        refuse_failure(code)
