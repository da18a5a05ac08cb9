"""The images of a finished study whose labels look wrong, by networks that did not see them."""

import os
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import open_images
from pipeline.data.quality.label_errors import LabelErrors, find_label_errors
from pipeline.data.source import SPLITS, encodable
from pipeline.data.splits import manifest
from pipeline.files import locked, write_text
from pipeline.machine import check_backend, share_resources
from pipeline.models.backbones.applications import fetch_weights
from pipeline.parts import is_pretrained
from pipeline.search import out_of_fold
from pipeline.search.engines.local import local_engine
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import open_study
from pipeline.spec import StudySpec
from pipeline.text import format_seconds
from pipeline.workflows.outputs import PAGES, refuse_ending
from pipeline.workflows.progress import SILENT, Progress

NUM_FOLDS, NUM_SHOWN = 4, 20


@dataclass(frozen=True)
class SuspectsRequest:
    """Which study; `top` suspects at least are found, and `html` is a page with pictures to be written."""

    study: str
    num_folds: int = NUM_FOLDS
    top: int = NUM_SHOWN
    html: Path | None = None
    workspace: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Suspect:
    """An image whose label looks wrong; `score` orders them, `path` is as a table in the workspace would name it."""

    path: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    score: float
    split: str


@dataclass(frozen=True)
class SuspectsResult:
    """The suspects, the likeliest first; `accuracy` is that of networks on images that they did not see."""

    study: str
    num_images: int
    num_folds: int
    estimated_errors: int
    accuracy: float
    suspects: tuple[Suspect, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def run(request: SuspectsRequest, progress: Progress = SILENT) -> SuspectsResult:
    """Train the folds that are not kept, rank the images, and write the page if one is asked for.

    Raises:
        PipelineError: the page's name is none of a page, the study is not finished or in use, its images are gone,
            or a training failed.
    """
    if request.html:
        refuse_ending("--html", request.html, PAGES)
    with open_study(request.workspace, request.study) as store, locked(store.folder.lock, f"study {request.study}"):
        plan = out_of_fold.plan_out_of_fold(store, request.num_folds)
        _train(plan, store, progress)
        rows, logits = out_of_fold.read_predictions(plan)
        labels = np.load(store.folder.data / "labels.npy")[rows]
        errors = find_label_errors(logits, labels)
        order = errors.order[: max(errors.num_errors, request.top)]
        found = SuspectsResult(
            request.study,
            len(rows),
            request.num_folds,
            errors.num_errors,
            errors.accuracy,
            _suspects(store, errors, rows, order, request.workspace),
        )
        if request.html:
            _write_page(request.html, found, store.spec(), rows[order])
        return found


def _train(plan: out_of_fold.OutOfFoldPlan, store: StudyStore, progress: Progress) -> None:
    """Train the folds whose predictions are not kept."""
    missing, spec = out_of_fold.missing_folds(plan), store.spec()
    if not missing:
        progress.say(f"study {spec.study}: the predictions of {plan.num_folds} folds are kept from an earlier call")
        return
    check_backend()
    with closing(out_of_fold.hold_images(spec)) as hold:
        out_of_fold.assign_images(plan, spec, hold.folder)
        seconds = out_of_fold.estimate_seconds(plan, store, missing)
        progress.say(
            f"study {spec.study}: training trial {plan.trial} again, {len(missing)} of {plan.num_folds} folds, "
            f"{plan.epochs} epoch(s) each: about {format_seconds(seconds)}"
        )
        fetch_weights([name] if is_pretrained(name := plan.params.get("backbone", "none")) else [])
        _run_folds(plan, missing, progress)


def _run_folds(plan: out_of_fold.OutOfFoldPlan, missing: list[int], progress: Progress) -> None:
    """Train folds in a child process, one after the other; whatever happens, the child ends."""
    engine = local_engine(share_resources(1, None), plan.folder / "folds.log")
    try:
        engine.start()
        engine.check()
        for number in missing:
            accuracy = out_of_fold.run_fold(plan, engine, number)
            progress.say(f"  fold {number + 1} of {plan.num_folds}: accuracy {accuracy:.4f} on images it did not see")
    finally:
        engine.stop()


def _suspects(
    store: StudyStore, errors: LabelErrors, rows: NDArray[np.int64], order: NDArray[np.int64], workspace: Path
) -> tuple[Suspect, ...]:
    """Return the suspects; `order` are places among the usable images, which are `rows`."""
    classes, data = store.get("classes"), store.folder.data
    paths = manifest.read_paths(store.folder.split_table)
    labels, splits = (np.load(data / f"{name}.npy")[rows] for name in ("labels", "splits"))
    home = os.path.join(workspace, "")  # noqa: PTH118
    return tuple(
        Suspect(
            path=encodable(paths[place].removeprefix(home)),
            label=classes[labels[place]],
            suggested=classes[errors.suggested[place]],
            p_label=round(float(errors.probabilities[place, labels[place]]), 6),
            p_suggested=round(float(errors.probabilities[place, errors.suggested[place]]), 6),
            score=round(float(errors.scores[place]), 4),
            split=SPLITS[splits[place]],
        )
        for place in order
    )


def _write_page(path: Path, found: SuspectsResult, spec: StudySpec, rows: NDArray[np.int64]) -> None:
    """Write the page with pictures; `rows` are the images of the suspects."""
    from pipeline.reports.suspects_page import suspects_page

    with closing(out_of_fold.hold_images(spec)) as hold:
        images = open_images(hold.folder, spec.image)
        write_text(path, suspects_page(found.to_json(), rows, images))
