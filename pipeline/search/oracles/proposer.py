"""The study's side of an oracle: trial numbers, rungs and values; KerasTuner's trials and ids stay inside."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from keras_tuner.engine.trial import Trial, TrialStatus

from pipeline.records import Objective, Params
from pipeline.search.oracles.asha import ASHAOracle
from pipeline.search.oracles.bookkeeping import COST, Costs, StudyOracle
from pipeline.search.oracles.classic import BayesianOracle, GridOracle, RandomOracle
from pipeline.search.oracles.tpe import TPEOracle
from pipeline.search.oracles.translation import PARENT, RUNG, from_tuner, to_tuner
from pipeline.space import SearchSpace

ORACLES: dict[str, type[StudyOracle]] = {
    "asha": ASHAOracle,
    "tpe": TPEOracle,
    "random": RandomOracle,
    "grid": GridOracle,
    "bayesian": BayesianOracle,
}
_MAX_REFUSALS = 1_000  # proposals in a row that were not acceptable; then the space counts as exhausted


@dataclass(frozen=True)
class Proposal:
    """Train trial `number` to the end of `rung`; rung 0 begins a new trial. `params` are the active hyperparameters."""

    number: int
    rung: int
    params: Params


def _no_costs(params: Params) -> tuple[float, ...]:
    """Say nothing about what a configuration costs."""
    return ()


class Proposer:
    """One oracle behind four verbs: `propose`, `begin`, `report`, `tell`. It keeps no files.

    What it proposes is a function of the seed and of the calls of `begin` (or accepted proposals) and `tell` before, in
    their order: a study that replays them goes on as if it had never stopped. `costs` orders trials of equal score, the
    cheaper first, such as (FLOPs, parameters).
    """

    def __init__(
        self,
        oracle: str,
        space: SearchSpace,
        seed: int,
        objective: Objective,
        num_rungs: int,
        costs: Costs = _no_costs,
    ) -> None:
        self.space = space
        self.objective = objective
        self.oracle = ORACLES[oracle](space, seed, objective, num_rungs, costs)
        self.running: dict[tuple[int, int], Trial] = {}
        self.numbers: dict[str, int] = {}  # by KerasTuner's id of a trial
        self.latest: dict[int, str] = {}  # KerasTuner's id of the highest rung, by number
        self.steps: dict[str, int] = {}  # the last one that a running trial reported

    def propose(self, next_number: int | None, is_acceptable: Callable[[Proposal], bool]) -> Proposal | None:
        """Return what to train next; None if the space is exhausted, or trials that run must end first.

        Without `next_number` no trial begins; one may go on.

        A refused new configuration is never proposed again; a refused promotion is passed over this time.
        """
        self.oracle.settle(next_number is not None)
        for _ in range(_MAX_REFUSALS):
            slot = self.free_slot()
            trial = self.oracle.propose(slot)
            if trial is None:
                return None
            proposal = self.proposal(trial, next_number)
            if is_acceptable(proposal):
                self.note(proposal.number, proposal.rung, trial)
                return proposal
            self.oracle.withdraw(slot)
        return None

    def begin(self, number: int, rung: int, params: Params) -> None:
        """Count a training that the study itself began, as if it had been proposed."""
        if (number, rung) in self.running:
            return
        values = to_tuner(self.space, params)
        if rung > 0:
            values |= {PARENT: self.latest.get(number, ""), RUNG: rung}
        self.note(number, rung, self.oracle.begin(self.free_slot(), values))

    def report(self, number: int, rung: int, step: int, value: float) -> None:
        """Report the objective after an epoch; it decides nothing."""
        if math.isfinite(value):
            trial_id = self.running[number, rung].trial_id
            self.steps[trial_id] = max(step, self.steps.get(trial_id, 0))
            self.oracle.update_trial(trial_id, {self.objective.name: value}, step)

    def tell(self, number: int, rung: int, values: tuple[float, ...] | None) -> None:
        """End a rung with (objective,), or (objective, cost) where a cost is minimised; None for a failure."""
        trial = self.running.pop((number, rung))
        trial.status = TrialStatus.FAILED
        if values is not None and all(map(math.isfinite, values)):
            trial.status = TrialStatus.COMPLETED
            names = (self.objective.name, COST)
            step = self.steps.pop(trial.trial_id, 0) + 1  # after the last report, whose value would be averaged with it
            self.oracle.update_trial(trial.trial_id, dict(zip(names, values, strict=False)), step)
        self.oracle.end_trial(trial)

    def free_slot(self) -> str:
        """Return a name that no running trial has; KerasTuner gives a worker that asks twice its trial again."""
        return str(len(self.oracle.trials))

    def proposal(self, trial: Trial, next_number: int | None) -> Proposal:
        """Return a trial of KerasTuner as the study knows it."""
        values = trial.hyperparameters.values
        number = self.numbers[values[PARENT]] if PARENT in values else next_number
        if number is None:
            raise RuntimeError("a new trial was proposed where none may begin")
        return Proposal(number, values.get(RUNG, 0), from_tuner(self.space, values))

    def note(self, number: int, rung: int, trial: Trial) -> None:
        """Remember which trial is which."""
        self.running[number, rung] = trial
        self.numbers[trial.trial_id] = number
        self.latest[number] = trial.trial_id
