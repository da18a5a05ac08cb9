"""Image files get labels from a model: what `pipeline.scoring` does, from the model's name to the finished output."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, InvalidUsage
from pipeline.text import counted
from pipeline.workflows.progress import SILENT, Progress

if TYPE_CHECKING:  # numpy and the rest are imported when there is something to score
    from pipeline.scoring.inputs import Inventory
    from pipeline.scoring.output import ScoreFacts
    from pipeline.scoring.score import ScoreJob

_SHOWN_ERRORS = 5


@dataclass(frozen=True)
class ScoreRequest:
    """Which model labels which files, and where the rows go.

    `model` is champion, models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, the id of a run, or a folder with
    model.json; `inputs` are images, folders and tables. An `out` of something else is moved aside with `overwrite`.
    `hosts` are private ones that URLs in a table may reach.
    """

    model: str
    inputs: tuple[str, ...]
    out: Path
    csv: Path | None = None
    top_k: int = 3
    batch_size: int = 256
    overwrite: bool = False
    hosts: tuple[str, ...] = ()
    workspace: Path = Path()


@dataclass(frozen=True)
class ScoreResult:
    """What the output holds."""

    job: "ScoreJob"
    facts: "ScoreFacts"

    def first_errors(self) -> list[tuple[str, str]]:
        """Return the first files without a label, and why they have none."""
        from pipeline.scoring.export import first_errors

        return list(first_errors(self.facts.out, _SHOWN_ERRORS)) if self.facts.errors else []

    def require_labels(self) -> None:
        """Raise DataError if no file has a label."""
        facts = self.facts
        if facts.ok == 0:
            raise DataError(
                f"{self.job.out}: none of the {facts.rows} files could be labelled; the column error_detail says why"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        job, facts = self.job, self.facts
        return {
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


def run(request: ScoreRequest, progress: Progress = SILENT) -> ScoreResult:
    """Give every file one row in the output: labels with probabilities, or the reason why there are none.

    Raises:
        PipelineError: there are no files or no such model, or the output holds something else.
    """
    return run_job(prepare(request, progress), request.csv, progress)


def prepare(request: ScoreRequest, progress: Progress = SILENT) -> "ScoreJob":
    """Find the files and the model, and move an earlier output aside if that is asked for.

    Raises:
        PipelineError: there are no files or no such model.
    """
    found = _find_files(request, progress)
    job = replace(_make_job(request, found, progress), hosts=request.hosts)
    if request.overwrite:
        _set_aside(job, progress)
    return job


def run_job(job: "ScoreJob", csv: Path | None = None, progress: Progress = SILENT) -> ScoreResult:
    """Score what is not scored yet, and write all rows as one CSV file if that is asked for.

    Raises:
        PipelineError: the output holds something else, or another process is scoring into it.
    """
    facts = _score(job, progress)
    if csv is not None:
        from pipeline.scoring.export import export_csv

        progress.say(f"Wrote {export_csv(facts.out, csv):,} rows to {csv}")
    return ScoreResult(job, facts)


def _find_files(request: ScoreRequest, progress: Progress) -> "Inventory":
    from pipeline.scoring.inputs import find_inputs

    if request.csv is not None:
        _check_csv(request.csv)
    found = find_inputs(request.inputs, request.out, request.csv)
    if found.num_skipped:
        progress.say(f"Skipped {counted(found.num_skipped, 'hidden or generated file')}.")
    if not found.paths:
        raise DataError(f"{', '.join(request.inputs)}: no files found; give at least one image, or check the path")
    return found


def _check_csv(path: Path) -> None:
    """Refuse, before hours of work, a CSV file that would lie below a file."""
    above = next(path for path in path.absolute().parents if path.exists())
    if not above.is_dir():
        raise InvalidUsage(f"--csv {path}: {above} is a file, not a folder; change --csv")


def _make_job(request: ScoreRequest, found: "Inventory", progress: Progress) -> "ScoreJob":
    """Find the model, and say what was found."""
    from pipeline.bundle import read_bundle
    from pipeline.scoring.score import ScoreJob
    from pipeline.tracking.resolve import resolve_model

    resolved = resolve_model(request.workspace, request.model)
    bundle = read_bundle(resolved.folder)
    if resolved.note:
        progress.say(resolved.note)
    spec = bundle.image
    kind = "RGB" if spec.channels == 3 else "grey"
    several = ", any number of which an image may have" if bundle.card.is_multi_label else ""
    progress.say(
        f"Model {resolved.uri}: {len(bundle.classes)} classes{several}, {spec.width} x {spec.height} {kind} images"
    )
    progress.say(f"  classes: {', '.join(bundle.classes)}\n  SHA-256: {bundle.sha256}", level=1)
    sizes = (request.top_k, request.batch_size)
    return ScoreJob(bundle, resolved.uri, found.paths, request.out, *sizes, num_skipped=found.num_skipped)


def _set_aside(job: "ScoreJob", progress: Progress) -> None:
    """Move an existing output aside, unless the new model is refused, and say where it is now."""
    from pipeline.bundle import check_layers
    from pipeline.scoring.output import is_output, move_aside

    if is_output(job.out):
        check_layers(job.bundle.keras_path)
    if aside := move_aside(job.out):
        progress.say(f"Moved the existing {job.out} to {aside}")


def _score(job: "ScoreJob", progress: Progress) -> "ScoreFacts":
    """Score what is not scored yet; the model is loaded only when there is work."""
    from pipeline.scoring.score import already_scored, score

    if facts := already_scored(job):
        progress.say(f"{job.out} is already complete: {facts.rows:,} rows by the same model; nothing was scored")
        return facts
    from pipeline.bundle import load_model
    from pipeline.models.predict import predict_logits

    keras_model = load_model(job.bundle)
    with progress.counting() as count:
        return score(job, lambda images: predict_logits(keras_model, images, len(images)), count)
