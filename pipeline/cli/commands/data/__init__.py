"""`pipeline data`: the built-in sets, and what there is to know about labelled images before a search."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.commands.data.suspects import command as suspects_command
from pipeline.cli.options.data import data_options
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import (
    SCHEMA,
    json_option,
    next_steps,
    quoted,
    result,
    result_json,
    table,
    verbosity_options,
)
from pipeline.text import redacted


@click.group(name="data")
def command() -> None:
    """List the built-in sets, check labelled images before a search, find wrong labels after it.

    \b
    Example:
      pipeline data list
      pipeline data check photos/
      pipeline data suspects photos-1
    """


command.add_command(suspects_command)


@command.command(name="list")
@json_option
@verbosity_options
def list_command(as_json: bool) -> None:
    """List the built-in sets: what they are, how large, under which licence, and where they would come from.

    \b
    Example:
      pipeline data list
      pipeline data list --json
    """
    from dataclasses import asdict

    from pipeline.data.builtin import catalogue

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


@command.command(name="check")
@click.argument("data")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with pictures.",
)
@click.option(
    "--fix",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="MANIFEST",
    help="Write a .csv, .parquet or .jsonl table without the bad and the duplicate images.",
)
@data_options
@json_option
@verbosity_options
@click.pass_context
def check_command(
    context: click.Context, /, data: str, html: Path | None, fix: Path | None, as_json: bool, **options: Any
) -> None:
    """Check labelled images: unusable files, duplicates, leaks between splits, wrong labels.

    DATA is what `pipeline search` takes. Every file is decoded once, and a search finds it decoded. The verdict is ok,
    warn or refuse; with refuse, when a search would mislead, the exit code is 3. Images are never changed.

    \b
    Examples:
      pipeline data check photos/
      pipeline data check photos/ --html check.html
      pipeline data check photos/ --fix clean.csv
    """
    from pipeline.workflows.check import CheckJob

    job = CheckJob(Path.cwd(), data, html, fix, options)
    again = f"pipeline data check {quoted(redacted(data))}"
    with interruptions(lambda: f"nothing was changed; begin again with: {again}"):
        job.run()
    if as_json:
        result_json({"schema": SCHEMA, **job.to_json()})
    else:
        result(job.to_text())
    next_steps(*job.next_steps())
    if job.is_refused:
        context.exit(3)
