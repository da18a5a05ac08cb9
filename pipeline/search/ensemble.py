"""Is the mean of several networks like the winner's a better answer than one? Validation images decide.

The networks differ by their seeds alone: by the weights they begin with and the order of the images. The winner's trial
left what one says of the validation images; its network is trained once more as its trial was, a twin, and the mean of
both is compared with one. What answers trains anew in the last training: see `networks`.
"""

import math
from typing import Any

from pipeline.crashpoints import crashpoint
from pipeline.data.arrays import NPZ_ERRORS
from pipeline.models.cost import Cost
from pipeline.records import TrialOutcome, TrialRow, TrialTask
from pipeline.search import validation
from pipeline.search.budget import MAX_STRETCH, MIN_PASSES
from pipeline.search.job import Audience, Engine, settle, train_to_end
from pipeline.search.pace import Limits, Pace
from pipeline.search.study import Study
from pipeline.states import AttemptState, TrainingId, TrainingKind
from pipeline.training.metrics import measure_logits
from pipeline.workspace import StudyFolder

SECOND_SEED = TrainingKind.SECOND_SEED
MAX_NETWORKS = 3
FAILURES = (AttemptState.DIED, AttemptState.FAILED, AttemptState.INFEASIBLE, AttemptState.TIMEOUT)
LEAST_GAIN = 1e-9  # less is the rounding of a mean


def choose_networks(study: Study, engine: Engine, audience: Audience, best: TrialRow) -> dict[str, Any]:
    """Return whether several networks like that of the winner `best` answer, and keep that in the study as `ensemble`.

    `num_networks` are how many, `samples` the images that each sees in the last training. `alone` is the objective on
    the validation images of one, the mean of the winner's trial and its twin, `averaged` that of the mean of both.
    `is_kept` tells what is done, and if it is not, `reason` why. A last training that goes on keeps what it began with.

    Raises:
        StoppedEarly, KeyboardInterrupt: the search is to end; the training of the twin goes on with --resume.
    """
    found: dict[str, Any] = study.store.get("ensemble") or {}
    if found.get("winner") != best.number:
        found = {}
    last = study.last_state(TrainingKind.FINAL)
    if found.get("is_kept") and last in FAILURES:
        found["reason"] = f"the last training of {found['num_networks']} networks ended as {last}"
    elif not (found and last == AttemptState.STOPPED):
        found = decide(study, engine, audience, best, found)
    found |= {"winner": best.number, "is_kept": not found["reason"]}
    study.store.put_later("ensemble", found)
    study.store.save()
    return found


def decide(study: Study, engine: Engine, audience: Audience, best: TrialRow, known: dict[str, Any]) -> dict[str, Any]:
    """Return how many networks answer and what two reach together, or the `reason` why the winner answers alone.

    What is `known` of the twin is not measured again.
    """
    names = ("alone", "averaged")
    values: dict[str, float] = {name: known[name] for name in names if name in known}
    reason = obstacle(study, best, has_twin=bool(values))
    if not (reason or values):
        outcome, task = train_to_end(study, engine, lambda: begin(study, best), audience)
        crashpoint("twin-trained")
        values, reason = close(study, best, outcome, task)
    if not reason and study.objective.sign * (values["averaged"] - values["alone"]) < LEAST_GAIN:
        reason = "no better on the validation images"
    study.pace.reserved_for_retraining = 0.0
    num_networks = 1 if reason else most_networks(study, best)
    if num_networks == 1:
        return {**values, "reason": reason or too_short(study.pace, best)}
    samples = study.pace.hoped_samples(best, num_networks)
    return {**values, "reason": "", "num_networks": num_networks, "samples": samples}


def obstacle(study: Study, best: TrialRow, has_twin: bool) -> str:
    """Return why there cannot be several networks, known before a twin is trained; empty if there can."""
    pace = study.pace
    if not has_logits(study.store.folder, best.number):
        return "the winner has no validation logits of the highest rung"
    if broken := broken_limit(study.terms.limits, best, 2):
        return f"two networks are beyond the limits: {broken}"
    if num_passes(pace, best, 2) < MIN_PASSES:
        return too_short(pace, best)
    needed = pace.training_seconds(best.params, best.samples, best.number) / pace.terms.workforce.final_speedup
    room = pace.seconds_before_final(best)
    if not has_twin and needed > room:
        return f"it takes some {needed:.0f} s to see what it is worth, of which the budget has {max(room, 0.0):.0f} s"
    return ""


