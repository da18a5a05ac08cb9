"""The console script `pipeline`: a group whose commands are imported only when they are called."""

import importlib
import signal
import sys
from typing import Any

import click

import pipeline
from pipeline.cli.output import printable
from pipeline.errors import PipelineError

COMMANDS = {
    "search": ("pipeline.cli.search", "Search the best CNN for labelled images."),
    "runs": ("pipeline.cli.runs", "Show the leaderboard of a study, or all studies."),
    "score": ("pipeline.cli.score", "Label image files with a model."),
    "ui": ("pipeline.cli.ui", "Open the MLflow user interface on this workspace."),
    "doctor": ("pipeline.cli.doctor", "Check Python, packages, devices, disk and store."),
    "spaces": ("pipeline.cli.spaces", "List, show and check search spaces."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used; `--help` reads COMMANDS alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a user's journey."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that the user can act on is one message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            click.echo(f"pipeline: {printable(str(error))}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(pipeline.__version__, prog_name="pipeline")
def cli() -> None:
    """Search, track and score convolutional image classifiers.

    The workspace is the current folder: ./mlflow.db and ./mlruns/ hold what was searched, ./data/ the built-in sets.

    \b
    Example:
      pipeline search digits --budget 3m
      pipeline score champion data/digits/test -o scores/
      mlflow ui
    """


def main() -> None:
    """Run the console script."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `pipeline runs | head` ends quietly
    cli(prog_name="pipeline")
