"""Is the mean for an image and its mirror image a better answer? Validation images say so; limits may forbid it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.card import Ensemble, FlipAverage, num_networks
from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.models.measure import measure
from pipeline.records import Objective
from pipeline.search.jobs import TrainingJob
from pipeline.search.worker import validation
from pipeline.space import Builder
from pipeline.states import TrainingId
from pipeline.training.metrics import measure_logits


def choose(job: TrainingJob, ensemble: Ensemble | None, model: Any) -> FlipAverage:
    """Return whether the winner, trained as `model`, answers with the mean.

    That is judged by the winning trial, which did not train on the validation images.
    """
    if not job.spec.average_flips:
        return FlipAverage(False, "not asked for")
    found = _compare(job.folders.logits, validation.judged_trainings(job.chosen.winner, ensemble), job.spec.objective)
    if not found.is_kept:
        return found
    reason = _broken_limit(job, ensemble, model)
    return replace(found, is_kept=not reason, reason=reason)


def _compare(folder: Path, trainings: list[TrainingId], objective: str) -> FlipAverage:
    """Return whether the mean for mirror images is better, by the mean of the logits of some networks."""
    try:
        answers = validation.read_mean(folder, trainings)
    except NPZ_ERRORS:  # no cause to lose a winner
        answers = None
    if answers is None or answers.averaged is None:
        return FlipAverage(False, "the winner has no validation logits of mirror images")
    name = objective.removeprefix("val_")
    alone, averaged = (
        float(getattr(measure_logits(logits, answers.labels), name)) for logits in (answers.logits, answers.averaged)
    )
    if not (math.isfinite(alone) and math.isfinite(averaged)):
        return FlipAverage(False, f"{objective} is not defined on the validation images")
    is_better = Objective(objective).sign * (averaged - alone) > 0
    return FlipAverage(is_better, "" if is_better else "no better on the validation images", alone, averaged)


def _broken_limit(job: TrainingJob, ensemble: Ensemble | None, model: Any) -> str:
    """Return which limit of the study a network breaks that does twice the work; empty if none."""
    if broken := job.spec.limits.broken_by(mflops=2 * work(job, ensemble) / 1e6):
        return f"twice the work is {broken}"
    if job.spec.limits.max_latency_ms is not None:
        from pipeline.models.build import flip_averaged
        from pipeline.training.latency import measure_latency

        default_ms, one_core_ms = measure_latency(flip_averaged(model))
        latency_ms = default_ms if one_core_ms is None else one_core_ms  # where threads cannot be pinned
        if broken := job.spec.limits.broken_by(latency_ms=latency_ms):
            return f"it takes {broken}"
    return ""


def work(job: TrainingJob, ensemble: Ensemble | None) -> int:
    """Return the FLOPs in which the winner's network, or all of an ensemble, look at one image once."""
    spec = job.spec
    cost = measure(job.params, spec.image.shape, len(spec.classes), Builder.of(spec.space))
    return num_networks(ensemble) * cost.flops


def average_text(average: FlipAverage, objective: str) -> str:
    """Return in words whether images are labelled together with their mirror images, and why not."""
    if average.value is None:
        return f"not used: {average.reason}"
    change = f"{objective} {average.value:.4f}, without it {average.alone:.4f}"
    if average.is_kept:
        return f"each image is labelled by the mean for it and its mirror image: {change}; twice the work"
    return f"not used: {average.reason} ({change})"
