"""`pipeline data suspects`: the images of a finished study whose labels look wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options.types import StudyName
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
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.text import one_line

if TYPE_CHECKING:
    from pipeline.workflows.suspects import Suspect, SuspectsResult

_HEADERS = ("rank", "path", "label", "suggested", "p(label)", "p(suggested)")
MAX_NAME, MAX_LABEL = 60, 24  # characters of paths and labels on the screen


@click.command("suspects")
@click.argument("study", type=StudyName())
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    default=4,
    show_default=True,
    metavar="K",
    help="Train K times, each time on all images except one fold, whose labels are then checked.",
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

    The winner's network is trained again by K-fold cross-validation on all images, including the test images. Each
    image is judged by the network that did not see it. These networks are then deleted: the study, its model and its
    score stay as they are. The predictions are kept in the study's folder, so that a second call is instant.

    \b
    Examples:
      pipeline data suspects photos-1
      pipeline data suspects photos-1 --top 50 --html suspects.html
    """
    from pipeline.workflows import suspects

    page = f" --html {quoted(str(html))}" if html else ""
    again = f"pipeline data suspects {study} --folds {folds} --top {top}{page}"
    with interruptions(lambda: f"the folds that ended are kept; continue with: {again}"):
        found = suspects.run(suspects.SuspectsRequest(study, folds, top, html), TerminalProgress())
    if as_json:
        result_json({"schema": SCHEMA, **found.to_json()})
    else:
        result(_text(found, top))
        if html:
            result(f"page: {one_line(str(html))}")
    look = [] if html else [(f"{again} --html suspects.html", "look at the pictures")]
    next_steps(*look, ("pipeline search TABLE", "search on your corrected table"))


def _text(found: "SuspectsResult", top: int) -> str:
    number, num_images = found.estimated_errors, found.num_images
    some = f"about {number:,} ({number / num_images:.1%}); an unusual picture of its class can look like a wrong label"
    lines = [
        f"images                {num_images:,}, each judged by a network that did not see it",
        f"out-of-fold accuracy  {found.accuracy:.2%}",
        f"labels to look at     {some if number else 'none stands out; these are the least likely labels'}",
        "",
        table(_HEADERS, [_cells(rank, suspect) for rank, suspect in enumerate(found.suspects[:top], start=1)]),
        "",
        "Nothing was changed: you decide which labels are wrong. To correct or remove some, write a table with the",
        "columns path,label into this folder, with the paths shown above, and search that table.",
    ]
    return "\n".join(lines)


def _cells(rank: int, suspect: "Suspect") -> tuple[str, ...]:
    labels = (one_line(each, MAX_LABEL) for each in (suspect.label, suspect.suggested))
    probabilities = (f"{each:.4f}" for each in (suspect.p_label, suspect.p_suggested))
    return str(rank), one_line(suspect.path, MAX_NAME), *labels, *probabilities
