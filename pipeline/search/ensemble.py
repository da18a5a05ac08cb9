"""Is the mean of the winner and a few other trials a better answer than the winner? Validation images decide.

The others are added one by one, each the trial of the highest rung with which the mean is best, as long as that makes
it better (Caruana et al. 2004). What is chosen trains anew in the last training: see `members`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.models.cost import Cost
from pipeline.records import TrialRow
from pipeline.search import validation
from pipeline.search.pace import Limits, Pace
from pipeline.search.store import FINAL_TRIAL
from pipeline.search.study import Study
from pipeline.training.metrics import measure_logits

MAX_MEMBERS = 3
MIN_PASSES = 20.0  # of each over its images; with fewer, one that trains as long as all do is better (docs/recipe.md)


def is_wanted(facts: dict[str, Any]) -> bool:
    """Tell whether the user asked for an ensemble."""
    return bool(facts.get("options", {}).get("ensemble"))


def choose_members(study: Study, best: TrialRow, is_picked: bool = False) -> dict[str, Any]:
    """Return whether images are labelled by the mean of several networks, and keep that in the study as `ensemble`.

    `members` are those, the winner `best` first; `alone` and `averaged` are the objective on the validation images of
    the winner and of the mean. `is_kept` tells what is done, and if it is not, `reason` why. A last training that goes
    on keeps what it began with.
    """
    found: dict[str, Any] = study.store.get("ensemble") or {}
    if not (study.goes_on(FINAL_TRIAL) and found.get("winner") == best.number):
        found = {"reason": "a trial that is picked answers alone"} if is_picked else decide(study, best)
        found |= {"winner": best.number, "is_kept": not found["reason"]}
        study.store.put("ensemble", found)
    return found


def decide(study: Study, best: TrialRow) -> dict[str, Any]:
    """Return the members and what they reach together, or the `reason` why the winner answers alone."""
    limits, pace = study.terms.limits, study.pace
    scored = [row for row in study.rows.values() if has_logits(study.store.path.parent, row)]
    others = [row for row in scored if row.number != best.number]
    if len(others) == len(scored):
        return {"reason": "the winner has no validation logits of the highest rung"}
    if not others:
        return {"reason": "no other trial has finished the highest rung"}
    broken = [broken_limit(limits, [best, row]) for row in others]
    if all(broken):
        return {"reason": f"two networks are beyond the limits: {broken[0]}"}
    ensembles = grow(study, best, others)
    alone = ensembles[0][1]
    if len(ensembles) == 1:
        return {"alone": alone, "reason": "no mean with another trial is better on the validation images"}
    for members, averaged in reversed(ensembles[1:]):
        if (least := fewest_passes(pace, members)) >= MIN_PASSES:
            return {"alone": alone, "averaged": averaged, "members": describe(study, members), "reason": ""}
    reason = (
        f"in the time that is left two networks would see their images {least:.1f} times each; below {MIN_PASSES:g} "
        "one network that trains as long as both is better"
    )
    return {"alone": alone, "averaged": ensembles[1][1], "reason": reason}


def has_logits(folder: Path, row: TrialRow) -> bool:
    """Tell whether what a trial says of the validation images was kept and can be read."""
    try:
        return validation.read(folder, row.number) is not None
    except validation.DAMAGES:  # no cause to lose a winner
        return False


def grow(study: Study, best: TrialRow, others: list[TrialRow]) -> list[tuple[list[TrialRow], float]]:
    """Return ensembles, the winner alone first, and the objective of each: every one is better than the one before."""
    sign = study.objective.sign
    ensembles = [([best], value_of(study, [best]))]
    while len(ensembles) < MAX_MEMBERS:
        members, value = ensembles[-1]
        wider = [[*members, row] for row in others if row not in members]
        allowed = [each for each in wider if not broken_limit(study.terms.limits, each)]
        scored = [(each, value_of(study, each)) for each in allowed]
        widest = max(scored, key=lambda pair: sign * pair[1], default=(members, value))
        if sign * (widest[1] - value) <= 0:
            break
        ensembles.append(widest)
    return ensembles


def value_of(study: Study, members: Sequence[TrialRow]) -> float:
    """Return the objective of the mean of what trials said of the validation images."""
    said = validation.read_mean(study.store.path.parent, [row.number for row in members])
    assert said is not None  # all have logits
    return float(getattr(measure_logits(said.logits, said.labels), study.objective.name.removeprefix("val_")))


def broken_limit(limits: Limits, members: Sequence[TrialRow]) -> str:
    """Return which limit networks break together, as text; empty if none."""
    cost = Cost(sum(row.num_params for row in members), round(1e6 * sum(row.mflops for row in members)), ())
    broken = limits.broken_by(cost)
    latency_ms = sum(row.latency_ms or 0.0 for row in members)
    if not broken and limits.max_latency_ms is not None and latency_ms > limits.max_latency_ms:
        return f"{latency_ms:.2f} ms for one image on one core, more than {limits.max_latency_ms:g}"
    return broken


def fewest_passes(pace: Pace, members: Sequence[TrialRow]) -> float:
    """Return how often the member that sees its images least often sees them; infinite without a time limit."""
    if not pace.budget.is_timed:
        return float("inf")
    samples = pace.final_samples(members[0], members[1:])
    return min(share_of_samples(pace, samples, members[0], row) for row in members) / pace.terms.num_final_images


def share_of_samples(pace: Pace, samples: int, best: TrialRow, row: TrialRow) -> int:
    """Return the images that a member sees where the winner sees `samples`: both stretch their highest rung alike."""
    return round(samples * pace.rung_samples(row.params, -1) / pace.rung_samples(best.params, -1))


def describe(study: Study, members: Sequence[TrialRow]) -> list[dict[str, Any]]:
    """Return what the last training has to know of each member: images, share of the time, parts of a batch."""
    pace = study.pace
    samples = pace.hoped_samples(members[0], members[1:])
    seconds = [pace.full_final_seconds([row]) for row in members]
    return [
        {
            "trial": row.number,
            "params": row.params,
            "num_params": row.num_params,
            "mflops": row.mflops,
            "samples": share_of_samples(pace, samples, members[0], row),
            "share": each / sum(seconds),
            "num_micro_batches": study.num_micro_batches(row.number),
        }
        for row, each in zip(members, seconds, strict=True)
    ]


def members_text(found: dict[str, Any], objective: str) -> str:
    """Return in words whether images are labelled by the mean of several networks, and why not."""
    if not found["is_kept"]:
        values = [
            f"{name} {found[key]:.4f}" for name, key in ((objective, "alone"), ("mean", "averaged")) if key in found
        ]
        return f"not used: {found['reason']}" + (f" ({', '.join(values)})" if values else "")
    members = found["members"]
    work = sum(each["mflops"] for each in members) / members[0]["mflops"]
    return (
        f"each image is labelled by the mean of {named(found)}: {objective} {found['averaged']:.4f}, trial "
        f"{members[0]['trial']} alone {found['alone']:.4f}; {work:.1f} times the work"
    )


def named(found: dict[str, Any]) -> str:
    """Return who answers: `the winner`, or `trials 3, 7 and 9`."""
    if not found.get("is_kept"):
        return "the winner"
    *first, last = (str(each["trial"]) for each in found["members"])
    return f"trials {', '.join(first)} and {last}"
