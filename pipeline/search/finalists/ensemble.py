"""Is the mean of several networks like the winner's a better answer than one? Validation images decide.

The networks differ by their seeds alone: by the weights they begin with and the order of the images. The winner's trial
left what one says of the validation images; its network is trained once more as its trial was, with a second seed, and
the mean of both is compared with one. What answers trains anew in the last training: see `networks`.
"""

import math
from dataclasses import replace
from pathlib import Path

from pipeline.card import Ensemble
from pipeline.crashpoints import crashpoint
from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.json_records import to_json
from pipeline.limits import Limits
from pipeline.records import TrialRow
from pipeline.search.engines.base import Engine
from pipeline.search.jobs import TrainingJob, TrainingPlan, TrialOutcome
from pipeline.search.loop import SearchCallback, settle, train_to_end
from pipeline.search.study import Study
from pipeline.search.timing.budget import MAX_EPOCHS_FACTOR, MIN_PASSES
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.search.worker import validation
from pipeline.states import AttemptState, TrainingId, TrainingKind
from pipeline.training.metrics import measure_logits

_SECOND_SEED = TrainingKind.SECOND_SEED
_MAX_NETWORKS = 3
_FAILURES = (AttemptState.DIED, AttemptState.FAILED, AttemptState.INFEASIBLE, AttemptState.TIMEOUT)
_LEAST_GAIN = 1e-9  # less is the rounding of a mean


def choose_networks(study: Study, engine: Engine, callback: SearchCallback, best: TrialRow) -> Ensemble:
    """Return whether several networks like that of the winner `best` answer, and keep that in the study as `ensemble`.

    What one reaches alone is the mean of the winner's trial and the one with a second seed. A last training that goes
    on keeps what it began with.

    Raises:
        StoppedEarly, KeyboardInterrupt: the search is to end; the training with a second seed goes on with --resume.
    """
    known = study.store.ensemble()
    known = known if known is not None and known.winner == best.number else None
    last = study.last_state(TrainingKind.FINAL)
    if known is not None and known.is_kept and last in _FAILURES:
        reason = f"the last training of {known.num_networks} networks ended as {last}"
        found = replace(known, is_kept=False, reason=reason)
    elif known is not None and last == AttemptState.STOPPED:
        found = known
    else:
        found = replace(decide(study, engine, callback, best, known), winner=best.number)
    study.store.put_later("ensemble", to_json(found))
    study.store.save()
    return found


def decide(
    study: Study, engine: Engine, callback: SearchCallback, best: TrialRow, known: Ensemble | None
) -> Ensemble:  # fmt: skip
    """Return how many networks answer and what two reach together, or the `reason` why the winner answers alone.

    What is `known` of the second seed is not measured again.
    """
    is_known = known is not None and known.value is not None
    measured = Ensemble(False, alone=known.alone, value=known.value) if known and is_known else Ensemble(False)
    reason = _obstacle(study, best, has_second_seed=is_known)
    if not (reason or is_known):
        outcome, job = train_to_end(study, engine, lambda: _begin(study, best), callback)
        crashpoint("twin-trained")
        measured = close(study, best, outcome, job)
        reason = measured.reason
    sign, alone, both = study.objective.sign, measured.alone, measured.value
    if not reason and (alone is None or both is None or sign * (both - alone) < _LEAST_GAIN):
        reason = "no better on the validation images"
    study.estimates.reserved_for_retraining = 0.0
    number = 1 if reason else _most_networks(study, best)
    if number == 1:
        return replace(measured, reason=reason or _too_short(study.estimates, best))
    samples = study.estimates.hoped_samples(best, number)
    return replace(measured, is_kept=True, reason="", num_networks=number, samples=samples)


def _obstacle(study: Study, best: TrialRow, has_second_seed: bool) -> str:
    """Return why there cannot be several networks, as far as is known without a second seed; empty if there can."""
    estimates = study.estimates
    if not _has_logits(study.store.folder.logits, best.number):
        return "the winner has no validation logits of the highest rung"
    if broken := _broken_limit(study.context.limits, best, 2):
        return f"two networks are beyond the limits: {broken}"
    if _num_passes(estimates, best, 2) < MIN_PASSES:
        return _too_short(estimates, best)
    needed = (
        estimates.training_seconds(best.params, best.samples, best.number) / estimates.context.parallelism.final_speedup
    )
    room = estimates.seconds_before_final(best)
    if not has_second_seed and needed > room:
        return f"it takes some {needed:.0f} s to see what it is worth, of which the budget has {max(room, 0.0):.0f} s"
    return ""


