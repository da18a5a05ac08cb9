"""The results of one rung in their order: who is best, who may go on, what came last. Pure Python."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

Losses = tuple[float, ...]


@dataclass(frozen=True, order=True)
class Result:
    """A finished trial. `losses` (one or two, less is better) decide, then `costs`, then who came first."""

    losses: Losses
    costs: tuple[float, ...]
    index: int
    trial_id: str


@dataclass
class Front:
    """Sorted results of which none dominates another (all results, with one loss); `waiting` have not gone on yet.

    With two losses the second one falls along the front, so what a result dominates elsewhere is one slice.
    """

    results: list[Result] = field(default_factory=list)
    waiting: list[Result] = field(default_factory=list)

    def dominates(self, losses: Losses) -> bool:
        """Tell whether some result is better in one loss and not worse in the other."""
        index = bisect.bisect_right(self.results, losses[0], key=lambda result: result.losses[0]) - 1
        return index >= 0 and self.results[index].losses != losses and self.results[index].losses[1] <= losses[1]

    def insert(self, result: Result) -> None:
        """Take one more result, which waits."""
        bisect.insort(self.results, result)
        bisect.insort(self.waiting, result)

    def has(self, losses: Losses) -> bool:
        """Tell whether some result has these losses."""
        index = bisect.bisect_left(self.results, losses, key=lambda result: result.losses)
        return index < len(self.results) and self.results[index].losses == losses

    def exchange(self, came: "Front") -> "Front":
        """Take the results of a front in the place of those that they dominate, which are returned as a front."""
        least = came.results[0].losses[0], came.results[-1].losses[1]
        return Front(replaced(self.results, came.results, *least), replaced(self.waiting, came.waiting, *least))


@dataclass
class Rung:
    """What finished one rung. A failed trial counts as finished, with the worst result.

    With two losses a result is in front 0 if none dominates it, in front 1 if only those of front 0 do, and so on.
    Nothing is sorted anew for a result or a question: an ask must cost the same however many trials have ended.
    """

    fronts: list[Front] = field(default_factory=list)
    arrived: dict[str, Result] = field(default_factory=dict)  # by trial, in the order in which they finished
    failed: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.arrived) + len(self.failed)

    def add(self, trial_id: str, losses: Losses, costs: tuple[float, ...]) -> None:
        """Count a trial that finished with a result. What it dominates moves down, front by front."""
        result = Result(losses, costs, len(self), trial_id)
        self.arrived[trial_id] = result
        level = self.level(losses)
        if level < len(self.fronts) and (len(losses) == 1 or self.fronts[level].has(losses)):
            self.fronts[level].insert(result)
            return
        moving = Front([result], [result])
        while moving.results and level < len(self.fronts):
            num_came = len(moving.results)
            moving = self.fronts[level].exchange(moving)
            level += 1
            if len(self.fronts[level - 1].results) == num_came:  # a whole front left, and so would all after it
                break
        if moving.results:
            self.fronts.insert(level, moving)

    def fail(self, trial_id: str) -> None:
        """Count a trial that finished without a result."""
        self.failed.append(trial_id)

    def level(self, losses: Losses) -> int:
        """Return the first front that does not dominate these losses; those after it do not either."""
        if len(losses) == 1:
            return 0
        return bisect.bisect_left(self.fronts, True, key=lambda front: not front.dominates(losses))

    def best(self, count: int) -> list[Result]:
        """Return the best results: by the loss, or with two losses by their front, then by the first loss."""
        return list(islice(chain.from_iterable(front.results for front in self.fronts), count))

    def latest(self, count: int) -> list[Result]:
        """Return the results that came last, the latest first."""
        return list(islice(reversed(self.arrived.values()), count))

    def promotable(self, eta: int) -> Iterator[str]:
        """Yield who is among the best one in `eta` of all that finished and has not gone on yet, the best first."""
        quota = len(self) // eta
        for front in self.fronts:
            for result in chosen(front, quota):
                yield result.trial_id
            quota -= len(front.results)
            if quota <= 0:
                return

    def promote(self, trial_id: str) -> None:
        """Count a trial as gone on."""
        if result := self.arrived.get(trial_id):
            waiting = self.fronts[self.level(result.losses)].waiting
            index = bisect.bisect_left(waiting, result)
            if waiting[index : index + 1] == [result]:
                del waiting[index]

    def take_back(self, trial_id: str) -> None:
        """Count a trial that was promoted as one that may go on."""
        if result := self.arrived.get(trial_id):
            bisect.insort(self.fronts[self.level(result.losses)].waiting, result)


def chosen(front: Front, quota: int) -> list[Result]:
    """Return those of a front's first `quota` results that wait."""
    if quota >= len(front.results):
        return front.waiting[:]
    return front.waiting[: bisect.bisect_left(front.waiting, front.results[quota])] if quota > 0 else []


def replaced(results: list[Result], came: list[Result], first: float, second: float) -> list[Result]:
    """Put results into a front in the place of those with both losses at least `first` and `second`; return these."""
    start = bisect.bisect_left(results, first, key=lambda result: result.losses[0])
    end = bisect.bisect_right(results, -second, key=lambda result: -result.losses[1])
    gone = results[start:end]
    results[start:end] = came
    return gone
