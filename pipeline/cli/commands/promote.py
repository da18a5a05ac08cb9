"""`pipeline promote`: take another trial of a study than the one that won."""

import click

from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import json_option, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress


@click.command("promote")
@click.argument("study")
@click.option(
    "--pick",
    required=True,
    metavar="knee|TRIAL",
    help="Trial to promote: its number, or knee for the one at the knee of the Pareto front.",
)
@json_option
@verbosity_options
def command(study: str, pick: str, as_json: bool) -> None:
    """Train a trial of STUDY on train + validation, test it, and register it as the champion.

    A search does this with its winner; with two objectives, another trial of the front may suit you better. Each call
    opens the test images once more, and the result says how often. A test score that you pick by is optimistic.

    \b
    Examples:
      pipeline promote photos-1 --pick knee
      pipeline promote photos-1 --pick 12
    """
    from pipeline.cli.terminal.render import print_end
    from pipeline.workflows.promote import PromoteRequest, plan_promotion
    from pipeline.workflows.search import run_plan

    plan = plan_promotion(PromoteRequest(study, pick))
    again = f"the study is as it was; try again with: pipeline promote {study} --pick {pick}"
    with interruptions(lambda: again) as stop:
        found = run_plan(plan, TerminalProgress(), stop)
    print_end(found, as_json)
