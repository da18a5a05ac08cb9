"""`pipeline data check`: what is wrong with labelled images, before a search."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options.data import data_options
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, quoted, result, result_json, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.text import redacted

if TYPE_CHECKING:
    from pipeline.workflows.check import CheckResult


@click.command("check")
@click.argument("data")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page with pictures."
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

    DATA is what `pipeline search` takes. Every file is decoded once, and a later search reuses the result. The
    verdict is ok, warn or refuse; it is refuse, with exit code 3, if a search would mislead. Images are never changed.

    \b
    Examples:
      pipeline data check photos/
      pipeline data check photos/ --html check.html
      pipeline data check photos/ --fix clean.csv
    """
    from pipeline.data.cache.images import SpecOptions
    from pipeline.reports.check_text import check_text
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
        result(check_text(checked.check, checked.kept, fix, html))
    next_steps(*_what_next(checked))
    if checked.is_refused:
        context.exit(3)


def _what_next(checked: "CheckResult") -> list[tuple[str, str]]:
    request, found = checked.request, checked.check.found
    hosts = "".join(f" --allow-host {quoted(host)}" for host in request.hosts)
    if request.fix:
        return [(f"pipeline search {quoted(str(request.fix))}{hosts}", "search on what was kept")]
    data, steps = f"{quoted(redacted(request.data))}{hosts}", []
    can_be_cleaned = found.num_rows > found.files["used"] or found.exact or found.near or found.leaks
    if checked.check.advice and not request.html:
        steps.append((f"pipeline data check {data} --html check.html", "look at the pictures"))
    if can_be_cleaned and found.is_fixable and found.files["used"]:
        steps.append((f"pipeline data check {data} --fix clean.csv", "write a table without bad and duplicate images"))
    if not checked.is_refused:
        steps.append((f"pipeline search {data}", "find the best network for it"))
    return steps or [(f"pipeline data check {data}", "check again after the correction")]
