"""The steps of `pipeline search` in order, while it holds the study; imported only when the command runs."""

import contextlib
import dataclasses
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from pipeline.cli.terminal.interruptions import Interruptions
from pipeline.cli.terminal.output import say
from pipeline.cli.terminal.progress import Follower
from pipeline.data.cache import open_cache
from pipeline.data.dataset import Dataset, split_dataset
from pipeline.data.source import encodable
from pipeline.errors import TrackingError
from pipeline.files import locked
from pipeline.machine import Resources, check_backend, has_bfloat16, num_cores
from pipeline.records import TrialRow
from pipeline.search import setup
from pipeline.search.baseline import is_trained, train_baseline
from pipeline.search.budget import PROBE_FACTOR, RESTART_SECONDS, SECONDS_PER_TRIAL, Budget
from pipeline.search.checkpoints import check_free_space
from pipeline.search.distillation import distil, distillation_text
from pipeline.search.engine import LocalEngine
from pipeline.search.ensemble import choose_networks, ensemble_text
from pipeline.search.finished import result_of, times_opened
from pipeline.search.fork import fork_study
from pipeline.search.health import clean_disk_errors, forget_stop
from pipeline.search.job import (
    Finished,
    chosen,
    finish,
    pick_trial,
    run_trials,
)
from pipeline.search.mirroring import BackgroundMirror
from pipeline.search.pace import Pace, Terms
from pipeline.search.probe import Speed, measure_speed
from pipeline.search.result import SearchResult
from pipeline.search.spaces import FOR_CPU, FOR_GPU
from pipeline.search.store import StudyStore
from pipeline.search.study import Study
from pipeline.tracking.store import check_settings
from pipeline.workflows.plan import Plan
from pipeline.workflows.sync import register_result, start_mirror

REPORT_SECONDS = 5.0
PROBE_TIMEOUT = 60.0


