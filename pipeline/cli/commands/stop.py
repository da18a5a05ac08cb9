"""`pipeline stop`: asks a running search to stop so that it can be resumed."""

import click

from pipeline.cli.terminal.output import next_steps, quoted, say, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress


@click.command("stop")
@click.argument("study")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until it has stopped, for at most a minute."
)
@verbosity_options
def command(study: str, wait: bool) -> None:
    """Ask the search that works on STUDY to stop; it can be resumed.

    The running trials save at the next batch and continue from there with --resume. On a shared folder this works from
    any machine.

    \b
    Examples:
      pipeline stop photos-1
      pipeline stop photos-1 --no-wait
    """
    from pipeline.workflows import stop
    from pipeline.workflows.stop import StopState

    state = stop.run(stop.StopRequest(study, wait), TerminalProgress())
    texts = {
        StopState.NOT_RUNNING: f"study {study} is not running; there is nothing to stop",
        StopState.ASKED: f"asked the search of study {study} to stop",
        StopState.STOPPED: f"study {study} has stopped; every finished trial is kept",
    }
    say(texts[state])
    if state == StopState.ASKED:
        next_steps((f"pipeline status {quoted(study)}", "see whether it has stopped"))
    else:
        next_steps((f"pipeline search --name {quoted(study)} --resume", "go on"))
