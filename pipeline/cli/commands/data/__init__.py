"""`pipeline data`: the built-in sets, and what there is to know about labelled images before and after a search."""

import click

from pipeline.cli.commands.data.check import command as check_command
from pipeline.cli.commands.data.list import command as list_command
from pipeline.cli.commands.data.suspects import command as suspects_command


@click.group(name="data")
def command() -> None:
    """List the built-in sets, check labelled images before a search, find wrong labels after it.

    \b
    Example:
      pipeline data list
      pipeline data check photos/
      pipeline data suspects photos-1
    """


for each in (suspects_command, list_command, check_command):
    command.add_command(each)
