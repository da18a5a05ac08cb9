"""A study that begins from another one: finished trials are taken over where their scores remain valid."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.records import TrialRow
from pipeline.search.ranking import ranked
from pipeline.search.setup import differences
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import open_study
from pipeline.space import SearchSpace
from pipeline.spec import StudySpec
from pipeline.states import AttemptState

_HARMLESS = ("space", "seed", "oracle", "minimise", "limits", "is_deterministic", "objective")
"""Facts that may differ without touching the scores: another objective is read from the stored epochs."""
NUM_REMEMBERED = 5  # configurations that are tried first where the scores are not valid any more


def fork_study(store: StudyStore, space: SearchSpace, workspace: Path) -> str:
    """Fill a new study from the one that it names as `forked_from`, at once, and return what was taken over, as text.

    If only space, seed, oracle, limits or objective differ, the trials of the parent that lie in the new space and
    within the new limits come with their scores; if the images differ, its best configurations are tried first.

    Raises:
        DataError: the parent is gone.
    """
    spec = store.spec()
    with open_study(workspace, spec.forked_from or "", is_read_only=True) as old:
        parent = old.spec()
        changed = differences(old.facts(), store.facts())
        scored = [row for row in old.trials() if row.score is not None and space.contains(row.params)]
        rows = [row for row in scored if _is_within(row, spec)]
        if set(changed) <= set(_HARMLESS):
            events = itertools.count(1)
            for number, row in enumerate(rows):
                _copy_trial(old, store, row, number, events)
            text = f"{len(rows)} finished trial(s) taken over"
            if len(rows) < len(scored):
                text += f"; {len(scored) - len(rows)} not, which break the limits or whose latency is unknown"
        else:
            best = ranked(rows, parent.ranking)[:NUM_REMEMBERED]
            store.put_later("first", [row.params for row in best])
            reasons = ", ".join(name for name in changed if name not in _HARMLESS)
            text = f"{reasons} changed, so its {len(best)} best configuration(s) are tried anew"
        store.put_later("takeover", text)
        store.save()
        return f"forked from {parent.study}: {text}"


def _is_within(row: TrialRow, spec: StudySpec) -> bool:
    """Tell whether a trial keeps the limits of a study, and has the costs that it limits and minimises."""
    is_latency_wanted = spec.limits.max_latency_ms is not None or spec.minimise == "latency"
    if is_latency_wanted and row.latency_ms is None:
        return False
    return not spec.limits.broken_by(row.num_params, row.mflops, row.latency_ms or 0.0)


def _copy_trial(old: StudyStore, store: StudyStore, row: TrialRow, number: int, events: Iterator[int]) -> None:
    """Copy a trial with its finished rungs and their epochs under a new number; `events` number what happened."""
    objective = store.get("objective")
    epochs = {epoch.step: epoch for epoch in old.epochs(row.number)}
    store.add_trial(replace(row, number=number))
    store.put_trial(replace(row, number=number))
    for attempt in old.attempts(row.number):
        if attempt.state != AttemptState.DONE:
            continue
        steps = range(attempt.first_step, attempt.first_step + attempt.epochs)
        score = float(getattr(epochs[steps[-1]], objective))
        copied = replace(attempt, id=next(events), training=number, score=score, ended=next(events))
        store.put_attempt(copied)
        for step in steps:
            store.put_epoch(copied.id, epochs[step])
