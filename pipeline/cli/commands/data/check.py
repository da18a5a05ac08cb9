"""`pipeline data check`: what is wrong with labelled images, before a search."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options.data import data_options
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, quoted, result, result_json, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.text import redacted


@click.command("check")
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
def command(
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
    from pipeline.cli.terminal.check_text import check_text, what_next
    from pipeline.data.cache import SpecOptions
    from pipeline.workflows import check

    names = ("image_size", "background", "max_megapixels", "max_megabytes")
    images = SpecOptions(**{name: options[name] for name in names})
    places = {name: options[name] for name in ("source", "cache_limit")}
    request = check.CheckRequest(data, html, fix, images=images, hosts=options["allow_host"], **places)
    again = f"pipeline data check {quoted(redacted(data))}"
    with interruptions(lambda: f"nothing was changed; begin again with: {again}"):
        checked = check.run(request, TerminalProgress())
    if as_json:
        result_json({"schema": SCHEMA, **checked.to_json()})
    else:
        result(check_text(checked))
    next_steps(*what_next(checked))
    if checked.is_refused:
        context.exit(3)
