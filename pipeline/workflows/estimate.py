"""What a search would do, for `--dry-run`: how many trials, how long each and the whole."""

import dataclasses
import math
from typing import Any

from pipeline.search.budget import (
    CLOSING_SECONDS,
    REDUCTION,
    STARTUP_SECONDS,
    Budget,
)
from pipeline.search.pace import Pace, Terms
from pipeline.workflows.plan import Plan


def describe_plan(plan: Plan, terms: Terms, budget: Budget, factor: float) -> dict[str, Any]:
    """Return the plan as JSON-able facts; `factor` corrects the estimates of seconds for this machine."""
    pace = Pace(terms, budget, lambda: 0.0, probed=factor)
    cost, size = terms.cost(terms.typical), plan.space.size()
    num_trials, seconds = estimate_whole(terms, budget, pace)
    return {
        "study": plan.request.study,
        "source": plan.source.origin,
        "images": plan.counts,
        "classes": list(plan.source.classes),
        "is_multi_label": plan.source.is_multi_label,
        "image": dataclasses.asdict(plan.spec),
        "space": plan.options.space,
        "params": plan.space.names(),
        "space_size": None if math.isinf(size) else size,
        "oracle": plan.request.oracle,
        "objective": plan.request.objective.name,
        "minimise": plan.request.objective.minimise,
        "seed": plan.request.seed,
        "workers": terms.workforce.num_workers,
        "threads": terms.workforce.num_threads,
        "budget_seconds": budget.total if budget.is_timed else None,
        "trials": num_trials,
        "seconds": round(seconds),
        "epochs": [round(rung / terms.num_images, 3) for rung in budget.rungs],
        "trial_seconds": [round(pace.training_seconds(terms.typical, rung), 1) for rung in budget.rungs],
        "default": {"params": terms.typical, "num_params": cost.num_params, "mflops": cost.mflops},
        "command": plan.start_command(),
    }


def estimate_whole(terms: Terms, budget: Budget, pace: Pace) -> tuple[int, float]:
    """Return how many configurations will be tried, and in how many seconds the whole job is done."""
    rungs = [pace.training_seconds(terms.typical, rung) for rung in budget.rungs]
    # One in REDUCTION goes on from each rung; one at least reaches the last.
    per_trial = sum(seconds / REDUCTION**index for index, seconds in enumerate(rungs))
    workers = terms.workforce.num_workers
    limits = [budget.max_trials or math.inf, terms.space.size()]
    if budget.is_timed:
        available = (budget.search_until - STARTUP_SECONDS) * workers
        limits.append(max(1.0, (available - sum(rungs[1:])) / per_trial + 1))
    num_trials = int(min(limits)) if not math.isinf(min(limits)) else 0
    if budget.is_timed and num_trials == int(limits[-1]):
        return num_trials, budget.total
    climb = sum(
        seconds * max(0.0, 1 - num_trials / REDUCTION ** (index + 1)) for index, seconds in enumerate(rungs[1:])
    )
    stretch = budget.final_stretch if budget.is_timed else 1.0
    final = pace.final_seconds(terms.typical, round(stretch * budget.rungs[-1]))
    busy = num_trials * per_trial / workers + climb
    return num_trials, STARTUP_SECONDS + busy + final + CLOSING_SECONDS
