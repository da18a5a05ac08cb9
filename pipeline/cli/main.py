"""The console script `pipeline`: a group whose commands are imported only when they are called."""

import errno
import gc
import importlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

import pipeline
from pipeline.errors import InvalidUsage, PipelineError, StoppedEarly
from pipeline.models.backbones.applications import MODELS, weights_folder
from pipeline.text import printable
from pipeline.workspace import Workspace

COMMANDS = {
    "data": ("pipeline.cli.commands.data", "List built-in sets, check images, find wrong labels."),
    "search": ("pipeline.cli.commands.search", "Find the best CNN for your labelled images."),
    "status": ("pipeline.cli.commands.status", "Show the progress of a search, from any terminal."),
    "stop": ("pipeline.cli.commands.stop", "Ask a running search to stop; --resume continues it."),
    "runs": ("pipeline.cli.commands.runs", "Show the leaderboard of a study."),
    "promote": ("pipeline.cli.commands.promote", "Make another trial of a study the champion."),
    "sync": ("pipeline.cli.commands.sync", "Send to MLflow what it has missed."),
    "score": ("pipeline.cli.commands.score", "Label image files with a model."),
    "ui": ("pipeline.cli.commands.ui", "Open the MLflow user interface on this workspace."),
    "doctor": ("pipeline.cli.commands.doctor", "Check Python, packages, devices, disk and store."),
    "spaces": ("pipeline.cli.commands.spaces", "List, show and check search spaces."),
}


class _LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used; `--help` reads COMMANDS alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that the user can act on is one message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except BrokenPipeError:
            raise  # `pipeline runs | head`: click ends quietly
        except (OSError, sqlite3.OperationalError) as error:
            if (code := exit_code_of(error)) is None:
                raise
            fail(f"{error}; free some space, check the permissions, or work in another folder", code)


def fail(message: str, exit_code: int) -> NoReturn:
    """Say on stderr why the command ends, and end it."""
    click.echo(f"pipeline: {printable(message)}", err=True)
    sys.exit(exit_code)


def exit_code_of(error: OSError | sqlite3.OperationalError) -> int | None:
    """Return 5 for a full disk, 2 for a place that cannot be written, None for what is a bug."""
    if isinstance(error, sqlite3.OperationalError):
        if "disk is full" in str(error):
            return StoppedEarly.exit_code
        return InvalidUsage.exit_code if "readonly" in str(error) or "unable to open" in str(error) else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoppedEarly.exit_code
    is_place = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
    return InvalidUsage.exit_code if is_place and error.filename is not None else None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(pipeline.__version__, prog_name="pipeline")
def cli() -> None:
    """Search, track and score convolutional image classifiers.

    The workspace is the current folder: ./mlflow.db and ./mlruns/ hold the searches, ./data/ the built-in sets.

    \b
    Example:
      pipeline search digits --budget 3m
      pipeline score champion data/digits/test -o scores/
      mlflow ui
    """


def main() -> None:
    """Run the console script."""
    if sys.platform == "win32":
        fail("Windows is supported through WSL2 only; install it with `wsl --install`, then install pipeline in it", 2)
    os.environ[MODELS] = str(weights_folder())  # pretrained weights stay where the user's Keras has them
    # Keras obeys a settings file and Matplotlib writes a list of fonts: in the workspace, not in the home folder.
    workspace = Workspace(Path.cwd())
    os.environ["KERAS_HOME"] = str(workspace.cache("keras"))
    os.environ["MPLCONFIGDIR"] = str(workspace.cache("matplotlib"))
    try:
        cli(prog_name="pipeline")
    finally:
        gc.freeze()  # else Python looks through all that was imported before it ends: seconds after a search
