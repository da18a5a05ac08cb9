"""Asynchronous successive halving: who goes on to the next rung, and TPE for whoever begins."""

from collections.abc import Iterator
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from pipeline.search.oracles.bookkeeping import StudyOracle
from pipeline.search.oracles.tpe import TPEOracle, rung_of
from pipeline.search.oracles.translation import PARENT, RUNG, from_tuner, to_tuner

ETA = 3  # one in three goes on; Li et al. 2020, arXiv 1810.05934, use 4 and find 2 to 4 alike


class ASHAOracle(TPEOracle):
    """ASHA (Li et al. 2020, arXiv 1810.05934) over TPE; it never waits for a rung to be complete.

    A promotion is a new KerasTuner trial with its parent's configuration, as in KerasTuner's Hyperband.
    """

    def candidates(self, trial_id: str) -> Iterator[dict[str, Any]]:
        """Yield promotions, the highest rung first, then new configurations."""
        for level in reversed(range(self.num_rungs - 1)):
            for parent_id in self.rungs[level].promotable(ETA):
                params = from_tuner(self.space, self.trials[parent_id].hyperparameters.values)
                yield {**to_tuner(self.space, params), PARENT: parent_id, RUNG: level + 1}
        yield from super().candidates(trial_id)

    def create_trial(self, tuner_id: str) -> Trial:
        """Create a trial; its parent is promoted by that."""
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.RUNNING and trial.hyperparameters.values.get(PARENT) in self.trials:
            parent = self.trials[trial.hyperparameters.values[PARENT]]
            self.rungs[rung_of(parent)].promote(parent.trial_id)
        return trial

    def withdraw(self, slot: str) -> None:
        """Forget a trial that was refused; its parent may be promoted another time."""
        parent = self.trials.get(self.ongoing_trials[slot].hyperparameters.values.get(PARENT))
        if parent is not None:
            self.rungs[rung_of(parent)].take_back(parent.trial_id)
        StudyOracle.withdraw(self, slot)
