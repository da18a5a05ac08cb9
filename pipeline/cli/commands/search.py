"""`pipeline search`: find, train, test and register the best CNN for labelled images."""

import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli.options.data import data_options
from pipeline.cli.options.search import search_options
from pipeline.cli.options.types import StudyName, format_seconds
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import (
    SCHEMA,
    columns,
    json_option,
    next_steps,
    result,
    result_json,
    verbosity_options,
)

SHOWN_CLASSES = 12


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
    help="Begin study NEW from the one that --name or --resume means, with other options; valid trials are reused.",
)
@click.option("--dry-run", is_flag=True, help="Measure this machine for some seconds, print the plan and stop.")
@json_option
@verbosity_options
@click.pass_context
def command(context: click.Context, /, data: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Search the best CNN for labelled images.

    DATA is a built-in set (see `pipeline data list`), a folder with a sub-folder per class, a folder with
    train/ [val/] test/ of such folders, a .csv/.parquet/.jsonl table with the columns path,label[,split,group,weight],
    an .npz, .tar shards or idx files; docs/data.md shows each. What is not split is split: 20 % test, and 15 % of the
    rest to validate; near-duplicates and groups never straddle a split.

    Every trial goes to MLflow. The validation images choose the winner, which is trained again on train + validation,
    judged once on the test images, and registered with the alias "champion". Whatever stops the search, the same
    command with --resume goes on; docs/search.md explains oracles, rungs, budgets and limits.

    \b
    Examples:
      pipeline search digits --budget 3m
      pipeline search photos/ --budget 45m --max-latency-ms 5
      pipeline search photos/ --resume
    """
    from pipeline.cli.terminal.render import print_end
    from pipeline.workflows.plan import Call, make_plan
    from pipeline.workflows.search import Search

    sources = {key: context.get_parameter_source(key) for key in options}
    given = {key for key, source in sources.items() if source is ParameterSource.COMMANDLINE}
    call = Call(time.monotonic(), Path.cwd(), data, options, given)
    plan = make_plan(call)
    if dry_run:
        print_plan(Search(plan).estimate(), as_json)
        return
    search = Search(plan)
    with interruptions(lambda: f"every finished trial is kept; continue with: {plan.resume_command()}") as stop:
        found = search.run(stop)
    print_end(found, as_json)


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Print what a search would do."""
    if as_json:
        result_json({"schema": SCHEMA, **plan})
    else:
        images, classes, default, pixels = plan["images"], plan["classes"], plan["default"], plan["image"]
        several = " (any number of them an image)" if plan["is_multi_label"] else ""
        shown = f"{', '.join(classes[:SHOWN_CLASSES])}{', ...' if len(classes) > SHOWN_CLASSES else ''}"
        size = "infinite (a continuous range)" if plan["space_size"] is None else f"{plan['space_size']:,.0f}"
        network = f"default network: {default['num_params']:,} params, {default['mflops']:,} MFLOPs"
        rungs = ", ".join(
            f"{epochs:g} ({seconds:.0f} s)"
            for epochs, seconds in zip(plan["epochs"], plan["trial_seconds"], strict=True)
        )
        cost = f", against {plan['minimise']}" if plan["minimise"] else ""
        lines = {
            "data": plan["source"],
            "images": f"{sum(images.values()):,}: " + ", ".join(f"{n:,} {split}" for split, n in images.items()),
            "classes": f"{len(classes)}{several}: {shown}",
            "pixels": f"{pixels['height']} x {pixels['width']} x {pixels['channels']}, {pixels['dtype']}",
            "space": f"{plan['space']}: {', '.join(plan['params'])}",
            "configurations": size,
            "objective": f"{plan['objective']}{cost}",
            "oracle": f"{plan['oracle']}, seed {plan['seed']}",
            "budget": format_seconds(plan["budget_seconds"]) if plan["budget_seconds"] else "no time limit",
            "processes": f"{plan['workers']} of {plan['threads']} thread(s)",
            "trials": f"about {plan['trials']}, the best go on; epochs of each rung: {rungs}; {network}",
            "whole job": f"about {format_seconds(plan['seconds'])}",
        }
        result(columns(lines))
    next_steps((plan["command"], "run it"))
