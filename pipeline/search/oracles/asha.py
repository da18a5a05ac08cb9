"""Asynchronous successive halving: who goes on to the next rung; who begins varies the best, later TPE proposes."""

import random
from collections.abc import Iterator
from itertools import chain
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from pipeline.records import Params
from pipeline.search.oracles.bookkeeping import StudyOracle, seed_of
from pipeline.search.oracles.tpe import TPEOracle, rung_of
from pipeline.search.oracles.translation import PARENT, RUNG, from_tuner, to_tuner
from pipeline.space import KNOWN_PARAMS

# Judgements: a search of an hour on two cores has some 20 to 30 results.
_NUM_LOCAL = 20  # results of the lowest rung before the estimator is asked; until then the best of them are varied
NUM_PARENTS, CHANGED_PART = 3, 0.25  # of how many of the best, and how much of one: some four of sixteen values
_MAX_NEIGHBOURS = 10  # of one ask, tried before or refused; then the estimator is asked
_ETA = 3  # one in three goes on; Li et al. 2020, arXiv 1810.05934, use 4 and find 2 to 4 alike
_NUM_RIVALS = 3  # of how many of the best of the last rung but one the augmentation may decide: a judgement
_POLICIES = KNOWN_PARAMS["augment"].choices  # from none to strong


class ASHAOracle(TPEOracle):
    """ASHA (Li et al. 2020, arXiv 1810.05934) over TPE; it never waits for a rung to be complete.

    The first configurations are neighbours of the best: of sixteen hyperparameters an estimator knows nothing after the
    few networks that most searches have time for, and draws at random. A promotion is a new KerasTuner trial with its
    parent's configuration, as in KerasTuner's Hyperband.

    To the highest rung one more goes on beside the best third: one of the best that has more augmentation than all that
    went there. What augmentation gains it gains in long trainings (docs/search.md).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.finalists: list[int] = []  # the augmentation of each that went on to the highest rung

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield promotions, the highest rung first, then new configurations."""
        for level in reversed(range(self.num_rungs - 1)):
            for parent_id in chain(self.rungs[level].promotable(_ETA), self.rivals(level)):
                params = from_tuner(self.space, self.trials[parent_id].hyperparameters.values)
                yield {**to_tuner(self.space, params), PARENT: parent_id, RUNG: level + 1}
        if len(self.rungs[0].arrived) < _NUM_LOCAL:
            yield from self.neighbours(trial_id)
        yield from super().candidates(trial_id)

    def rivals(self, level: int) -> Iterator[str]:
        """Yield who of the best that may go on to the highest rung has more augmentation than all that went there."""
        if level < self.num_rungs - 2 or not self.finalists:
            return
        most = max(self.finalists)
        for result in self.rungs[level].best(_NUM_RIVALS):
            if self.augmentation(self.trials[result.trial_id]) > most:
                yield result.trial_id

    def augmentation(self, trial: Trial) -> int:
        """Return how much the images of a trial are changed while it trains: the place of its policy, none is 0."""
        policy = from_tuner(self.space, trial.hyperparameters.values).get("augment")
        return _POLICIES.index(policy) if policy in _POLICIES else 0

    def neighbours(self, trial_id: str) -> Iterator[Params]:
        """Yield configurations that differ a little from one of the best of the lowest rung, if there is any."""
        rng = random.Random(seed_of(self.study_seed, trial_id, "neighbour"))
        best = self.rungs[0].best(NUM_PARENTS)
        parents = [from_tuner(self.space, self.trials[each.trial_id].hyperparameters.values) for each in best]
        for _ in range(_MAX_NEIGHBOURS if parents else 0):
            yield to_tuner(self.space, self.space.neighbour(rng.choice(parents), rng, CHANGED_PART))

    def create_trial(self, tuner_id: str) -> Trial:
        """Create a trial; its parent is promoted by that."""
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.RUNNING and trial.hyperparameters.values.get(PARENT) in self.trials:
            parent = self.trials[trial.hyperparameters.values[PARENT]]
            self.rungs[rung_of(parent)].promote(parent.trial_id)
            if rung_of(trial) == self.num_rungs - 1:
                self.finalists.append(self.augmentation(trial))
        return trial

    def withdraw(self, slot: str) -> None:
        """Forget a trial that was refused; its parent may be promoted another time."""
        trial = self.ongoing_trials[slot]
        parent = self.trials.get(trial.hyperparameters.values.get(PARENT))
        if parent is not None:
            self.rungs[rung_of(parent)].take_back(parent.trial_id)
            if rung_of(trial) == self.num_rungs - 1:
                self.finalists.pop()  # the newest
        StudyOracle.withdraw(self, slot)
