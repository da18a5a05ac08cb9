"""The steps of `pipeline data suspects` in order, and its screen; imported only when the command runs."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.options.types import PAGES, format_seconds, refuse_ending
from pipeline.cli.terminal.output import quoted, say, table
from pipeline.data import manifest
from pipeline.data.cache import open_images
from pipeline.data.label_errors import LabelErrors, find_label_errors
from pipeline.data.source import SPLITS, encodable
from pipeline.files import locked, write_text
from pipeline.machine import check_backend, share_resources
from pipeline.models.backbones import fetch_weights
from pipeline.parts import is_pretrained
from pipeline.search import crossfit
from pipeline.search.engine import LocalEngine
from pipeline.search.store import StudyStore
from pipeline.search.studies import open_study
from pipeline.spec import StudySpec
from pipeline.text import one_line

HEADERS = ("rank", "path", "label", "suggested", "p(label)", "p(suggested)")
MAX_NAME, MAX_LABEL = 60, 24  # characters of paths and labels on the screen


class SuspectsJob:
    """One call of `pipeline data suspects`: what is asked for, then what was found."""

    def __init__(self, workspace: Path, study: str, num_folds: int, top: int, html: Path | None) -> None:
        self.workspace = workspace
        self.study = study
        self.num_folds = num_folds
        self.top = top
        self.html = html
        self.facts: dict[str, Any] = {}

    @property
    def command(self) -> str:
        """What to type for the same again."""
        html = f" --html {quoted(str(self.html))}" if self.html else ""
        return f"pipeline data suspects {self.study} --folds {self.num_folds} --top {self.top}{html}"

    def run(self) -> None:
        """Train the folds that are not kept, rank the images, and write the page if one is asked for.

        Raises:
            PipelineError: the page's name is none of a page, the study is not finished or in use, its images are gone,
                or a training failed.
        """
        if self.html:
            refuse_ending("--html", self.html, PAGES)
        with open_study(self.workspace, self.study) as store:
            folder = store.folder
            with locked(folder.lock, f"study {self.study}"):
                plan = crossfit.plan_cross_fit(store, self.num_folds)
                self.train(plan, store)
                rows, logits = crossfit.read_predictions(plan)
                labels = np.load(folder.data / "labels.npy")[rows]
                errors = find_label_errors(logits, labels)
                order = errors.order[: max(errors.num_errors, self.top)]
                self.facts = self.describe(store, errors, rows, order)
                if self.html:
                    self.write_page(self.html, store.spec(), rows[order])

    def train(self, plan: crossfit.CrossFit, store: StudyStore) -> None:
        """Train the folds whose predictions are not kept."""
        missing, spec = crossfit.missing_folds(plan), store.spec()
        if not missing:
            say(f"study {self.study}: the predictions of {plan.num_folds} folds are kept from an earlier call")
            return
        check_backend()
        with closing(crossfit.hold_images(spec)) as hold:
            crossfit.assign_images(plan, spec, hold.folder)
            seconds = crossfit.estimate_seconds(plan, store, missing)
            say(
                f"study {self.study}: training trial {plan.trial} again, {len(missing)} of {plan.num_folds} folds, "
                f"{plan.epochs} epoch(s) each: about {format_seconds(seconds)}"
            )
            fetch_weights([name] if is_pretrained(name := plan.params.get("backbone", "none")) else [])
            self.run_folds(plan, missing)

    def run_folds(self, plan: crossfit.CrossFit, missing: list[int]) -> None:
        """Train folds in a child process, one after the other; whatever happens, the child ends."""
        engine = LocalEngine(share_resources(1, None), plan.folder / "folds.log")
        try:
            engine.start()
            engine.check()
            for number in missing:
                accuracy = crossfit.run_fold(plan, engine, number)
                say(f"  fold {number + 1} of {plan.num_folds}: accuracy {accuracy:.4f} on images it did not see")
        finally:
            engine.stop()

    def describe(
        self, store: StudyStore, errors: LabelErrors, rows: NDArray[np.int64], order: NDArray[np.int64]
    ) -> dict[str, Any]:
        """Return what was found as `--json` prints it; `order` are places among the usable images, which are `rows`."""
        classes, data = store.get("classes"), store.folder.data
        paths = manifest.read_paths(store.folder.split_table)
        labels, splits = (np.load(data / f"{name}.npy")[rows] for name in ("labels", "splits"))
        suspects = [
            {
                "path": encodable(self.shown_path(paths[place])),
                "label": classes[labels[place]],
                "suggested": classes[errors.suggested[place]],
                "p_label": round(float(errors.probabilities[place, labels[place]]), 6),
                "p_suggested": round(float(errors.probabilities[place, errors.suggested[place]]), 6),
                "score": round(float(errors.scores[place]), 4),
                "split": SPLITS[splits[place]],
            }
            for place in order
        ]
        return {
            "study": self.study,
            "num_images": len(rows),
            "num_folds": self.num_folds,
            "estimated_errors": errors.num_errors,
            "accuracy": errors.accuracy,
            "suspects": suspects,
        }

    def shown_path(self, path: str) -> str:
        """Return a path as a table in the workspace would name it."""
        home = os.path.join(self.workspace, "")  # noqa: PTH118
        return path.removeprefix(home)

    def write_page(self, path: Path, spec: StudySpec, rows: NDArray[np.int64]) -> None:
        """Write the page with pictures; `rows` are the images of the suspects."""
        from pipeline.reports.suspects_page import suspects_page

        with closing(crossfit.hold_images(spec)) as hold:
            images = open_images(hold.folder, spec.image)
            write_text(path, suspects_page(self.facts, rows, images))

    def to_text(self) -> str:
        """Return what was found on one screen."""
        facts = self.facts
        number, num_images = facts["estimated_errors"], facts["num_images"]
        some = f"about {number:,} ({number / num_images:.1%}); an odd picture of its class looks like a wrong label too"
        lines = [
            f"images                {num_images:,}, each judged by a network that did not see it",
            f"out-of-fold accuracy  {facts['accuracy']:.2%}",
            f"labels to look at     {some if number else 'none stands out; these are the least likely ones'}",
            "",
            table(
                HEADERS, [cells(rank, suspect) for rank, suspect in enumerate(facts["suspects"][: self.top], start=1)]
            ),
            "",
            "Nothing was changed: labels are yours to decide. To correct some, or leave images out, write a table with",
            "the columns path,label into this folder, paths as above, and search that.",
        ]
        if self.html:
            lines.append(f"page: {one_line(str(self.html))}")
        return "\n".join(lines)

    def next_steps(self) -> list[tuple[str, str]]:
        """Return what to type next, with what it does."""
        look = [] if self.html else [(f"{self.command} --html suspects.html", "look at the pictures")]
        return [*look, ("pipeline search TABLE", "search on your corrected table")]


def cells(rank: int, suspect: dict[str, Any]) -> tuple[str, ...]:
    """Return a suspect as a line of the table."""
    names = (
        one_line(suspect["path"], MAX_NAME),
        *(one_line(suspect[key], MAX_LABEL) for key in ("label", "suggested")),
    )
    return str(rank), *names, f"{suspect['p_label']:.4f}", f"{suspect['p_suggested']:.4f}"
