"""The steps of `pipeline search` in order; imported only when the command runs."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from pipeline.cli.output import quoted, say
from pipeline.cli.values import format_seconds
from pipeline.data.cache import SpecOptions, choose_spec, open_cache
from pipeline.data.dataset import Dataset, split_dataset
from pipeline.data.source import encodable
from pipeline.data.sources import open_source, source_name
from pipeline.errors import DataError, InvalidUsage, TrackingError
from pipeline.files import locked, sha256_json
from pipeline.machine import check_backend
from pipeline.records import TrialOutcome, TrialRow
from pipeline.search import setup
from pipeline.search.budget import Budget
from pipeline.search.engine import LocalEngine
from pipeline.search.job import Finished, count_states, finish, run_trials
from pipeline.search.mirroring import BackgroundMirror
from pipeline.search.store import StudyStore, is_alive, studies_folder
from pipeline.search.study import Terms
from pipeline.space import load_space

REPORT_SECONDS = 5.0


class Search:
    """One call of `pipeline search`: plan, run, and what to type to resume it."""

    def __init__(
        self, started: float, workspace: Path, data: str, name: str | None, is_resumed: bool,
        options: dict[str, Any], given: set[str],
    ) -> None:  # fmt: skip
        self.started = started
        self.workspace = workspace
        self.data = data
        self.name = name
        self.is_resumed = is_resumed
        self.options = options
        self.given = given
        self.reported = started

    def plan(self) -> None:
        """Read space and source, decide splits, name and budget; nothing is written yet.

        Raises:
            PipelineError: anything that the user has to change, before any time is spent.
        """
        study = self.study_name(safe_name(source_name(self.data)))
        stored = self.stored_facts(study) if self.is_resumed else {}
        self.options |= {key: value for key, value in stored.get("options", {}).items() if key not in self.given}
        options = self.options
        self.space = load_space(options["space"])
        self.source = open_source(self.data, self.workspace, options["source"])
        if self.source.is_multi_label:
            raise DataError(
                f"{self.source.origin}: an image has several labels; expected one, since a search cannot train on "
                "several yet; `pipeline data check` can look at such a set"
            )
        names = ("image_size", "background", "max_megapixels", "max_megabytes")
        self.spec = choose_spec(self.source, SpecOptions(**{name: options[name] for name in names}))
        self.request = setup.Request(
            study, options["oracle"], options["seed"], options["budget"], options["trials"], options["workers"],
            options["folds"],
        )  # fmt: skip
        self.counts = setup.expected_counts(self.source)
        self.terms = self.make_terms()
        self.num_epochs = stored.get("epochs")
        self.budget = self.make_budget(0.0)

    def make_terms(self) -> Terms:
        """Return what is fixed for the study, by what is known of the images so far."""
        return setup.make_terms(self.space, self.spec, len(self.source.classes), self.counts, self.request)

    def make_budget(self, elapsed: float) -> Budget:
        """Return how the time is divided when `elapsed` seconds are gone; a resumed study keeps its epochs."""
        budget = setup.make_budget(self.terms, self.request, elapsed)
        return budget if self.num_epochs is None else dataclasses.replace(budget, epochs=self.num_epochs)

    def study_name(self, dataset: str) -> str:
        """Return the name given, or the newest or next one of this data set; without --resume it must be new."""
        folder = studies_folder(self.workspace)
        if self.is_resumed:
            name = self.name or setup.latest_study_name(self.workspace, dataset)
            if not (folder / name / "study.db").is_file():
                raise InvalidUsage(f"--resume: study {name} not found in {folder}; leave --resume out to begin it")
            return name
        name = self.name or setup.next_study_name(self.workspace, dataset)
        if (folder / name / "study.db").is_file():
            raise InvalidUsage(
                f"study {name} exists already in {folder}; expected a new name; add --resume to continue it, or choose "
                "another --name"
            )
        return name

    def stored_facts(self, study: str) -> dict[str, Any]:
        """Return what a study remembers; nothing if it was killed while it was being created."""
        store = StudyStore(studies_folder(self.workspace) / study / "study.db")
        try:
            return store.facts() if store.is_created() else {}
        finally:
            store.close()

    def resume_command(self) -> str:
        """Return what to type to continue this search; its options are remembered."""
        return f"pipeline search {quoted(self.data)} --name {self.request.study} --resume"

    def start_command(self) -> str:
        """Return what to type to begin this search: every option that was given."""
        flags = {key: f"--{key.replace('_', '-')}" for key in self.options}
        values = {key: value for key, value in self.options.items() if key in self.given and value is not None}
        if "budget" in values:
            values["budget"] = f"{round(values['budget'])}s"
        options = "".join(
            f" {flags[key]}" if value is True else f" {flags[key]} {quoted(str(value))}"
            for key, value in values.items()
        )
        return f"pipeline search {quoted(self.data)} --name {self.request.study}{options}"

    def describe_plan(self) -> dict[str, Any]:
        """Return the plan as JSON-able facts."""
        defaults = setup.typical_params(self.terms)
        cost = self.terms.cost(defaults)
        size = self.space.size()
        seconds = self.terms.estimate(defaults, self.budget.epochs)
        is_timed = self.budget.total != float("inf")
        room = max(1, round(self.budget.screening_until / seconds * self.request.num_workers)) if is_timed else None
        limits = [limit for limit in (room, self.request.max_trials) if limit]
        return {
            "study": self.request.study,
            "source": self.source.origin,
            "images": self.counts,
            "classes": list(self.source.classes),
            "image": dataclasses.asdict(self.spec),
            "space": self.options["space"],
            "params": self.space.names(),
            "space_size": None if size == float("inf") else size,
            "oracle": self.request.oracle,
            "seed": self.request.seed,
            "budget_seconds": self.budget.total if is_timed else None,
            "trials": min(limits),
            "epochs": self.budget.epochs,
            "trial_seconds": round(seconds, 1),
            "default": {"params": defaults, "num_params": cost.num_params, "mflops": cost.mflops},
            "command": self.start_command(),
        }

    def run(self) -> dict[str, Any]:
        """Search and return the result; after an interruption the children are gone and the study can be resumed."""
        folder = studies_folder(self.workspace) / self.request.study
        with locked(folder / "lock", f"study {self.request.study}"):
            return self.run_locked(folder)

    def run_locked(self, folder: Path) -> dict[str, Any]:
        """Search while holding the study's lock; whatever happens, the children end and MLflow shows the true state."""
        check_backend()
        engine = LocalEngine(self.request.num_workers, self.terms.num_threads, folder / "trials.log")
        mirror: BackgroundMirror | None = None
        state = "FAILED"
        try:
            engine.start()
            dataset = self.prepare_dataset()
            self.counts, self.terms = dataset.counts, self.make_terms()
            self.budget = self.make_budget(time.monotonic() - self.started)
            store = self.open_store(folder, dataset)
            if store.get("result") is not None:
                say(f"study {self.request.study} is finished already; this is its result")
                return dict(store.get("result"))
            mirror = self.start_mirror(folder)
            finished = self.search(store, engine, dataset)
            engine.stop()
            state = "FINISHED"
        except KeyboardInterrupt:
            state = "KILLED"
            raise
        finally:
            engine.stop()
            run_id = mirror.finish(state) if mirror else None
        return self.publish(store, finished, run_id)

    def prepare_dataset(self) -> Dataset:
        """Decode the images, or find them decoded; split them; say what cannot be used and what leaks."""
        source, options = self.source, self.options
        say(f"study {self.request.study}: {len(source):,} images, {len(source.classes)} classes")
        cache = open_cache(source, self.spec, self.workspace, options["cache_limit"], self.report_decoding)
        for item in cache.bad[:5]:
            say(f"  not used: {encodable(item.path)}: {item.code}, {item.detail}")
        if cache.bad:
            say(f"  {len(cache.bad)} unusable file(s) in all; they are listed in the study's bad_files.json")
        if source.empty_classes:
            say(f"  no images in {len(source.empty_classes)} class folder(s): {', '.join(source.empty_classes[:5])}")
        if cache.is_streamed:
            say("  too large for --cache-limit or the disk: images are decoded anew in every epoch, which is slower")
        dataset = split_dataset(source, cache, self.workspace, options["folds"], options["allow_leak"])
        pixels = " x ".join(map(str, dataset.spec.shape))
        counts = ", ".join(f"{number:,} {name}" for name, number in dataset.counts.items())
        folds = f", {options['folds']} folds of train + val" if options["folds"] else ""
        say(f"  {counts}{folds}; {pixels} pixels, {dataset.spec.dtype}")
        if num_leaked := int(dataset.leaked.sum()):
            say(
                f"  the given split leaks: {num_leaked:,} test image(s) have a copy in train or val; they are left out "
                "of\n  the test accuracy, and the accuracy with them is shown beside it"
            )
        if dataset.num_moved:
            say(f"  {dataset.num_moved} image(s) left the split they had: new near-duplicates, or a class without any")
        return dataset

    def report_decoding(self, done: int, total: int) -> None:
        """Say every few seconds how many images are decoded."""
        now = time.monotonic()
        if now - self.reported > REPORT_SECONDS:
            self.reported = now
            say(f"  decoded {done:,} of {total:,}")

    def open_store(self, folder: Path, dataset: Dataset) -> StudyStore:
        """Create the study, or open it and check that nothing its scores depend on has changed."""
        facts = setup.study_facts(self.request, dataset, self.space)
        store = StudyStore(folder / "study.db")
        if store.is_created():
            setup.check_unchanged(store, facts, dataset)
            store.put("options", self.options)
        else:
            setup.create_study(store, facts, self.options, dataset, self.budget)
        return store

    def start_mirror(self, folder: Path) -> BackgroundMirror:
        """Begin to show the study in MLflow, and end the runs there of studies that are dead.

        Raises:
            TrackingError: MLflow cannot be used; better known now than when the trials are done.
        """
        from pipeline.tracking.mirror import MlflowMirror
        from pipeline.tracking.registry import close_stale_runs
        from pipeline.tracking.store import check_store

        check_store(self.workspace)
        close_stale_runs(self.workspace, lambda study: is_alive(self.workspace, study))
        mirror = BackgroundMirror(MlflowMirror(StudyStore(folder / "study.db"), self.workspace), say)
        mirror.start()
        return mirror

    def search(self, store: StudyStore, engine: LocalEngine, dataset: Dataset) -> Finished:
        """Run the trials, the finalists and the winner."""
        before = float(store.get("elapsed") or 0.0)
        study = setup.make_study(
            store, self.terms, self.budget, self.request, lambda: before + time.monotonic() - self.started
        )
        if num_known := study.recover():
            say(f"  resumed with {num_known} trial(s)")
        engine.check()
        say(f"  {self.budget.epochs} epoch(s) a trial on {self.request.num_workers} process(es)")
        run_trials(study, engine, self.report)
        say("training the winner on train + validation, then opening the test split")
        return finish(study, engine, dataset)

    def report(self, outcome: TrialOutcome, row: TrialRow) -> None:
        """Say in one line what became of a task."""
        clock = format_seconds(time.monotonic() - self.started)
        values = f"{row.num_params:>9,} params  {outcome.seconds:5.1f} s"
        if outcome.score is not None:
            kind = "finalist" if outcome.rung else "trial"
            say(f"{clock:>7}  {kind} {row.number:>3}  val_accuracy {outcome.score:.4f}  {values}")
        else:
            say(f"{clock:>7}  trial {row.number:>3}  {outcome.state}: {outcome.reason}")

    def publish(self, store: StudyStore, finished: Finished, run_id: str | None) -> dict[str, Any]:
        """Log and register the model, and keep the result in the study.

        Raises:
            TrackingError: MLflow does not answer; the model is in the study's folder and the message says so.
        """
        from pipeline.tracking.registry import log_and_register
        from pipeline.tracking.store import open_client

        say("writing the model to MLflow")
        if run_id is None:
            raise TrackingError(
                f"study {self.request.study} is done and its model is in {finished.model_folder}, but MLflow cannot be "
                f"reached; when it can, run: {self.resume_command()}"
            )
        low, high = finished.test["ci95"]
        registered = log_and_register(
            open_client(self.workspace),
            self.workspace,
            run_id,
            finished.model_folder,
            safe_name(store.get("dataset")),
            metrics={
                "test/accuracy": finished.test["accuracy"],
                "test/ci95_low": low,
                "test/ci95_high": high,
                **leak_metrics(finished.test),
                "val_accuracy": finished.winner.score or 0.0,
                "model/params": finished.winner.num_params,
                "model/mflops": finished.winner.mflops,
            },
            step=finished.epochs,
            tags={"pipeline.study": self.request.study, "trial.number": str(finished.winner.number)},
        )
        facts = self.facts(store, finished, run_id, registered.model_uri)
        store.put("result", facts)
        return facts

    def facts(self, store: StudyStore, finished: Finished, run_id: str, model_uri: str) -> dict[str, Any]:
        """Return the result as `--json` prints it."""
        best = finished.winner
        return {
            "study": self.request.study,
            "run_id": run_id,
            "model_uri": model_uri,
            "winner": {
                "trial": best.number,
                "params": best.params,
                "val_accuracy": best.score,
                "num_params": best.num_params,
                "mflops": best.mflops,
                "epochs": finished.epochs,
            },
            "test": finished.test,
            "trials": count_states(store.trials()),
            "seconds": round(time.monotonic() - self.started, 1),
        }


def leak_metrics(test: dict[str, Any]) -> dict[str, float]:
    """Return what a leaking split adds to the metrics of the final run."""
    leaked = test.get("leaked")
    if leaked is None:
        return {}
    return {"test/accuracy_with_leaked": leaked["accuracy_with"], "test/num_leaked": leaked["num_images"]}


def safe_name(name: str) -> str:
    """Return a data set's name as it may stand in the name of a study: other characters become dashes."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip("-._")[:48]
    return safe or f"data-{sha256_json(os.fsencode(name).hex())[:8]}"
