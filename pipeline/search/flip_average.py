"""Is the mean for an image and its mirror image a better answer? Validation images say so; limits may forbid it."""

import math
from typing import Any

from pipeline.data.arrays import NPZ_ERRORS
from pipeline.models.measure import measure
from pipeline.records import ImageSpec, Objective, TrialTask, num_networks
from pipeline.search import validation
from pipeline.space import Builder
from pipeline.states import TrainingId
from pipeline.training.metrics import measure_logits
from pipeline.workspace import StudyFolder


def choose(task: TrialTask, facts: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return whether the winner, trained as `model`, answers with the mean: `is_kept`, and if not the `reason`.

    `alone` and `averaged` are the objective on the validation images, by the winning trial, which did not train on
    them; they are there where its logits are.
    """
    if not validation.averages_flips(facts):
        return {"is_kept": False, "reason": "not asked for"}
    found = compare(task.folder, validation.judged_trainings(facts), facts["objective"])
    if not found["reason"]:
        found["reason"] = broken_limit(task, facts, model)
    return {**found, "is_kept": not found["reason"]}


def compare(folder: StudyFolder, trainings: list[TrainingId], objective: str) -> dict[str, Any]:
    """Return the objective of networks' mean `alone` and `averaged`, and the `reason` if averaging is no gain."""
    try:
        said = validation.read_mean(folder, trainings)
    except NPZ_ERRORS:  # no cause to lose a winner
        said = None
    if said is None or said.averaged is None:
        return {"reason": "the winner has no validation logits of mirror images"}
    name = objective.removeprefix("val_")
    alone, averaged = (
        float(getattr(measure_logits(logits, said.labels), name)) for logits in (said.logits, said.averaged)
    )
    if not (math.isfinite(alone) and math.isfinite(averaged)):
        return {"reason": f"{objective} is not defined on the validation images"}
    is_better = Objective(objective).sign * (averaged - alone) > 0
    return {"alone": alone, "averaged": averaged, "reason": "" if is_better else "no better on the validation images"}


def broken_limit(task: TrialTask, facts: dict[str, Any], model: Any) -> str:
    """Return which limit of the study a network breaks that does twice the work; empty if none."""
    limits = facts.get("limits") or {}
    if (most := limits.get("max_mflops")) is not None:
        mflops = 2 * work(task, facts) / 1e6
        if mflops > most:
            return f"twice the work is {mflops:,.6g} MFLOPs, more than {most:,.6g}"
    if (most := limits.get("max_latency_ms")) is not None:
        from pipeline.models.build import flip_averaged
        from pipeline.training.latency import measure_latency

        default_ms, one_core_ms = measure_latency(flip_averaged(model))
        latency_ms = default_ms if one_core_ms is None else one_core_ms  # where threads cannot be pinned
        if latency_ms > most:
            return f"it takes {latency_ms:.2f} ms for one image on one core, more than {most:g}"
    return ""


def work(task: TrialTask, facts: dict[str, Any]) -> int:
    """Return the FLOPs in which the winner's network, or all of an ensemble, look at one image once."""
    shape, builder = ImageSpec(**facts["image"]).shape, Builder.of(facts["space"])
    return num_networks(facts) * measure(task.params, shape, len(facts["classes"]), builder).flops


def average_text(average: dict[str, Any], objective: str) -> str:
    """Return in words whether images are labelled together with their mirror images, and why not."""
    if "alone" not in average:
        return f"not used: {average['reason']}"
    change = f"{objective} {average['averaged']:.4f}, without it {average['alone']:.4f}"
    if average["is_kept"]:
        return f"each image is labelled by the mean for it and its mirror image: {change}; twice the work"
    return f"not used: {average['reason']} ({change})"
