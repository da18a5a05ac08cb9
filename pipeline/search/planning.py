"""What a search plans before its first trial: what is fixed for the study, and how its time is divided."""

import math
import random
from dataclasses import replace

from pipeline.errors import InvalidUsage, SpaceError
from pipeline.machine import Resources, num_cores
from pipeline.models.cost import ImpossibleNetwork
from pipeline.records import ImageSpec, Params
from pipeline.search.finalists.baseline import baseline_params
from pipeline.search.setup import SearchConfig
from pipeline.search.spaces.loader import FOR_GPU, default_space
from pipeline.search.timing.budget import (
    MIN_PASSES,
    STARTUP_SECONDS,
    Budget,
    BudgetRequest,
    Parallelism,
    least_seconds,
    plan_budget,
)
from pipeline.search.timing.estimates import StudyContext
from pipeline.space import SearchSpace

_NUM_TRIED = 300  # random configurations, before a space is said to hold no possible network
_FINAL_SCALING = 0.3  # a training on n times the cores is n^0.3 times as fast: 1.23 on 2. Measured 1.07 to 1.8
# (benchmarks/README.md): a winner that ends early loses little, one that is cut off the fall of its learning rate


def make_parallelism(resources: list[Resources]) -> Parallelism:
    """Return who trains: the winner's last training gets all cores, or one whole GPU."""
    num_threads = resources[0].num_threads
    if resources[0].gpu:
        return Parallelism(len(resources), num_threads, has_gpus=True)
    return Parallelism(len(resources), num_threads, max(1.0, num_cores() / num_threads) ** _FINAL_SCALING)


def make_context(
    space: SearchSpace, spec: ImageSpec, num_classes: int, counts: dict[str, int], config: SearchConfig,
    parallelism: Parallelism,
) -> StudyContext:  # fmt: skip
    """Return what is fixed for a study; a grid begins where its order does, not with a portfolio.

    With folds, an epoch of a trial is one pass for each fold over the images that do not test in it.
    """
    num_final_images = counts["train"] + counts["val"]
    context = StudyContext(
        space=space,
        image_shape=spec.shape,
        num_classes=num_classes,
        num_images=num_final_images * (config.num_folds - 1) if config.num_folds else counts["train"],
        num_final_images=num_final_images,
        num_test_images=counts["test"],
        seed=config.seed,
        typical={},
        parallelism=parallelism,
        limits=config.limits,
    )
    typical = _typical_params(context)
    strong = [space.defaults(), *(dict(params) for _, params in space.portfolio)]
    first = {"grid": [], "asha": strong, "tpe": strong}.get(config.oracle, strong[:1])
    portfolio = [params for i, params in enumerate(first) if params not in first[:i] and context.is_feasible(params)]
    is_for_gpu = default_space(spec.shape, counts["train"], parallelism.has_gpus) == FOR_GPU
    baseline = baseline_params(spec.shape, num_classes, is_for_gpu)
    return replace(context, typical=typical, portfolio=tuple(portfolio), baseline=baseline)


def _typical_params(context: StudyContext) -> Params:
    """Return the default configuration if it can be built for these images, else one of the space that can.

    Raises:
        SpaceError: none of _NUM_TRIED configurations can, or none is within the limits.
    """
    rng = random.Random(0)
    tried = [context.space.defaults(), *(context.space.sample(rng) for _ in range(_NUM_TRIED))]
    reason = ""
    for params in tried:
        try:
            cost = context.cost(params)
        except ImpossibleNetwork as error:
            reason = reason or str(error)
        else:
            broken = context.limits.broken_by(cost.num_params, cost.mflops)
            if not broken:
                return params
            reason = broken
    height, width, _ = context.image_shape
    raise SpaceError(
        f"{context.space.source}: no network of this space fits images of {height} x {width} pixels and the limits "
        f"({reason}); expected at least one; allow a smaller depth or fewer filters, larger images with --image-size, "
        "or looser limits"
    )


def make_budget(context: StudyContext, config: SearchConfig, factor: float = 1.0, elapsed: float = 0.0) -> Budget:
    """Return how the budget is divided when `elapsed` seconds of it are gone; `factor` corrects the estimates.

    Nothing is kept for several networks where two would have no time to train for long.
    """
    asked = _budget_request(context, config, factor, elapsed or STARTUP_SECONDS)
    budget = plan_budget(asked)
    passes_of_two = budget.final_epochs_factor / 2 * budget.rungs[-1] / context.num_images
    is_too_short = config.ensembles and passes_of_two < MIN_PASSES
    return plan_budget(replace(asked, has_ensemble=False)) if is_too_short else budget


def _budget_request(context: StudyContext, config: SearchConfig, factor: float, start: float) -> BudgetRequest:
    """Return what a search is to do in which time, if trials begin at `start`."""
    samples = 1000
    return BudgetRequest(
        seconds=config.budget_seconds,
        max_trials=config.max_trials,
        num_epochs=config.num_epochs,
        sample_seconds=factor * context.estimate(context.typical, samples) / samples,
        num_images=context.num_images,
        has_rungs=config.oracle == "asha",
        parallelism=context.parallelism,
        start=start,
        has_baseline=context.baseline is not None,
        has_student=config.distills,
        has_ensemble=config.ensembles,
    )


def check_budget(context: StudyContext, config: SearchConfig, factor: float, elapsed: float) -> None:
    """Refuse a budget in which a new search, begun `elapsed` seconds ago, could not train a network to the end.

    Before it has begun, its start is estimated.

    Raises:
        InvalidUsage: the message names the shortest one that can work.
    """
    start = elapsed or STARTUP_SECONDS
    asked = _budget_request(context, config, factor, start)
    total, least = plan_budget(asked).total, least_seconds(asked)
    if least > total:
        raise InvalidUsage(
            f"--budget {total:.0f}s is too short: here it takes {start:.0f} s until the first trial can begin, and "
            f"some {least - start:.0f} s for one trial, the last training, its test and the model; give it "
            f"{5 * math.ceil(least / 5)}s or more"
        )
