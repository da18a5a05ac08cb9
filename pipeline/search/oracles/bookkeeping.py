"""What all oracles share: a stream of candidates of which none is tried twice, no files, no lock left held."""

import contextlib
import hashlib
import math
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.engine.oracle import LOCKS, THREADS

from pipeline.records import OBJECTIVES, Objective, Params
from pipeline.search.oracles.translation import (
    PARENT,
    configurations,
    from_tuner,
    hyperparameters,
    rounded,
    to_tuner,
)
from pipeline.space import SearchSpace

COST = "cost"
"""Name of the metric that holds what is minimised beside the objective."""
_MAX_DRAWS = (
    10_000  # random configurations that were tried before, in a row; then an infinite space counts as exhausted
)
_FINITE_DRAWS = 100  # of a finite space: then its configurations are gone through in order instead

Costs = Callable[[Params], tuple[float, ...]]


class StudyOracle(kt.Oracle):
    """A `kt.Oracle` that keeps no files and whose proposals are a function of its seed and of the trials before.

    A subclass says in `candidates` what it would propose; what was tried or withdrawn before is passed over here.
    """

    def __init__(self, space: SearchSpace, seed: int, objective: Objective, num_rungs: int, costs: Costs) -> None:
        super().__init__(
            objective=kt.Objective(objective.name, OBJECTIVES[objective.name]),
            max_trials=None,
            seed=1,  # KerasTuner's own draws are not used: its neighbouring seeds give shifted copies of one sequence
            hyperparameters=hyperparameters(space),
            allow_new_entries=False,
        )
        self.space = space
        self.study_seed = seed
        self.goal = objective
        self.num_rungs = num_rungs
        self.costs = costs
        self.verbose = 0
        self._given: Params | None = None
        self._stream: Iterator[Params] | None = None
        self._may_begin = True
        self._untried = configurations(space)

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield KerasTuner's values for a new trial, the best first; it ends where the oracle knows no more."""
        raise NotImplementedError

    def random_candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield random configurations; of a finite space in the end those that were not tried yet."""
        rng = random.Random(seed_of(self.study_seed, trial_id, "random"))
        is_finite = math.isfinite(self.space.size())
        for _ in range(_FINITE_DRAWS if is_finite else _MAX_DRAWS):
            yield to_tuner(self.space, self.space.sample(rng))
        # Kept between asks, since what it yielded was tried; `yield from` would close it together with this stream.
        for params in self._untried if is_finite else ():
            yield to_tuner(self.space, params)

    def populate_space(self, trial_id: str) -> Params:
        """Return the values that were given, or the next candidate that is new (KerasTuner's hook)."""
        if self._given is not None:
            values, self._given = self._given, None
            return {"status": TrialStatus.RUNNING, "values": values}
        self._stream = self._stream or self.candidates(trial_id)
        for values in self._stream:
            if PARENT not in values:
                if not self._may_begin:
                    break
                values = to_tuner(self.space, from_tuner(self.space, values))
            if PARENT in values or not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def propose(self, slot: str) -> Trial | None:
        """Return a new running trial, or None. Until `settle` the next call goes on in the same stream."""
        trial = self.create_trial(slot)
        return trial if trial.status == TrialStatus.RUNNING else None

    def settle(self, may_begin: bool) -> None:
        """End the stream of candidates: the next proposal looks at the results anew, for promotions only or for all."""
        self._stream, self._may_begin = None, may_begin

    def begin(self, slot: str, values: Mapping[str, Any]) -> Trial:
        """Return a running trial with these values, as if they had been proposed."""
        self._given = dict(values)
        return self.create_trial(slot)

    def withdraw(self, slot: str) -> None:
        """Forget the trial that was just proposed and refused, but not that its configuration was proposed."""
        trial = self.ongoing_trials.pop(slot)
        del self.trials[trial.trial_id]
        self.start_order.pop()  # it was the last to start; to look for it takes longer the more trials there are
        self._id_to_hash.pop(trial.trial_id)  # the next trial gets this id, and would free the configuration

    def score_trial(self, trial: Trial) -> None:
        """Score a trial by its last value: the best one of several epochs would be chosen by its luck."""
        history = trial.metrics.get_history(self.objective.name)
        trial.score, trial.best_step = history[-1].mean(), history[-1].step

    def create_trial(self, tuner_id: str) -> Trial:
        """Create a trial; see KerasTuner."""
        with _guarded(self):
            return super().create_trial(tuner_id)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Report values; see KerasTuner."""
        with _guarded(self):
            return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """End a trial; see KerasTuner."""
        with _guarded(self):
            super().end_trial(trial)

    def save(self, *arguments: Any, **options: Any) -> None:
        """Write nothing: the study is the only state."""

    def _save_trial(self, trial: Trial) -> None:
        pass

    def _check_consecutive_failures(self) -> None:
        """Never end a search because of failures; KerasTuner's own goes through all trials each time."""

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        own = {name: rounded(value) for name, value in values.items() if not name.startswith("tuner/")}
        hashed: str = super()._compute_values_hash(own)
        return hashed


def seed_of(*parts: Any) -> int:
    """Return a seed in [0, 2^32) that differs in all bits where one of the parts differs."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


@contextlib.contextmanager
def _guarded(oracle: kt.Oracle) -> Iterator[None]:
    """Give back KerasTuner's lock after an exception, which it does not do itself, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own deprecated calls, and scikit-learn's about its fits
            yield
    except BaseException:
        if THREADS[oracle] == threading.current_thread().name:
            THREADS[oracle] = None
            LOCKS[oracle].release()
        raise
