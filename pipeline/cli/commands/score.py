"""`pipeline score`: label image files with a model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options.data import allow_host_option
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.cli.terminal.output import (
    SCHEMA,
    json_option,
    next_steps,
    quoted,
    result,
    result_json,
    say,
    table,
    verbosity_options,
)
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.text import redacted

if TYPE_CHECKING:
    from pipeline.workflows.score import ScoreResult

_SHOWN_LABELS = 20


@click.command("score")
@click.argument("model")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the rows (Parquet).")
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Also write all rows as one CSV file.")
@click.option("--top-k", type=click.IntRange(1), default=3, show_default=True, help="Most likely classes per row.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images per batch.")
@click.option("--overwrite", is_flag=True, help="Move an existing OUT aside to OUT.old-<time> first.")
@allow_host_option
@json_option
@verbosity_options
def command(model: str, inputs: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Label image files with MODEL.

    MODEL is champion, models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID (a logged model), the id of a run,
    or a folder with model.json. INPUT is an image, a folder (read with all its sub-folders) or a .csv, .parquet or
    .jsonl table with a column `path`. Every file gets one row in OUT: a label with its probability, or the reason
    why there is none. A model for images with several labels gives lists: all labels with a probability of at
    least 0.5. A stopped run continues when the same command is given again.

    \b
    Example:
      pipeline score champion photos/ -o scores/ --csv scores.csv
    """
    from pipeline.workflows import score

    hosts, csv = options.pop("allow_host"), options["csv"]
    job = score.prepare(score.ScoreRequest(model, inputs, out, hosts=hosts, **options), TerminalProgress())
    with interruptions(lambda: f"{out} keeps what is done; run the same command again to continue"):
        scored = score.run_job(job, csv, TerminalProgress())
    if as_json:
        result_json({"schema": SCHEMA, **scored.to_json()})
    else:
        _print_result(scored)
    scored.require_labels()
    parts = json.dumps(f"{out}/part-*.parquet")
    code = f"import glob, pandas; print(pandas.read_parquet(sorted(glob.glob({parts}))))"
    next_steps((f"python -c {quoted(code)}", "look at the rows"))


def _print_result(scored: "ScoreResult") -> None:
    facts = scored.facts
    lines = sorted(facts.labels.items(), key=lambda item: (-item[1], item[0]))
    rows = [[name, f"{number:,}", f"{number / facts.ok:.1%}"] for name, number in lines[:_SHOWN_LABELS]]
    if facts.unlabelled:
        rows.append(["(no label)", f"{facts.unlabelled:,}", f"{facts.unlabelled / facts.ok:.1%}"])
    if rows:
        result(table(("label", "files", "share"), rows))
    if len(lines) > _SHOWN_LABELS:
        result(f"... and {len(lines) - _SHOWN_LABELS} more labels")
    result(
        f"{facts.rows:,} rows in {facts.out}: {facts.ok:,} ok, {facts.errors:,} errors;"
        f" {facts.seconds:.1f} s, {facts.images_per_second:,.0f} images/s"
    )
    if facts.errors:
        codes = ", ".join(f"{code} {number:,}" for code, number in facts.errors_by_code.items())
        say(f"Errors: {codes}")
        for path, reason in scored.first_errors():
            say(f"  {redacted(path):.200}: {reason}")
