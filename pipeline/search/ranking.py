"""Which of several trained trials is better: in one objective, and in an objective against a cost."""

from collections.abc import Iterable, Sequence

from pipeline.records import Objective, TrialRow
from pipeline.states import TrialState


def ranked(rows: Iterable[TrialRow], objective: Objective) -> list[TrialRow]:
    """Return rows best first: by score, of equal scores the one with fewer FLOPs; those without a score last."""
    return sorted(
        rows, key=lambda row: (row.score is None, -objective.sign * (row.score or 0.0), row.mflops, row.number)
    )


def winner(rows: list[TrialRow], objective: Objective) -> TrialRow | None:
    """Return the best of the trials that finished the highest rung that any trial finished, or None."""
    top = max((row.rung for row in rows), default=-1)
    finished = [row for row in rows if row.score is not None and row.rung == top]
    return ranked(finished, objective)[0] if finished else None


def climbers(rows: list[TrialRow], objective: Objective) -> list[TrialRow]:
    """Return the trials that wait at a rung: those at a higher one first, and of one rung the best first."""
    paused = ranked([row for row in rows if row.state == TrialState.PAUSED], objective)
    return sorted(paused, key=lambda row: -row.rung)


def pareto_front(rows: Iterable[TrialRow], objective: Objective) -> list[TrialRow]:
    """Return the rows that no other one beats in score or in `objective.minimise` without losing in the other.

    The cheapest comes first, so scores rise along the front. Of rows that are equal in both the first of
    `ranked` stays. Rows without a score or without that cost are left out.
    """
    front: list[TrialRow] = []
    for row in sorted(ranked(rows, objective), key=lambda row: _cost_of(row, objective) or 0.0):
        is_known = row.score is not None and _cost_of(row, objective) is not None
        if is_known and (not front or height(row, objective) > height(front[-1], objective)):
            front.append(row)
    return front


def knee(front: Sequence[TrialRow], objective: Objective) -> TrialRow:
    """Return the row of a front beyond which score costs most: the one farthest above the line between its two ends.

    Both axes are scaled to [0, 1] first (Das 1999, "On characterizing the knee of the Pareto curve based on
    normal-boundary intersection", 10.1007/BF01195985). Of a front (not empty) without such a row, the best in score.
    """
    best = front[-1]
    width = (_cost_of(best, objective) or 0.0) - (_cost_of(front[0], objective) or 0.0)
    rise = height(best, objective) - height(front[0], objective)
    if len(front) < 3:
        return best

    def distance(row: TrialRow) -> float:
        """Return how far above the line a row lies, up to a constant factor."""
        cost = ((_cost_of(row, objective) or 0.0) - (_cost_of(front[0], objective) or 0.0)) / width
        return (height(row, objective) - height(front[0], objective)) / rise - cost

    farthest = max(front, key=distance)
    return farthest if distance(farthest) > 0 else best


def at_knee(rows: Iterable[TrialRow], objective: Objective) -> TrialRow | None:
    """Return the row at the knee of the front; None with one objective alone, or without a front."""
    front = pareto_front(rows, objective)
    return knee(front, objective) if front else None


def height(row: TrialRow, objective: Objective) -> float:
    """Return the score such that larger is better."""
    return objective.sign * (row.score or 0.0)


def _cost_of(row: TrialRow, objective: Objective) -> float | None:
    """Return what the objective minimises; None where it was not measured."""
    return None if objective.minimise is None else row.cost(objective.minimise)
