"""The last training in a child process: of the winner's network, or of several like it, one after the other."""

import time
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.card import Ensemble, num_networks
from pipeline.errors import TrialFailed
from pipeline.search.events import Reporter
from pipeline.search.jobs import TrainingJob
from pipeline.search.seeds import trial_seed
from pipeline.search.storage.attempts import stored_number
from pipeline.search.worker.rung import train_watched
from pipeline.states import OutcomeState

_LAST_RUNG = (
    200  # above the rungs of any study and of `out_of_fold`: the seeds of these networks differ from all others
)


class Network(NamedTuple):
    """A network that was trained, how many epochs it saw and how many were planned."""

    model: Any
    epochs: int
    num_planned: int


def train_networks(job: TrainingJob, training: Any, reporter: Reporter) -> tuple[list[Network], Ensemble | None]:
    """Train the network that answers, or those that answer together, and return them with the `ensemble`.

    One after the first that fails, or is cut off before its learning rate fell, would spoil the mean: then the first
    answers alone, and the ensemble says why.

    Raises:
        TrialFailed: the first failed, or the training was stopped and goes on with --resume.
    """
    ensemble = job.chosen.ensemble
    if ensemble is None or not ensemble.is_kept:
        return [_train_network(job, training, reporter, None)], ensemble
    began, networks = time.monotonic(), list[Network]()
    for index in range(num_networks(ensemble)):
        part = _part_of(job, ensemble, networks, time.monotonic() - began)
        try:
            networks.append(_train_network(part, training, reporter, index or None))
        except TrialFailed as error:
            if error.state == OutcomeState.STOPPED or not networks:
                raise
            reason = f"the last training of another network ended as {error.state}: {error.reason}"
            return networks[:1], replace(ensemble, is_kept=False, reason=reason)
        if index > 0 and networks[-1].epochs < networks[-1].num_planned:
            return networks[:1], replace(ensemble, is_kept=False, reason="the time was over before all were trained")
    return networks, replace(ensemble, epochs=tuple(network.epochs for network in networks))


def _part_of(job: TrainingJob, ensemble: Ensemble, before: list[Network], seconds_gone: float) -> TrainingJob:
    """Return the training of the network after those `before`, which is to end in its share of the time that is left.

    Who is late takes the time of those after it.
    """
    index = len(before)
    return replace(
        job,
        samples=ensemble.samples or job.samples,
        seed=trial_seed(job.spec.seed, stored_number(job.training), _LAST_RUNG + index) if index else job.seed,
        first_step=job.first_step + sum(network.epochs for network in before),
        seconds_limit=job.seconds_limit - seconds_gone,
        seconds_wanted=(job.seconds_wanted - seconds_gone) / (num_networks(ensemble) - index),
    )


def _train_network(job: TrainingJob, training: Any, reporter: Reporter, index: int | None) -> Network:
    """Train one network on train + validation; `index` tells its checkpoint from that of the first."""
    model, last, num_planned = train_watched(job, training, None, reporter, index)
    return Network(bare(model), max(0, last.step - job.first_step + 1), num_planned)


def bare(model: Any) -> Any:
    """Return a trained model without optimizer and loss: the next training needs the memory."""
    from pipeline.training.recipe import without_recipe

    return without_recipe(model)
