"""A search, from its request to the registered model."""

import os
import shutil
import time
from collections.abc import Callable

from pipeline.files import locked
from pipeline.machine import check_backend
from pipeline.search import planning
from pipeline.search.checkpoints import check_free_space
from pipeline.search.conclusion import result_of
from pipeline.search.engines.local import local_engine
from pipeline.search.finish import Finished
from pipeline.search.health import clean_disk_errors, forget_stop
from pipeline.search.result import SearchResult
from pipeline.search.storage.store import StudyStore
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.tracking.store import check_settings
from pipeline.workflows.beginning import known_result, open_store
from pipeline.workflows.images import prepare_images
from pipeline.workflows.plan import Plan, SearchRequest, make_plan
from pipeline.workflows.progress import NO_SIGNALS, SILENT, Progress, StopSignal
from pipeline.workflows.speed import measure_if_needed
from pipeline.workflows.sync import publish, start_mirror
from pipeline.workflows.trainings import train_all


def run(request: SearchRequest, progress: Progress = SILENT, stop: StopSignal = NO_SIGNALS) -> SearchResult:
    """Search, train the winner on train + validation, test it once, and register it.

    Raises:
        PipelineError: something to change in the request, the data or the machine; every finished trial is kept.
    """
    return run_plan(make_plan(request), progress, stop)


def run_plan(plan: Plan, progress: Progress = SILENT, stop: StopSignal = NO_SIGNALS) -> SearchResult:
    """Follow a plan that was made; after an interruption the children are gone and the study can be resumed."""
    with locked(plan.folder.lock, f"study {plan.study}"), clean_disk_errors(plan.folder.path):
        forget_stop(plan.folder)
        if plan.stored.get("result") is not None and plan.pick is None:
            return known_result(plan, progress)
        check_backend()
        check_settings(plan.request.workspace)
        check_free_space(plan.folder)
        finished, run_id = _train(plan, progress, stop)
        with StudyStore(plan.folder.database) as store:
            result = result_of(store, finished, time.monotonic() - plan.request.started)
            return publish(store, plan.request.workspace, run_id, result, progress)


def _train(plan: Plan, progress: Progress, stop: StopSignal) -> tuple[Finished, str | None]:
    """Train; return what the search ended with, and its run in MLflow.

    Whatever happens, the children end and MLflow shows the true state.
    """
    engine = local_engine(plan.resources, plan.folder.log)
    mirror = None
    state = "FAILED"
    try:
        if any(each.gpu for each in plan.resources):  # a child inherits it; JAX looks there before it compiles
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(plan.folder.compiled))
        engine.start()
        images = prepare_images(plan, progress)
        context = plan.context(images.dataset.spec, images.dataset.counts)
        speed = measure_if_needed(plan, engine, context, progress)
        context = context.starting_in(speed.start_seconds)
        engine.check()
        elapsed = time.monotonic() - plan.request.started
        if not plan.stored and plan.pick is None:
            planning.check_budget(context, plan.config, speed.factor, elapsed)
        budget = plan.budget(context, speed.factor, elapsed)
        with open_store(plan, images.dataset, budget, progress) as store:
            mirror = start_mirror(plan.folder, plan.request.workspace, progress.say)
            with stop.deferred():
                store.put("precision", speed.precision)
                store.put("allows_flips", images.allows_flips)
                estimates = TimeEstimates(context, budget, _clock(plan, store), probed=speed.factor)
                finished = train_all(plan, store, engine, estimates, progress, stop)
        state = "FINISHED"
        shutil.rmtree(plan.folder.compiled, ignore_errors=True)
    except KeyboardInterrupt:
        state = "KILLED"
        raise
    finally:
        engine.stop()
        run_id = mirror.finish(state, stop.seconds_left()) if mirror else None
    return finished, run_id


def _clock(plan: Plan, store: StudyStore) -> Callable[[], float]:
    """Return the function that says how many seconds of the budget are spent, those of earlier processes too."""
    before = float(store.get("elapsed") or 0.0)
    return lambda: before + time.monotonic() - plan.request.started
