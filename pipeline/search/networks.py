"""The last training in a child process: of the winner's network, or of several like it, one after the other."""

import time
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.errors import TrialFailed
from pipeline.records import TrialTask
from pipeline.search.rungs import Report, train_watched
from pipeline.search.seeds import trial_seed
from pipeline.search.store import stored_number
from pipeline.states import OutcomeState

LAST_RUNG = 200  # above the rungs of any study and of `crossfit`: the seeds of these networks differ from all others


class Network(NamedTuple):
    """A network that was trained, how many epochs it saw and how many were planned."""

    model: Any
    epochs: int
    num_planned: int


def is_wanted(facts: dict[str, Any]) -> bool:
    """Tell whether the user asked for an ensemble."""
    return bool(facts.get("options", {}).get("ensemble"))


def train_networks(
    task: TrialTask, facts: dict[str, Any], training: Any, report: Report
) -> tuple[list[Network], dict[str, Any]]:  # fmt: skip
    """Train the network that answers, or those that answer together, and return them with the `ensemble`.

    One after the first that fails, or is cut off before its learning rate fell, would spoil the mean: then the first
    answers alone, and the ensemble says why.

    Raises:
        TrialFailed: the first failed, or the training was stopped and goes on with --resume.
    """
    ensemble = facts.get("ensemble") or {"is_kept": False}
    if not ensemble["is_kept"]:
        return [train_network(task, facts, training, report, None)], ensemble
    ends, networks = time.monotonic() + task.seconds_limit, list[Network]()
    for index in range(ensemble["num_networks"]):
        part = part_of(task, facts, index, networks, ends)
        try:
            networks.append(train_network(part, facts, training, report, index or None))
        except TrialFailed as error:
            if error.state == OutcomeState.STOPPED or not networks:
                raise
            return networks[:1], alone(
                ensemble, f"the last training of another network ended as {error.state}: {error.reason}"
            )
        if index > 0 and networks[-1].epochs < networks[-1].num_planned:
            return networks[:1], alone(ensemble, "the time was over before all were trained")
    return networks, ensemble | {"epochs": [network.epochs for network in networks]}


def alone(ensemble: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the ensemble of which only the first network answers."""
    return ensemble | {"is_kept": False, "reason": why}


def part_of(task: TrialTask, facts: dict[str, Any], index: int, before: list[Network], ends: float) -> TrialTask:
    """Return the training of one network, which is to end in its share of the time that is left.

    Who is late takes the time of those after it.
    """
    ensemble, now = facts["ensemble"], time.monotonic()
    return replace(
        task,
        samples=ensemble["samples"],
        seed=trial_seed(facts["seed"], stored_number(task.training), LAST_RUNG + index) if index else task.seed,
        first_step=task.first_step + sum(network.epochs for network in before),
        seconds_limit=ends - now,
        wanted_end=now + (task.wanted_end - now) / (ensemble["num_networks"] - index),
    )


def train_network(task: TrialTask, facts: dict[str, Any], training: Any, report: Report, index: int | None) -> Network:
    """Train one network on train + validation; `index` tells its checkpoint from that of the first."""
    model, last, num_planned = train_watched(task, facts, training, None, report, index)
    return Network(bare(model), max(0, last.step - task.first_step + 1), num_planned)


def bare(model: Any) -> Any:
    """Return a trained model without optimizer and loss: the next training needs the memory."""
    from pipeline.training.recipe import without_recipe

    return without_recipe(model)
