"""`pipeline promote`: take another trial of a study than the one that won."""

import time
from pathlib import Path

import click

from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import json_option, verbosity_options


@click.command("promote")
@click.argument("study")
@click.option(
    "--pick",
    required=True,
    metavar="knee|TRIAL",
    help="The trial to take: its number, or that at the knee of the front of two objectives.",
)
@json_option
@verbosity_options
def command(study: str, pick: str, as_json: bool) -> None:
    """Train a trial of STUDY on train + validation, test it, and register it as the champion.

    A search does this with its winner; with two objectives any trial of the front may suit better. Each call opens the
    test images once more, and the result says how often that was: whoever picks by the test score chooses by luck.

    \b
    Examples:
      pipeline promote photos-1 --pick knee
      pipeline promote photos-1 --pick 12
    """
    from pipeline.cli.commands.search import command as search_command
    from pipeline.cli.terminal.render import print_end
    from pipeline.search.job import pick_trial
    from pipeline.search.studies import list_studies, open_study
    from pipeline.workflows.plan import Call, make_plan
    from pipeline.workflows.search import Search

    if study in list_studies(Path.cwd()):
        with open_study(Path.cwd(), study, is_read_only=True) as store:
            pick_trial(store, pick)
    resumed = search_command.make_context("search", ["--name", study, "--resume"])
    options = {name: value for name, value in resumed.params.items() if name not in ("data", "dry_run", "as_json")}
    search = Search(make_plan(Call(time.monotonic(), Path.cwd(), None, options, {"name", "resume"})), pick)
    with interruptions(
        lambda: f"the study is as it was; try again with: pipeline promote {study} --pick {pick}"
    ) as stop:
        found = search.run(stop)
    print_end(found, as_json)