def most_networks(study: Study, best: TrialRow) -> int:
    """Return how many networks like the winner's can train for long, within the limits."""
    fitting = (
        number
        for number in range(MAX_NETWORKS, 1, -1)
        if not broken_limit(study.terms.limits, best, number) and num_passes(study.pace, best, number) >= MIN_PASSES
    )
    return next(fitting, 1)


def broken_limit(limits: Limits, best: TrialRow, number: int) -> str:
    """Return which limit several networks like the winner's break together, as text; empty if none."""
    broken = limits.broken_by(Cost(number * best.num_params, round(1e6 * number * best.mflops), ()))
    latency_ms = number * (best.latency_ms or 0.0)
    if not broken and limits.max_latency_ms is not None and latency_ms > limits.max_latency_ms:
        return f"{latency_ms:.2f} ms for one image on one core, more than {limits.max_latency_ms:g}"
    return broken


def num_passes(pace: Pace, best: TrialRow, number: int) -> float:
    """Return how often each of several networks like the winner's could see its images; infinite without a limit."""
    if not pace.budget.is_timed:
        return float("inf")
    passes = pace.rung_samples(best.params, -1) / pace.terms.num_images
    return min(max(pace.fitting_stretch(best, number), 0.0), MAX_STRETCH) * passes


def too_short(pace: Pace, best: TrialRow) -> str:
    """Return in words that there is no time for two networks."""
    return (
        f"in the time that is left two networks would see their images {num_passes(pace, best, 2):.1f} times each; "
        f"below {MIN_PASSES:g} one that trains as long as both is better"
    )


def begin(study: Study, best: TrialRow) -> TrialTask:
    """Decide on the training of the twin, before it runs, and return its task: as the trial was, with another seed."""
    top, limit = len(study.budget.rungs) - 1, study.pace.seconds_before_final(best)
    return study.begin(SECOND_SEED, top, best.samples, best.params, limit, trial=best.number)


def close(
    study: Study, best: TrialRow, outcome: TrialOutcome, task: TrialTask
) -> tuple[dict[str, float], str]:  # fmt: skip
    """Decide on the end of the twin's training, and return what one and two reach, or why that is not known."""
    folder = study.store.folder
    if reason := settle(study, outcome, task):
        return {}, f"nobody knows what a twin says: {reason}"
    if not has_logits(folder, SECOND_SEED):
        return {}, "the twin has no validation logits"
    trainings: list[TrainingId] = [best.number, SECOND_SEED]
    try:
        first, second, both = (
            value_of(folder, each, study.objective.name) for each in (trainings[:1], trainings[1:], trainings)
        )
    except NPZ_ERRORS as error:
        return {}, f"the networks' predictions for the validation images cannot be compared: {error}"
    if not all(map(math.isfinite, (first, second, both))):
        return {}, f"{study.objective.name} is not defined on the validation images"
    return {"alone": (first + second) / 2, "averaged": both}, ""


def has_logits(folder: StudyFolder, training: TrainingId) -> bool:
    """Tell whether what a network says of the validation images was kept and can be read."""
    try:
        return validation.read(folder, training) is not None
    except NPZ_ERRORS:  # no cause to lose a winner
        return False


def value_of(folder: StudyFolder, trainings: list[TrainingId], objective: str) -> float:
    """Return the objective of the mean of what several networks said of the validation images."""
    said = validation.read_mean(folder, trainings)
    assert said is not None  # all have logits
    return float(getattr(measure_logits(said.logits, said.labels), objective.removeprefix("val_")))


def ensemble_text(found: dict[str, Any], objective: str) -> str:
    """Return in words whether images are labelled by the mean of several networks, and why not."""
    values = f"{objective} of two {found['averaged']:.4f}, of one {found['alone']:.4f}" if "averaged" in found else ""
    if not found["is_kept"]:
        return f"not used: {found['reason']}" + (f" ({values})" if values else "")
    number = found["num_networks"]
    return (
        f"each image is labelled by the mean of {number} networks like the winner's: {values}; {number} times the work"
    )
