"""Optuna's tree-structured Parzen estimator as a `kt.Oracle`."""

from collections import defaultdict
from collections.abc import Container, Iterator
from typing import Any

import optuna
from keras_tuner.engine.hyperparameters import Choice, Fixed, Float, HyperParameter, Int
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.records import Params
from pipeline.search.oracles.bookkeeping import COST, StudyOracle, seed_of
from pipeline.search.oracles.rung import Rung
from pipeline.search.oracles.translation import RUNG, from_tuner

_NUM_STARTUP = 10  # random trials before the estimator is trusted; Optuna's default
NUM_BEST, NUM_RECENT, NUM_FAILED = 25, 50, 25  # what an ask looks at, so that its cost stays flat
_MANY_TRIALS = 1_000  # beyond them the estimator is asked ever more rarely, and else chance: 10,000 must cost a minute
_MAX_ATTEMPTS = 10  # proposals of the estimator that were tried before; then a random one is taken


class TPEOracle(StudyOracle):
    """Optuna's TPE (Bergstra et al. 2011; multivariate: Falkner et al. 2018), made anew for each ask.

    It learns from the highest rung with enough results, as BOHB does; the best and the latest of them, and the latest
    failures, which count as the worst. Running trials count as bad, so that several workers spread out.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.rungs: defaultdict[int, Rung] = defaultdict(Rung)
        self.varied = [hp for hp in self.hyperparameters.space if not isinstance(hp, Fixed)]
        self.distributions = {hp.name: distribution(hp) for hp in self.varied}
        self.joint = {hp.name: self.distributions[hp.name] for hp in self.varied if not hp.conditions}
        self._observed: dict[tuple[str, str], FrozenTrial] = {}  # what the last ask looked at, by id and status

    def candidates(self, trial_id: str) -> Iterator[Params]:
        """Yield proposals of the estimator, each with a seed of its own, then random ones."""
        is_estimated = seed_of(self.study_seed, trial_id, "by chance") % max(len(self.trials), 1) < _MANY_TRIALS
        for attempt in range(_MAX_ATTEMPTS if is_estimated else 0):
            yield self.suggest(seed_of(self.study_seed, trial_id, attempt))
        yield from self.random_candidates(trial_id)

    def suggest(self, seed: int) -> Params:
        """Return what the estimator proposes: hyperparameters are asked in their order, inactive ones never."""
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if self.goal.sign > 0 else down, *([down] if self.goal.minimise else [])]
        study = optuna.create_study(
            storage=_Observations(self.observations()),
            sampler=_Sampler(self.joint, n_startup_trials=_NUM_STARTUP, seed=seed, multivariate=True),
            directions=directions,
        )
        trial = study.ask()
        hps = self.get_space()
        for hp in hps.space:
            if hps.is_active(hp):
                hps.values[hp.name] = hp.value if isinstance(hp, Fixed) else self.suggested(trial, hp)
        return dict(hps.values)

    def suggested(self, trial: optuna.Trial, hp: HyperParameter) -> Any:
        """Return the estimator's value of one hyperparameter."""
        found = self.distributions[hp.name]
        if isinstance(found, FloatDistribution):
            return trial.suggest_float(hp.name, found.low, found.high, log=found.log)
        if isinstance(found, IntDistribution):
            value = trial.suggest_int(hp.name, found.low, found.high, step=found.step, log=found.log)
            return hp.values[value] if isinstance(hp, Choice) else value
        return trial.suggest_categorical(hp.name, hp.values)

    def observations(self) -> list[FrozenTrial]:
        """Return what the estimator learns from, numbered from 1 in the order in which it was proposed."""
        needed = max(_NUM_STARTUP, len(self.distributions) + 3)  # BOHB: N_min + 2 with N_min = d + 1
        level = max((level for level, rung in self.rungs.items() if len(rung.arrived) >= needed), default=0)
        rung = self.rungs[level]
        ids = {result.trial_id for result in (*rung.best(NUM_BEST), *rung.latest(NUM_RECENT))}
        ids |= {trial_id for other in list(self.rungs.values()) for trial_id in other.failed[-NUM_FAILED:]}
        ids |= {trial.trial_id for trial in self.ongoing_trials.values()}
        trials = [self.trials[trial_id] for trial_id in sorted(ids, key=int)]
        keys = [(trial.trial_id, trial.status) for trial in trials]
        known = self._observed
        self._observed = {key: known.get(key) or self.observed(trial) for key, trial in zip(keys, trials, strict=True)}
        for number, observed in enumerate(self._observed.values(), start=1):
            observed.number = number
        return list(self._observed.values())

    def observed(self, trial: Trial) -> FrozenTrial:
        """Return one trial as Optuna sees it."""
        values = trial.hyperparameters.values
        params = {hp.name: self.encoded(hp, values[hp.name]) for hp in self.varied if hp.name in values}
        states = {TrialStatus.COMPLETED: TrialState.COMPLETE, TrialStatus.RUNNING: TrialState.RUNNING}
        return optuna.trial.create_trial(
            state=states.get(trial.status, TrialState.PRUNED),  # TPE ignores what Optuna calls failed
            values=self.results(trial) if trial.status == TrialStatus.COMPLETED else None,
            params=params,
            distributions={name: self.distributions[name] for name in params},
        )

    def encoded(self, hp: HyperParameter, value: Any) -> Any:
        """Return a value as its distribution has it."""
        if isinstance(hp, Choice) and isinstance(self.distributions[hp.name], IntDistribution):
            return min(range(len(hp.values)), key=lambda index: abs(hp.values[index] - value))  # 0.1 + 0.2 means 0.3
        return value

    def results(self, trial: Trial) -> tuple[float, ...]:
        """Return the score of a completed trial, and its cost where that is minimised."""
        cost = (float(trial.metrics.get_last_value(COST)),) if self.goal.minimise else ()
        return (float(trial.score), *cost)

    def end_trial(self, trial: Trial) -> None:
        """End a trial and enter it into its rung."""
        super().end_trial(trial)
        trial = self.trials[trial.trial_id]
        rung = self.rungs[rung_of(trial)]
        if trial.status != TrialStatus.COMPLETED:
            rung.fail(trial.trial_id)
            return
        score, *cost = self.results(trial)
        costs = self.costs(from_tuner(self.space, trial.hyperparameters.values))
        rung.add(trial.trial_id, (-self.goal.sign * score, *cost), costs)


