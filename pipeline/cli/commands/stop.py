"""`pipeline stop`: asks a running search to stop so that it can be resumed; a file asks, no signal."""

import time
from pathlib import Path

import click

from pipeline.cli.options.types import format_seconds
from pipeline.cli.terminal.output import next_steps, quoted, say, verbosity_options

WAIT_SECONDS = 60.0  # a search saves at the next batch, and then shows MLflow its state
POLL_SECONDS = 0.1
REPORT_SECONDS = 10.0


@click.command("stop")
@click.argument("study")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until it has stopped, for a minute at most."
)
@verbosity_options
def command(study: str, wait: bool) -> None:
    """Ask the search that works on STUDY to stop; it can be resumed.

    The running trials save at the next batch and go on from there with --resume. On a shared folder this works from
    any machine.

    \b
    Examples:
      pipeline stop photos-1
      pipeline stop photos-1 --no-wait
    """
    from pipeline.search.health import ask_to_stop, forget_stop
    from pipeline.search.studies import is_alive, open_study
    from pipeline.workspace import Workspace

    workspace = Path.cwd()
    folder = Workspace(workspace).study(study)
    resume = (f"pipeline search --name {quoted(study)} --resume", "go on")
    if not is_alive(workspace, study):
        open_study(workspace, study, is_read_only=True).close()  # says so if there is none
        say(f"study {study} does not run; there is nothing to stop")
        next_steps(resume)
        return
    ask_to_stop(folder)
    if not wait:
        say(f"asked the search of study {study} to stop")
        next_steps((f"pipeline status {quoted(study)}", "see whether it has"))
        return
    wait_until_free(folder.lock, study)
    forget_stop(folder)  # of a search that ended by itself in the meantime
    say(f"study {study} has stopped; every finished trial is kept")
    next_steps(resume)


def wait_until_free(lock: Path, study: str) -> None:
    """Wait until nobody works on a study.

    Raises:
        StoppedEarly: it takes longer than WAIT_SECONDS; the message says who works on it.
    """
    from pipeline.errors import StoppedEarly
    from pipeline.files import is_locked, lock_owner

    owner = lock_owner(lock)
    say(f"waiting for {owner} to save and stop ...")
    started = reported = time.monotonic()
    while is_locked(lock):
        now = time.monotonic()
        if now - started > WAIT_SECONDS:
            raise StoppedEarly(
                f"study {study} is still in use by {owner} after {WAIT_SECONDS:.0f} s; it was asked to stop, and does "
                "so once it trains (decoding images, testing and publishing are not broken off); to end it now, kill "
                "that process on that host (kill PID): it can be resumed all the same"
            )
        if now - reported > REPORT_SECONDS:
            reported = now
            say(f"  {format_seconds(now - started)}")
        time.sleep(POLL_SECONDS)
