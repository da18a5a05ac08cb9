"""The last training in a child process: of the winner alone, or of the members of an ensemble one after the other."""

import time
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.errors import TrialFailed
from pipeline.records import STOPPED, TrialTask
from pipeline.search.rungs import Report, train_watched
from pipeline.search.seeds import trial_seed

LAST_RUNG = 200  # above the rungs of any study and of `crossfit`: the seeds of members differ from those of all others


class Member(NamedTuple):
    """A network that was trained, how many epochs it saw and how many were planned."""

    model: Any
    epochs: int
    num_planned: int


def train_members(
    task: TrialTask, facts: dict[str, Any], training: Any, report: Report
) -> tuple[list[Member], dict[str, Any]]:  # fmt: skip
    """Train the winner, and what answers beside it; return these networks, the winner first, and the `ensemble`.

    A network beside the winner that fails, or is cut off before its learning rate fell, would spoil the mean: then the
    winner answers alone, and the ensemble says why.

    Raises:
        TrialFailed: the winner failed, or the training was stopped and goes on with --resume.
    """
    ensemble = facts.get("ensemble") or {"is_kept": False}
    planned = ensemble["members"] if ensemble["is_kept"] else []
    ends = time.monotonic() + task.seconds_limit
    members = [train_member(part_of(task, facts, planned, 0, ends) if planned else task, facts, training, report, None)]
    for index in range(1, len(planned)):
        first_step = task.first_step + sum(member.epochs for member in members)
        part = replace(part_of(task, facts, planned, index, ends), first_step=first_step)
        try:
            members.append(train_member(part, facts, training, report, index))
        except TrialFailed as error:
            if error.state == STOPPED:
                raise
            return members[:1], alone(ensemble, f"ended as {error.state}: {error.reason}", index)
        if members[-1].epochs < members[-1].num_planned:
            return members[:1], alone(ensemble, "was cut off: the time was over", index)
    trained = [
        {name: about[name] for name in ("trial", "params", "num_params", "mflops")} | {"epochs": member.epochs}
        for about, member in zip(planned, members, strict=False)
    ]
    return members, ensemble | ({"members": trained} if planned else {})


def part_of(
    task: TrialTask, facts: dict[str, Any], planned: list[dict[str, Any]], index: int, ends: float
) -> TrialTask:
    """Return the training of one member, in its share of the time that is left to it and those after it."""
    about, now = planned[index], time.monotonic()
    share = about["share"] / sum(each["share"] for each in planned[index:])
    return replace(
        task,
        params=about["params"],
        samples=about["samples"],
        num_micro_batches=about["num_micro_batches"],
        seed=task.seed if index == 0 else trial_seed(facts["seed"], about["trial"], LAST_RUNG),
        seconds_limit=share * (ends - now),
        wanted_end=now + share * (task.wanted_end - now),
    )


def train_member(task: TrialTask, facts: dict[str, Any], training: Any, report: Report, index: int | None) -> Member:
    """Train one network on train + validation; `index` tells its checkpoint from that of the winner."""
    model, last, num_planned = train_watched(task, facts, training, None, report, index)
    return Member(bare(model), max(0, last.step - task.first_step + 1), num_planned)


def bare(model: Any) -> Any:
    """Return a trained model without optimizer and loss: the next training needs the memory."""
    from pipeline.training.recipe import without_recipe

    return without_recipe(model)


def alone(ensemble: dict[str, Any], what: str, index: int) -> dict[str, Any]:
    """Return the ensemble that the winner is by itself, since what answers beside it was not trained."""
    rest = {name: value for name, value in ensemble.items() if name != "members"}
    return {**rest, "is_kept": False, "reason": f"the training of trial {ensemble['members'][index]['trial']} {what}"}
