"""`pipeline data suspects`: the images of a finished study whose labels look wrong."""

from pathlib import Path

import click

from pipeline.cli.options.types import StudyName
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, result, result_json, verbosity_options


@click.command("suspects")
@click.argument("study", type=StudyName())
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    default=4,
    show_default=True,
    metavar="K",
    help="Train K times, each time on all images but one K-th, which is judged.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Print the N most suspicious images.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page with pictures."
)
@json_option
@verbosity_options
def command(study: str, folds: int, top: int, html: Path | None, as_json: bool) -> None:
    """Rank the images of STUDY, a finished search, whose labels its best network contradicts.

    The winner's network is trained again on K folds of all images, also the test images, each fold judging the images
    that it did not see. These networks are thrown away: the study, its model and its score stay as they are. What was
    judged is kept in the study's folder, so that a second call is instant.

    \b
    Examples:
      pipeline data suspects photos-1
      pipeline data suspects photos-1 --top 50 --html suspects.html
    """
    from pipeline.workflows.suspects import SuspectsJob

    job = SuspectsJob(Path.cwd(), study, folds, top, html)
    with interruptions(lambda: f"the folds that ended are kept; continue with: {job.command}"):
        job.run()
    if as_json:
        result_json({"schema": SCHEMA, **job.facts})
    else:
        result(job.to_text())
    next_steps(*job.next_steps())
