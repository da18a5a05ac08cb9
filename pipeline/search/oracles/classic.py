"""Random search, KerasTuner's grid and KerasTuner's Gaussian process."""

from collections.abc import Iterator
from typing import Any

import keras_tuner as kt
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from threadpoolctl import threadpool_limits

from pipeline.records import Params
from pipeline.search.oracles.bookkeeping import StudyOracle, seed_of

_MAX_OBSERVATIONS = 200  # of the Gaussian process, the latest: its cost grows with the cube


class RandomOracle(StudyOracle):
    """Every hyperparameter drawn on its own."""

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield random configurations."""
        return self.random_candidates(trial_id)


class GridOracle(StudyOracle, kt.oracles.GridSearchOracle):
    """KerasTuner's grid: all combinations, the defaults first; continuous ranges are cut into ten steps.

    KerasTuner's own waits for a trial to end before it goes on from there.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._chain = self.combinations()

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Go on where the grid is."""
        return self._chain

    def combinations(self) -> Iterator[Params]:
        """Yield the whole grid once."""
        space = self.get_space()
        values = {hp.name: hp.default for hp in space.space}
        while values is not None:
            yield values
            values = self._get_next_combination(values)


class BayesianOracle(StudyOracle, kt.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process: random for the first 3 x number of hyperparameters, then seconds per proposal."""

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield the proposal of the process, then random ones: it would repeat a proposal that was refused."""
        if len(self.completed()) >= 3 * len(self.hyperparameters.space):
            self._random_state = np.random.RandomState(seed_of(self.study_seed, trial_id, "process"))
            self.gpr = self._make_gpr()
            with threadpool_limits(1):  # its matrices are small, and the other cores train
                response = kt.oracles.BayesianOptimizationOracle.populate_space(self, trial_id)
            yield response["values"]
        yield from self.random_candidates(trial_id)

    def completed(self) -> list[Trial]:
        """Return the trials with a score."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]

    def _vectorize_trials(self) -> tuple[Any, Any]:
        """Return what the process is fitted to; a running trial counts as the worst, lest it is proposed again.

        KerasTuner asks the last fit for running trials, which is another one after a resume.
        """
        completed = self.completed()[-_MAX_OBSERVATIONS:]
        losses = [-self.goal.sign * trial.score for trial in completed]
        running = list(self.ongoing_trials.values())
        vectors = [self.vector(trial) for trial in completed + running]
        return np.array(vectors), np.array(losses + [max(losses)] * len(running))

    def vector(self, trial: Trial) -> list[float]:
        """Return a configuration as numbers in [0, 1]; what is inactive counts as its default."""
        values = trial.hyperparameters.values
        return [hp.value_to_prob(values.get(hp.name, hp.default)) for hp in self._nonfixed_space()]