def _most_networks(study: Study, best: TrialRow) -> int:
    """Return how many networks like the winner's can train for long, within the limits."""
    fitting = (
        number
        for number in range(_MAX_NETWORKS, 1, -1)
        if not _broken_limit(study.context.limits, best, number)
        and _num_passes(study.estimates, best, number) >= MIN_PASSES
    )
    return next(fitting, 1)


def _broken_limit(limits: Limits, best: TrialRow, number: int) -> str:
    """Return which limit several networks like the winner's break together, as text; empty if none."""
    return limits.broken_by(number * best.num_params, number * best.mflops, number * (best.latency_ms or 0.0))


def _num_passes(estimates: TimeEstimates, best: TrialRow, number: int) -> float:
    """Return how often each of several networks like the winner's could see its images; infinite without a limit."""
    if not estimates.budget.is_timed:
        return float("inf")
    passes = estimates.rung_samples(best.params, -1) / estimates.context.num_images
    return min(max(estimates.fitting_epochs_factor(best, number), 0.0), MAX_EPOCHS_FACTOR) * passes


def _too_short(estimates: TimeEstimates, best: TrialRow) -> str:
    """Return in words that there is no time for two networks."""
    return (
        f"in the time that is left two networks would see their images {_num_passes(estimates, best, 2):.1f} times "
        f"each; below {MIN_PASSES:g} one that trains as long as both is better"
    )


def _begin(study: Study, best: TrialRow) -> TrainingJob:
    """Decide on the training with a second seed, which is otherwise that of the trial, and return its job."""
    top, limit = len(study.budget.rungs) - 1, study.estimates.seconds_before_final(best)
    return study.begin(_SECOND_SEED, TrainingPlan(top, best.samples, best.params, limit, trial=best.number))


def close(study: Study, best: TrialRow, outcome: TrialOutcome, job: TrainingJob) -> Ensemble:
    """Decide on the end of that training, and return what one and two networks reach, or why that is not known."""
    folder = study.store.folder.logits
    if reason := settle(study, outcome, job):
        return Ensemble(False, f"the network with a second seed could not be compared: {reason}")
    if not _has_logits(folder, _SECOND_SEED):
        return Ensemble(False, "the network with a second seed left no validation logits")
    trainings: list[TrainingId] = [best.number, _SECOND_SEED]
    try:
        first, second, both = (
            value_of(folder, each, study.objective.name) for each in (trainings[:1], trainings[1:], trainings)
        )
    except NPZ_ERRORS as error:
        return Ensemble(False, f"the networks' predictions for the validation images cannot be compared: {error}")
    if not all(map(math.isfinite, (first, second, both))):
        return Ensemble(False, f"{study.objective.name} is not defined on the validation images")
    return Ensemble(False, alone=(first + second) / 2, value=both)


def _has_logits(folder: Path, training: TrainingId) -> bool:
    """Tell whether what a network says of the validation images was kept and can be read."""
    try:
        return validation.read(folder, training) is not None
    except NPZ_ERRORS:  # no cause to lose a winner
        return False


def value_of(folder: Path, trainings: list[TrainingId], objective: str) -> float:
    """Return the objective of the mean of what several networks said of the validation images."""
    answers = validation.read_mean(folder, trainings)
    assert answers is not None  # all have logits
    return float(getattr(measure_logits(answers.logits, answers.labels), objective.removeprefix("val_")))


def ensemble_text(found: Ensemble, objective: str) -> str:
    """Return in words whether images are labelled by the mean of several networks, and why not."""
    values = "" if found.value is None else f"{objective} of two {found.value:.4f}, of one {found.alone:.4f}"
    if not found.is_kept:
        return f"not used: {found.reason}" + (f" ({values})" if values else "")
    number = found.num_networks
    return (
        f"each image is labelled by the mean of {number} networks like the winner's: {values}; {number} times the work"
    )
