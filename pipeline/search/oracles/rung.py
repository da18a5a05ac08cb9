"""The results of one rung in their order: who is best, who may go on, what came last. Pure Python."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Result:
    """A finished trial. `losses` (one or two, less is better) decide, then `costs`, then who came first."""

    losses: tuple[float, ...]
    costs: tuple[float, ...]
    index: int
    trial_id: str


@dataclass
class Rung:
    """What finished one rung. A failed trial counts as finished, with the worst result."""

    results: list[Result] = field(default_factory=list)  # the best first, by the first loss
    arrived: list[Result] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    promoted: set[str] = field(default_factory=set)
    _ordered: list[Result] | None = None

    def __len__(self) -> int:
        return len(self.results) + len(self.failed)

    def add(self, trial_id: str, losses: tuple[float, ...], costs: tuple[float, ...]) -> None:
        """Count a trial that finished with a result."""
        result = Result(losses, costs, len(self), trial_id)
        bisect.insort(self.results, result)
        self.arrived.append(result)
        self._ordered = None

    def fail(self, trial_id: str) -> None:
        """Count a trial that finished without a result."""
        self.failed.append(trial_id)

    def best(self, count: int) -> list[Result]:
        """Return the best results: by the loss, or with two losses by their front, then by the first loss."""
        if self._ordered is None:
            has_two = bool(self.results) and len(self.results[0].losses) > 1
            self._ordered = by_front(self.results) if has_two else self.results
        return self._ordered[:count]

    def promotable(self, eta: int) -> Iterator[str]:
        """Yield who is among the best one in `eta` of all that finished and has not gone on yet, the best first."""
        for result in self.best(len(self) // eta):
            if result.trial_id not in self.promoted:
                yield result.trial_id


def by_front(results: list[Result]) -> list[Result]:
    """Return sorted results with two losses by front (0 is dominated by none), within a front as they were.

    In the order of the first loss a result is dominated by exactly those fronts whose least second loss is not above
    its own, and these least losses grow with the front: n log n steps (Jensen 2003, 10.1109/TEVC.2003.817234).
    """
    fronts: list[list[Result]] = []
    least: list[float] = []
    front = 0
    for index, result in enumerate(results):
        is_twin = index > 0 and results[index - 1].losses == result.losses
        front = front if is_twin else bisect.bisect_right(least, result.losses[1])
        if front == len(fronts):
            fronts.append([])
            least.append(result.losses[1])
        least[front] = result.losses[1]
        fronts[front].append(result)
    return [result for front in fronts for result in front]
