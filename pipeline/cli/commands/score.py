"""`pipeline score`: label image files with a model; the work is done in pipeline.scoring."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options.data import allow_host_option
from pipeline.cli.terminal import output
from pipeline.cli.terminal.interruptions import interruptions
from pipeline.errors import DataError, InvalidUsage
from pipeline.text import redacted

if TYPE_CHECKING:
    from pipeline.scoring.inputs import Inventory
    from pipeline.scoring.output import ScoreFacts
    from pipeline.scoring.score import ScoreJob

SECONDS_BETWEEN_LINES = 10.0
SHOWN_ERRORS = 5
SHOWN_LABELS = 20


@click.command("score")
@click.argument("model")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the rows (Parquet).")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write all rows as one CSV file.",
)
@click.option("--top-k", type=click.IntRange(1), default=3, show_default=True, help="Classes in a row.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images in a batch.")
@click.option("--overwrite", is_flag=True, help="Move an existing OUT aside to OUT.old-<time> first.")
@allow_host_option
@output.json_option
@output.verbosity_options
def command(
    model: str,
    inputs: tuple[str, ...],
    out: Path,
    csv_path: Path | None,
    top_k: int,
    batch_size: int,
    overwrite: bool,
    allow_host: tuple[str, ...],
    as_json: bool,
) -> None:
    """Label image files with MODEL.

    MODEL is champion, models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID (a logged model), the id of a run,
    or a folder with model.json. INPUT is an image, a folder (read with all folders in it) or a .csv, .parquet or
    .jsonl table with a column `path`. Every file gets one row in OUT: a label with its probability, or the reason
    why there is none. A model of images that may have several labels gives lists: all labels of a probability of at
    least 0.5. A stopped run continues when the same command is given again.

    \b
    Example:
      pipeline score champion photos/ -o scores/ --csv scores.csv
    """
    found = find_files(inputs, out, csv_path)
    job = replace(make_job(model, found, out, top_k, batch_size), hosts=allow_host)
    if overwrite:
        set_aside(job)
    with interruptions(lambda: f"{out} keeps what is done; run the same command again to continue"):
        facts = run(job)
        if csv_path is not None:
            export(facts, csv_path)
    show(job, facts, as_json)
    if facts.ok == 0:
        raise DataError(f"{out}: none of the {facts.rows} files has a label; expected images; read error_detail there")
    parts = json.dumps(f"{out}/part-*.parquet")
    code = f"import glob, pandas; print(pandas.read_parquet(sorted(glob.glob({parts}))))"
    output.next_steps((f"python -c {output.quoted(code)}", "look at the rows"))


def find_files(inputs: tuple[str, ...], out: Path, csv_path: Path | None) -> "Inventory":
    """Find the files, and say what was left out."""
    from pipeline.scoring.inputs import find_inputs

    if csv_path is not None:
        check_csv(csv_path)
    found = find_inputs(inputs, out, csv_path)
    if found.num_skipped:
        output.say(f"Skipped {found.num_skipped:,} hidden files and folders, earlier outputs and files of MLflow.")
    if not found.paths:
        raise DataError(f"{', '.join(inputs)}: no files; expected at least one image; check the path")
    return found


def check_csv(csv_path: Path) -> None:
    """Refuse, before hours of work, a CSV file that would lie below a file."""
    above = next(path for path in csv_path.absolute().parents if path.exists())
    if not above.is_dir():
        raise InvalidUsage(f"--csv {csv_path}: {above} is a file; expected a folder; change --csv")


def make_job(model: str, found: "Inventory", out: Path, top_k: int, batch_size: int) -> "ScoreJob":
    """Find the model, and say what was found."""
    from pipeline.bundle import read_bundle
    from pipeline.scoring.score import ScoreJob
    from pipeline.tracking.registry import resolve_model

    resolved = resolve_model(Path(), model)
    bundle = read_bundle(resolved.folder)
    if resolved.note:
        output.say(resolved.note)
    spec = bundle.image
    kind = "RGB" if spec.channels == 3 else "grey"
    several = ", any number of which an image may have" if bundle.card.is_multi_label else ""
    output.say(
        f"Model {resolved.uri}: {len(bundle.classes)} classes{several}, {spec.width} x {spec.height} {kind} images"
    )
    output.say(f"  classes: {', '.join(bundle.classes)}\n  SHA-256: {bundle.sha256}", level=1)
    return ScoreJob(bundle, resolved.uri, found.paths, out, top_k, batch_size, num_skipped=found.num_skipped)


def set_aside(job: "ScoreJob") -> None:
    """Move an existing output aside, unless the new model is refused, and say where it is now."""
    from pipeline.bundle import check_layers
    from pipeline.scoring.output import is_output, move_aside

    if is_output(job.out):
        check_layers(job.bundle.keras_path)
    if aside := move_aside(job.out):
        output.say(f"Moved the existing {job.out} to {aside}")


def run(job: "ScoreJob") -> "ScoreFacts":
    """Score what is not scored yet; the model is loaded only when there is work."""
    from pipeline.scoring.score import already_scored, score

    if facts := already_scored(job):
        output.say(f"{job.out} is already complete: {facts.rows:,} rows by the same model; nothing was scored")
        return facts
    from pipeline.bundle import load_model
    from pipeline.models.predict import predict_logits

    keras_model = load_model(job.bundle)
    with progress() as report:
        return score(job, lambda images: predict_logits(keras_model, images, len(images)), report)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int, int], None]]:
    """Yield the function that shows progress: one updating line on a terminal, else a line every 10 s."""
    is_terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    first: int | None = None
    is_quiet = click.get_current_context().meta.get("verbosity", 0) < 0

    def report(done: int, total: int, errors: int) -> None:
        nonlocal first, shown
        now = time.monotonic()
        if first is None:
            first = done
            if done:
                output.say(f"Continuing: {done:,} of {total:,} files were scored before")
        if is_quiet or now - shown < (0.2 if is_terminal else SECONDS_BETWEEN_LINES):
            return
        shown = now
        speed = (done - first) / (now - started)
        line = f"{done:,} of {total:,} files, {errors:,} errors, {speed:,.0f} images/s"
        click.echo(f"\r{line}\x1b[K" if is_terminal else line, err=True, nl=not is_terminal)

    try:
        yield report
    finally:
        if is_terminal and not is_quiet:
            click.echo("\r\x1b[K", err=True, nl=False)


def export(facts: "ScoreFacts", csv_path: Path) -> None:
    """Write the CSV file and say so."""
    from pipeline.scoring.output import export_csv

    output.say(f"Wrote {export_csv(facts.out, csv_path):,} rows to {csv_path}")


def show(job: "ScoreJob", facts: "ScoreFacts", as_json: bool) -> None:
    """Print what the output holds."""
    if as_json:
        output.result_json(as_document(job, facts))
        return
    from pipeline.scoring.output import first_errors

    lines = sorted(facts.labels.items(), key=lambda item: (-item[1], item[0]))
    rows = [[name, f"{number:,}", f"{number / facts.ok:.1%}"] for name, number in lines[:SHOWN_LABELS]]
    if facts.unlabelled:
        rows.append(["(no label)", f"{facts.unlabelled:,}", f"{facts.unlabelled / facts.ok:.1%}"])
    if rows:
        output.result(output.table(("label", "files", "share"), rows))
    if len(lines) > SHOWN_LABELS:
        output.result(f"... and {len(lines) - SHOWN_LABELS} more labels")
    output.result(
        f"{facts.rows:,} rows in {facts.out}: {facts.ok:,} ok, {facts.errors:,} errors;"
        f" {facts.seconds:.1f} s, {facts.images_per_second:,.0f} images/s"
    )
    if facts.errors:
        codes = ", ".join(f"{code} {number:,}" for code, number in facts.errors_by_code.items())
        output.say(f"Errors: {codes}")
        for path, reason in first_errors(facts.out, SHOWN_ERRORS):
            output.say(f"  {redacted(path):.200}: {reason}")


def as_document(job: "ScoreJob", facts: "ScoreFacts") -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "schema": output.SCHEMA,
        "out": os.fsencode(facts.out).decode("utf-8", "backslashreplace"),
        "rows": facts.rows,
        "ok": facts.ok,
        "errors": facts.errors,
        "skipped": job.num_skipped,
        "errors_by_code": facts.errors_by_code,
        "labels": facts.labels,
        "unlabelled": facts.unlabelled,
        "seconds": facts.seconds,
        "images_per_second": facts.images_per_second,
        "model_uri": job.model_uri,
        "model_sha256": job.bundle.sha256,
    }
