"""`pipeline data list`: the built-in sets."""

from dataclasses import asdict
from pathlib import Path

import click

from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, result, result_json, table, verbosity_options


@click.command("list")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """List the built-in sets: what they are, how large, under which licence, and where they would come from.

    \b
    Example:
      pipeline data list
      pipeline data list --json
    """
    from pipeline.data.readers.builtin import catalogue

    sets = catalogue(Path.cwd())
    if as_json:
        return result_json({"schema": SCHEMA, "sets": [asdict(item) for item in sets]})
    headers = ("name", "what", "images", "classes", "of", "MB", "licence", "comes from")
    rows = [
        (s.name, s.title, f"{s.num_images:,}", str(s.num_classes), s.image, f"{s.megabytes:g}", s.licence, s.where)
        for s in sets
    ]
    result(table(headers, rows))
    return next_steps(
        (f"pipeline data check {sets[0].name}", "look at one"),
        (f"pipeline search {sets[0].name} --budget 3m", "search on it"),
    )
