"""`pipeline search`: find, train, test and register the best CNN for labelled images."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.options.data import data_options
from pipeline.cli.options.search import search_options
from pipeline.cli.options.types import StudyName
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import json_option, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress

if TYPE_CHECKING:
    from pipeline.workflows.plan import SearchRequest


@click.command("search")
@click.argument("data", required=False)
@search_options
@data_options
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a study with its own options: the one given by --name, else the newest of DATA, or of all.",
)
@click.option(
    "--fork",
    type=StudyName(),
    metavar="NEW",
    help="Start study NEW from the one given by --name or --resume, with other options; trials still valid are reused.",
)
@click.option("--dry-run", is_flag=True, help="Measure this machine for a few seconds, print the plan and stop.")
@json_option
@verbosity_options
@click.pass_context
def command(context: click.Context, /, data: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Find the best CNN for your labelled images.

    DATA is a built-in set (see `pipeline data list`), a folder with a sub-folder per class, a folder with
    train/ [val/] test/ of such folders, a .csv/.parquet/.jsonl table with the columns path,label[,split,group,weight],
    an .npz, .tar shards or idx files; docs/data.md shows each. Without a split, 20 % are held out for the test and
    15 % of the rest for validation; near-duplicates and groups stay together.

    Every trial goes to MLflow. The validation images choose the winner, which is trained again on train + validation,
    evaluated once on the test images, and registered with the alias "champion". If the search is interrupted, the same
    command with --resume continues it; docs/search.md explains oracles, rungs, budgets and limits.

    \b
    Examples:
      pipeline search digits --budget 3m
      pipeline search photos/ --budget 45m --max-latency-ms 5
      pipeline search photos/ --resume
    """
    from pipeline.cli.terminal.render import print_end, print_estimate
    from pipeline.workflows import estimate, plan, search

    sources = {name: context.get_parameter_source(name) for name in options}
    given = [name for name, source in sources.items() if source is ParameterSource.COMMANDLINE]
    request = search_request(data, options, given)
    if dry_run:
        print_estimate(estimate.run(request, TerminalProgress()), as_json)
        return
    made = plan.make_plan(request)
    with interruptions(lambda: f"every finished trial is kept; continue with: {made.resume_command()}") as stop:
        found = search.run_plan(made, TerminalProgress(), stop)
    print_end(found, as_json)


def search_request(data: str | None, options: Mapping[str, Any], given: Collection[str]) -> "SearchRequest":
    """Return what was typed as the request of a search; `given` names what was not left at its default, in order."""
    from pipeline.search.options import SearchOptions
    from pipeline.workflows.plan import SearchRequest

    typed = {each.name: options[each.name] for each in fields(SearchOptions) if each.name != "data"}
    study = {name: options[name] for name in ("name", "resume", "fork")}
    return SearchRequest(SearchOptions(data or "", **typed), Path.cwd(), given=given, **study)
