"""A network that no one chose, trained beside the winner: what a search gained over not searching.

It trains on train + validation as the winner does, for up to as many passes as are sure to fit for that, if its share
of the budget allows, and before it, so that the winner gets all the time that is left. Nothing is chosen by what it
says of the test images.
"""

import math
from dataclasses import replace

from pipeline.card import Baseline
from pipeline.crashpoints import crashpoint
from pipeline.json_records import to_json
from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.records import Params, TrialRow
from pipeline.search.engines.base import Engine
from pipeline.search.jobs import TrainingJob, TrainingPlan
from pipeline.search.loop import SearchCallback, settle, train_to_end
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.states import AttemptState, TrainingKind

NETWORK = {"depth": 3, "convs_per_stage": 1, "filters": 16, "filters_growth": 2.0}
"""A small plain network; everything else, the recipe included, is the product's default (`space.DEFAULTS`)."""
_GPU_RECIPE = {"batch_size": 512, "learning_rate": 0.1, "weight_decay": 1e-3}
"""What the recipe is where the space `gpu` is the default: a pass in batches of 64 would take five times as long."""
MIN_PART = 0.5  # of the winner's passes: a network that trained for less would flatter the search


def baseline_params(image_shape: tuple[int, int, int], num_classes: int, is_for_gpu: bool = False) -> Params:
    """Return the configuration of the reference network, with fewer stages where the images are too small for three."""
    network = NETWORK | _GPU_RECIPE if is_for_gpu else NETWORK
    for depth in range(int(NETWORK["depth"]), 1, -1):
        params = {**network, "depth": depth}
        try:
            measure(params, image_shape, num_classes)
        except ImpossibleNetwork:
            continue
        return params
    return {**network, "depth": 1}


def is_trained(store: StudyStore) -> bool:
    """Tell whether the reference network was trained in this study."""
    return any(attempt.state == AttemptState.DONE for attempt in store.attempts(TrainingKind.BASELINE))


def train_baseline(study: Study, engine: Engine, callback: SearchCallback, best: TrialRow) -> str:
    """Train the reference network for the winner `best` unless that is done; return why there is none, if so.

    What was decided is kept in the study as the fact `baseline`. A training that fails costs the comparison only.

    Raises:
        StoppedEarly, KeyboardInterrupt: the search is to end; the training goes on with --resume.
    """
    if is_trained(study.store):
        study.estimates.reserved = 0.0
        return ""
    last = next(reversed(study.attempts.get(TrainingKind.BASELINE, [])), None)
    goes_on = last is not None and last.state == AttemptState.STOPPED  # as it began
    samples, reason = (last.samples, "") if last and goes_on else plan_baseline(study.estimates, best)
    found = replace(_described(study, samples), reason=reason)
    if not reason:
        params = study.context.baseline or {}
        outcome, job = train_to_end(study, engine, lambda: _begin(study, params, samples), callback)
        crashpoint("baseline-trained")
        reason = settle(study, outcome, job)
        epochs = (
            found.epochs if outcome.findings.epochs is None else outcome.findings.epochs
        )  # fewer than planned if it was slow
        study.estimates.reserved = 0.0
        least = MIN_PART * study.num_epochs(TrainingKind.BASELINE, study.estimates.final_samples(best))
        if not reason and (epochs or 0) < least:
            reason = f"it was slower than planned and saw {epochs} passes, less than half of the winner's"
        found = replace(found, epochs=epochs, reason=reason)
    study.estimates.reserved = 0.0
    study.store.put_later("baseline", to_json(found))
    study.store.save()
    return reason


def _described(study: Study, samples: int) -> Baseline:
    """Return the reference network as it is to be trained."""
    params, epochs = study.context.baseline, study.num_epochs(TrainingKind.BASELINE, samples)
    if params is None:
        return Baseline("", {}, epochs=epochs)
    cost = measure(params, study.context.image_shape, study.context.num_classes)
    return Baseline("", params, cost.num_params, cost.mflops, epochs)


def plan_baseline(estimates: TimeEstimates, best: TrialRow) -> tuple[int, str]:
    """Return how many images the reference network sees, and why it is not trained, if so."""
    params = estimates.context.baseline
    if params is None:
        return 0, "this study has no reference network"
    wanted = estimates.final_samples(best)
    if not estimates.budget.is_timed:
        return wanted, ""
    if estimates.reserved <= 0:
        return 0, f"a budget of {estimates.budget.total:.0f} s is too short for a second network"
    room = estimates.budget.end - estimates.elapsed() - estimates.final_seconds(best.params, best.samples, best.number)
    fitting = estimates.baseline_samples(min(estimates.reserved, room))
    if fitting < MIN_PART * wanted:
        return 0, (
            f"its share of the budget, {max(0.0, min(estimates.reserved, room)):.0f} s, is less than half of the "
            "winner's passes would take"
        )
    return min(wanted, fitting), ""


def _begin(study: Study, params: Params, samples: int) -> TrainingJob:
    """Record the training of the reference network before it runs, and return its job."""
    share = study.estimates.reserved if study.budget.is_timed else math.inf
    top = len(study.budget.rungs) - 1
    return study.begin(TrainingKind.BASELINE, TrainingPlan(top, samples, params, 2 * share, share))