class _Sampler(optuna.samplers.TPESampler):
    """TPE that gets the hyperparameters that every trial has; finding them out takes a third of its time."""

    def __init__(self, joint: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self.joint = joint

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the hyperparameters that are drawn together."""
        return {name: found for name, found in self.joint.items() if not found.single()}


class _Observations(optuna.storages.InMemoryStorage):
    """A storage that shows the sampler a bounded list of earlier trials, without copying them each time."""

    def __init__(self, observed: list[FrozenTrial]) -> None:
        super().__init__()
        self.observed = observed

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the earlier trials and the one that is being asked for."""
        own = super().get_all_trials(study_id, deepcopy, states)
        return own + [trial for trial in self.observed if states is None or trial.state in states]


def rung_of(trial: Trial) -> int:
    """Return the rung that a trial trains."""
    return int(trial.hyperparameters.values.get(RUNG, 0))


def distribution(hp: HyperParameter) -> BaseDistribution:
    """Return a hyperparameter as Optuna knows it; a choice of numbers becomes its index, so that it has an order."""
    if isinstance(hp, Choice) and not isinstance(hp.values[0], str):
        return IntDistribution(0, len(hp.values) - 1)
    if isinstance(hp, Int):
        return IntDistribution(hp.min_value, hp.max_value, step=hp.step or 1, log=hp.sampling == "log")
    if isinstance(hp, Float):
        return FloatDistribution(hp.min_value, hp.max_value, log=hp.sampling == "log")
    return CategoricalDistribution(list(hp.values))
