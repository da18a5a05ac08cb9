"""What a search would do, for `--dry-run`: how many trials, how long each and the whole."""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.machine import check_backend
from pipeline.records import ImageSpec, Params
from pipeline.search import planning
from pipeline.search.engines.local import local_engine
from pipeline.search.timing.budget import CLOSING_SECONDS, REDUCTION, STARTUP_SECONDS, Budget
from pipeline.search.timing.estimates import StudyContext, TimeEstimates
from pipeline.workflows.plan import Plan, SearchRequest, make_plan
from pipeline.workflows.progress import SILENT, Progress
from pipeline.workflows.speed import measure


@dataclass(frozen=True)
class DefaultNetwork:
    """The configuration by which time is estimated, and what its network costs."""

    params: Params
    num_params: int
    mflops: float


@dataclass(frozen=True)
class SearchEstimate:
    """What a search would do.

    `images` counts those of each split. `space_size` is None where it is infinite, `budget_seconds` without a time
    limit; `seconds` is the whole job, `trial_seconds` a training of each rung, `epochs` how long each is.
    """

    study: str
    source: str
    images: dict[str, int]
    classes: tuple[str, ...]
    is_multi_label: bool
    image: ImageSpec
    space: str | None
    params: tuple[str, ...]
    space_size: float | None
    oracle: str
    objective: str
    minimise: str | None
    seed: int
    workers: int
    threads: int
    budget_seconds: float | None
    trials: int
    seconds: int
    epochs: tuple[float, ...]
    trial_seconds: tuple[float, ...]
    default: DefaultNetwork
    command: str

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def run(request: SearchRequest, progress: Progress = SILENT) -> SearchEstimate:
    """Plan a search, and let a child train a few steps now; nothing is kept.

    Raises:
        PipelineError: the search would be refused.
    """
    plan = make_plan(request)
    check_backend()
    progress.say("measuring this machine with a few training steps of a typical network ...")
    with TemporaryDirectory() as folder:
        os.environ |= {"KERAS_HOME": folder, "MPLCONFIGDIR": folder}  # nothing is written to the workspace
        engine = local_engine(plan.resources, Path(folder) / "log")
        context = plan.context(plan.spec, plan.counts)
        try:
            engine.start()
            speed = measure(plan, engine, context, progress)
        finally:
            engine.stop()
    context = context.starting_in(speed.start_seconds)
    if not plan.stored:
        planning.check_budget(context, plan.config, speed.factor, 0.0)
    return _describe(plan, context, plan.budget(context, speed.factor, 0.0), speed.factor)


def _describe(plan: Plan, context: StudyContext, budget: Budget, factor: float) -> SearchEstimate:
    estimates = TimeEstimates(context, budget, lambda: 0.0, probed=factor)
    cost, size = context.cost(context.typical), plan.space.size()
    num_trials, seconds = _estimate_whole(context, budget, estimates)
    config = plan.config
    return SearchEstimate(
        study=config.study,
        source=plan.source.origin,
        images=plan.counts,
        classes=tuple(plan.source.classes),
        is_multi_label=plan.source.is_multi_label,
        image=plan.spec,
        space=plan.options.space,
        params=tuple(plan.space.names()),
        space_size=None if math.isinf(size) else size,
        oracle=config.oracle,
        objective=config.objective.name,
        minimise=config.objective.minimise,
        seed=config.seed,
        workers=context.parallelism.num_workers,
        threads=context.parallelism.num_threads,
        budget_seconds=budget.total if budget.is_timed else None,
        trials=num_trials,
        seconds=round(seconds),
        epochs=tuple(round(rung / context.num_images, 3) for rung in budget.rungs),
        trial_seconds=tuple(round(estimates.training_seconds(context.typical, rung), 1) for rung in budget.rungs),
        default=DefaultNetwork(context.typical, cost.num_params, cost.mflops),
        command=plan.start_command(),
    )


def _estimate_whole(context: StudyContext, budget: Budget, estimates: TimeEstimates) -> tuple[int, float]:
    """Return how many configurations will be tried, and in how many seconds the whole job is done."""
    rungs = [estimates.training_seconds(context.typical, rung) for rung in budget.rungs]
    # One in REDUCTION goes on from each rung; one at least reaches the last.
    per_trial = sum(seconds / REDUCTION**index for index, seconds in enumerate(rungs))
    workers = context.parallelism.num_workers
    limits = [budget.max_trials or math.inf, context.space.size()]
    if budget.is_timed:
        available = (budget.search_until - STARTUP_SECONDS) * workers
        limits.append(max(1.0, (available - sum(rungs[1:])) / per_trial + 1))
    num_trials = int(min(limits)) if not math.isinf(min(limits)) else 0
    if budget.is_timed and num_trials == int(limits[-1]):
        return num_trials, budget.total
    climb = sum(
        seconds * max(0.0, 1 - num_trials / REDUCTION ** (index + 1)) for index, seconds in enumerate(rungs[1:])
    )
    factor = budget.final_epochs_factor if budget.is_timed else 1.0
    final = estimates.final_seconds(context.typical, round(factor * budget.rungs[-1]))
    busy = num_trials * per_trial / workers + climb
    return num_trials, STARTUP_SECONDS + busy + final + CLOSING_SECONDS