class Search:
    """One call of `pipeline search`, from the plan to the registered model."""

    def __init__(self, plan: Plan, pick: str | None = None) -> None:
        self.plan = plan
        self.pick = pick  # a trial, or "knee", to be trained and registered instead of a search
        self.request = plan.request
        self.started = plan.call.started
        self.reported = plan.call.started
        self.precision = "float32"
        self.start_seconds = SECONDS_PER_TRIAL
        self.allows_flips = True

    def estimate(self) -> dict[str, Any]:
        """Return the plan as JSON-able facts, by a few steps that a child trains now; nothing is kept."""
        from tempfile import TemporaryDirectory

        from pipeline.workflows.estimate import describe_plan

        check_backend()
        say("measuring this machine with some steps of a typical network ...")
        with TemporaryDirectory() as folder:
            os.environ |= {"KERAS_HOME": folder, "MPLCONFIGDIR": folder}  # nothing is written to the workspace
            engine = LocalEngine(self.plan.resources, Path(folder) / "log")
            terms = self.plan.terms(self.plan.spec, self.plan.counts)
            try:
                engine.start()
                factor = self.probe(engine, terms)
                terms = terms.starting_in(self.start_seconds)
            finally:
                engine.stop()
        return describe_plan(self.plan, terms, self.make_budget(terms, factor, 0.0), factor)

    def run(self, stop: Interruptions) -> SearchResult:
        """Search and return the result; after an interruption the children are gone and the study can be resumed."""
        folder = self.plan.folder
        with locked(folder.lock, f"study {self.request.study}"), clean_disk_errors(folder.path):
            return self.run_locked(stop)

    def run_locked(self, stop: Interruptions) -> SearchResult:
        """Search while holding the study's lock; whatever happens, the children end and MLflow shows the true state."""
        plan = self.plan
        forget_stop(plan.folder)
        if plan.stored.get("result") is not None and self.pick is None:
            return self.known_result()
        check_backend()
        check_settings(plan.call.workspace)
        check_free_space(plan.folder)
        engine = LocalEngine(plan.resources, plan.folder.log)
        mirror: BackgroundMirror | None = None
        state = "FAILED"
        try:
            if any(each.gpu for each in plan.resources):  # a child inherits it; JAX looks there before it compiles
                os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(plan.folder.compiled))
            engine.start()
            dataset = self.prepare_dataset()
            terms = plan.terms(dataset.spec, dataset.counts)
            factor = self.probe_if_needed(engine, terms)
            terms = terms.starting_in(self.start_seconds)
            engine.check()
            budget = self.make_budget(terms, factor, time.monotonic() - self.started)
            with self.open_store(dataset, budget) as store:
                mirror = start_mirror(plan.folder, plan.call.workspace, say)
                with stop.deferred():
                    pace = Pace(terms, budget, self.clock(store), probed=factor)
                    finished = self.search(store, engine, pace, stop)
            state = "FINISHED"
            shutil.rmtree(plan.folder.compiled, ignore_errors=True)
        except KeyboardInterrupt:
            state = "KILLED"
            raise
        finally:
            engine.stop()
            run_id = mirror.finish(state, stop.seconds_left()) if mirror else None
        with StudyStore(plan.folder.database) as store:
            return self.publish(store, finished, run_id)

    def known_result(self) -> SearchResult:
        """Return the result of a finished study, if nothing that it depends on has changed."""
        dataset = self.prepare_dataset()
        self.open_store(dataset, self.make_budget(self.plan.terms(dataset.spec, dataset.counts), 1.0, 0.0)).close()
        say(f"study {self.request.study} is finished already; this is its result")
        with StudyStore(self.plan.folder.database, is_read_only=True) as store:
            result = dataclasses.replace(store.result(), test_opened=times_opened(store))
        if result.run_id is None:
            say(f"its model is not in MLflow yet: pipeline sync {self.request.study}")
        return result

    def clock(self, store: StudyStore) -> Any:
        """Return the function that says how many seconds of the budget are spent, those of earlier processes too."""
        before = float(store.get("elapsed") or 0.0)
        return lambda: before + time.monotonic() - self.started

    def probe_if_needed(self, engine: LocalEngine, terms: Terms) -> float:
        """Return what `probe` does; 1 where there is no time to divide and no precision to choose, and none is lost."""
        wanted = self.wanted_precision()
        if self.make_budget(terms, 1.0, 0.0).is_timed or (wanted == "auto" and has_bfloat16()):
            return self.probe(engine, terms)
        self.precision = "float32" if wanted == "auto" else wanted
        return 1.0

    def probe(self, engine: LocalEngine, terms: Terms) -> float:
        """Return by what estimates of seconds have to be multiplied, 1 if a child cannot say.

        Note the precision, and how long a training takes to start. Each child begins as soon as it is warm.
        """
        spec = dataclasses.asdict(self.plan.spec)
        arguments = (terms.typical, spec, terms.num_classes, terms.space.builder, self.wanted_precision())
        futures = engine.probe(measure_speed, *arguments)
        engine.check()
        speeds: list[Speed] = []
        for future in futures:
            try:
                speeds.append(future.result(PROBE_TIMEOUT))
            except Exception as error:  # noqa: BLE001  border: a network that cannot train is the first trial's news
                say(f"  the speed of this machine was not measured: {error}", level=1)
        if speeds and len({speed.precision for speed in speeds}) == 1:
            self.precision = speeds[0].precision
        if terms.workforce.has_gpus:  # elsewhere it is a second or two, and less when a child has done it once
            self.start_seconds = max(SECONDS_PER_TRIAL, *(speed.start_seconds for speed in speeds), 0.0)
        samples = 1000
        estimate = terms.estimate(terms.typical, samples) / samples
        seconds = [speed.sample_seconds for speed in speeds]
        return PROBE_FACTOR * sum(seconds) / len(seconds) / estimate if seconds else 1.0

    def wanted_precision(self) -> str:
        """Return what --precision says; auto is the precision that a study began in: checkpoints serve no other.

        What is chosen by speed may be another the next time, and so are the bits: not with --deterministic.
        """
        options, begun = self.plan.options, self.plan.stored.get("precision")
        if options.precision != "auto":
            return str(options.precision)
        return str(begun or ("float32" if options.deterministic else "auto"))

    def make_budget(self, terms: Terms, factor: float, elapsed: float) -> Budget:
        """Return how the time is divided when `elapsed` seconds are gone; a resumed study keeps its rungs."""
        stored = self.plan.stored or self.plan.parent
        before = float(self.plan.stored.get("elapsed") or 0.0)
        budget = setup.make_budget(terms, self.request, factor, before + elapsed)
        rungs = stored.get("rungs")
        if self.pick is not None:  # it trains as long as the winner of a search without a time limit
            budget = dataclasses.replace(budget, total=math.inf, search_until=math.inf, end=math.inf)
        return budget if rungs is None else dataclasses.replace(budget, rungs=tuple(rungs))

    def prepare_dataset(self) -> Dataset:
        """Decode the images, or find them decoded; split them; say what cannot be used and what leaks."""
        source, options = self.plan.source, self.plan.options
        several = ", several labels an image" if source.is_multi_label else ""
        say(f"study {self.request.study}: {len(source):,} images, {len(source.classes)} classes{several}")
        workspace = self.plan.call.workspace
        cache = open_cache(source, self.plan.spec, workspace, options.cache_limit, self.report_decoding)
        for item in cache.bad[:5]:
            say(f"  not used: {encodable(item.path)}: {item.code}, {item.detail}")
        if cache.bad:
            say(f"  {len(cache.bad)} unusable file(s) in all; they are listed in the study's bad_files.json")
        if source.empty_classes:
            say(f"  no images in {len(source.empty_classes)} class folder(s): {', '.join(source.empty_classes[:5])}")
        if cache.is_streamed:
            say("  too large for --cache-limit or the disk: images are decoded anew in every epoch, which is slower")
        dataset = split_dataset(source, cache, workspace, options.folds, options.allow_leak)
        pixels = " x ".join(map(str, dataset.spec.shape))
        counts = ", ".join(f"{number:,} {name}" for name, number in dataset.counts.items())
        folds = f", {options.folds} folds of train + val" if options.folds else ""
        say(f"  {counts}{folds}; {pixels} pixels, {dataset.spec.dtype}")
        if num_leaked := int(dataset.leaked.sum()):
            say(
                f"  the given split leaks: {num_leaked:,} test image(s) have a copy in train or val; they are left out "
                "of\n  the test accuracy, and the accuracy with them is shown beside it"
            )
        if options.augment == "auto":
            flips = dataset.check_flips()
            self.allows_flips = flips.keeps_class
            say(f"  {flips.described()}")
        if dataset.num_moved:
            say(f"  {dataset.num_moved} image(s) left the split they had: new near-duplicates, or a class without any")
        return dataset

    def report_decoding(self, done: int, total: int) -> None:
        """Say every few seconds how many images are decoded."""
        now = time.monotonic()
        if now - self.reported > REPORT_SECONDS:
            self.reported = now
            say(f"  decoded {done:,} of {total:,}")

    def open_store(self, dataset: Dataset, budget: Budget) -> StudyStore:
        """Create the study, or open it and check that nothing its scores depend on has changed."""
        plan = self.plan
        facts = setup.study_spec(self.request, dataset, plan.space).facts()
        with contextlib.ExitStack() as on_failure:
            store = on_failure.enter_context(StudyStore(plan.folder.database))
            if store.is_created():
                setup.check_unchanged(store, facts, dataset)
                store.put("options", dataclasses.asdict(plan.options))
                if version := setup.note_version(store):
                    say(f"  warning: version {version} of pipeline worked on this study last; its trials are kept")
            else:
                if plan.parent:
                    facts["forked_from"] = plan.parent["study"]
                setup.create_study(store, facts, dataclasses.asdict(plan.options), dataset, budget)
            if store.get("forked_from") is not None and store.get("takeover") is None:
                say(f"  {fork_study(store, plan.space, plan.call.workspace)}")
            on_failure.pop_all()
        return store

    def search(self, store: StudyStore, engine: LocalEngine, pace: Pace, stop: Interruptions) -> Finished:
        """Run the trials and the winner."""
        store.put("precision", self.precision)
        store.put("allows_flips", self.allows_flips)
        study = setup.make_study(store, self.request, pace)
        if study.rows:
            say(f"  resumed with {len(study.rows)} trial(s)")
        follower = Follower(study, pace.elapsed, stop)
        with follower:
            if self.pick is not None:
                picked = study.rows[pick_trial(store, self.pick).number]
                say(f"training trial {picked.number} on train + validation, then opening the test split")
                return self.finish(study, engine, follower, picked)
            self.announce(study)
            if not store.has_final_model():
                run_trials(study, engine, follower, self.goal())
            return self.finish(study, engine, follower)

    def announce(self, study: Study) -> None:
        """Say what is ranked, and how trials are trained."""
        objective, reason = study.objective, self.plan.objective_reason
        cost = f", against {objective.minimise}" if objective.minimise else ""
        if self.plan.options.space == FOR_GPU and "space" not in self.plan.call.given:
            say(f"  space {FOR_GPU}, as there is a GPU: wide networks, large batches (--space {FOR_CPU}: narrower)")
        say(f"  objective {objective.name}{cost}{f' ({reason})' if reason else ''}")
        if self.request.balance:
            what = "its absence" if self.plan.source.is_multi_label else "a common one"
            say(f"  a rare class counts as much as {what} in training (--balance none: by their numbers)")
        rungs = " / ".join(f"{rung / study.terms.num_images:.3g}" for rung in study.budget.rungs)
        force = study.terms.workforce
        gpus = {each.gpu for each in self.plan.resources if each.gpu}
        say(
            f"  {self.request.oracle}: rungs of {rungs} epoch(s); {force.num_workers} process(es) of "
            f"{force.num_threads} thread(s){f' on {len(gpus)} GPU(s)' if gpus else ''}, {self.precision}"
        )

    def finish(
        self, study: Study, engine: LocalEngine, follower: Follower, picked: TrialRow | None = None
    ) -> Finished:  # fmt: skip
        """Train the winner, in a process that has the whole machine if that is worth its start."""
        best = picked or study.leader
        if best is None or len(self.plan.resources) == 1 or study.pace.final_gain(best) < RESTART_SECONDS:
            return self.train_last(study, engine, follower, picked)
        engine.stop()
        first = self.plan.resources[0]
        memory_mb = sum(each.memory_mb for each in self.plan.resources)
        whole = Resources(num_cores(), gpu=first.gpu, memory_mb=memory_mb)
        alone = LocalEngine([whole], self.plan.folder.log)
        try:
            alone.start()
            return self.train_last(study, alone, follower, picked)
        finally:
            alone.stop()

    def train_last(
        self, study: Study, engine: LocalEngine, follower: Follower, picked: TrialRow | None
    ) -> Finished:  # fmt: skip
        """Train the default network and the winner; a trial that was picked meets the default network of the search."""
        best = picked or chosen(study)
        if best is None or (picked is None and study.store.has_final_model()):
            return finish(study, engine, follower, picked)
        if self.plan.options.distill:
            say("can the winner learn from a better trial?")
            distillation = distil(study, engine, follower, best)
            say(f"  {distillation_text(distillation, study.objective.name)}")
        if picked is None:
            if not is_trained(study.store):
                say("training the default network beside the winner, on train + validation")
            if reason := train_baseline(study, engine, follower, best):
                say(f"  not trained: {reason}")
        if self.plan.options.ensemble:
            say("is the mean of several networks like the winner's better than one?")
            ensemble = choose_networks(study, engine, follower, best)
            say(f"  {ensemble_text(ensemble, study.objective.name)}")
        if picked is None:
            say("training the winner on train + validation, then opening the test split")
        return finish(study, engine, follower, picked)

    def goal(self) -> float | None:
        """Return the value of the objective at which the search stops."""
        return None if self.plan.options.goal is None else self.plan.options.goal[1]

    def publish(self, store: StudyStore, finished: Finished, run_id: str | None) -> SearchResult:
        """Keep the result in the study, then register the model; without MLflow `pipeline sync` does that later."""
        result = result_of(store, finished, time.monotonic() - self.started)
        store.put("result", result.to_json())
        if run_id is not None:
            say("writing the model to MLflow")
            try:
                result = register_result(store, self.plan.call.workspace, run_id)
            except TrackingError as error:
                say(f"the model is not registered yet: {error}")
        return result
