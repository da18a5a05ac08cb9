"""KerasTuner's oracles, told and asked one trial at a time; the only home of keras_tuner."""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.trial import Trial, TrialStatus

from pipeline.errors import SpaceError
from pipeline.space import Param, SearchSpace

OBJECTIVE = "val_accuracy"
PROPOSING_SECONDS = 10.0  # for refused proposals in a row; a random one takes a millisecond, a Bayesian one seconds
SEED_STRIDE = 1_000_003  # KerasTuner's seeds s and s + #params give shifted copies of one sequence: keep ours far apart
SLOT = "pipeline"


class InMemory:
    """An oracle that writes no files (the study is the only state) and never ends a search because of failures."""

    def save(self, *arguments: Any, **options: Any) -> None:
        """Write nothing."""

    def _save_trial(self, trial: Trial) -> None:
        pass

    def _check_consecutive_failures(self) -> None:
        pass

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        rounded = {name: rounded_float(value) for name, value in values.items()}
        return super()._compute_values_hash(rounded)  # type: ignore[misc]


class RandomOracle(InMemory, kt.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class BayesianOracle(InMemory, kt.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process: random for the first 3 x number of hyperparameters, then seconds per proposal."""


class GridOracle(InMemory, kt.oracles.GridSearchOracle):
    """KerasTuner's grid: all combinations; continuous ranges are cut into ten steps."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next combination; KerasTuner's own waits for a trial to end before it goes on from there."""
        response: dict[str, Any] = super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            self._populate_next.append(trial_id)
        return response


ORACLES: dict[str, type] = {"random": RandomOracle, "bayesian": BayesianOracle, "grid": GridOracle}


def hyperparameters(space: SearchSpace) -> kt.HyperParameters:
    """Declare the whole space, with conditions, up front: KerasTuner never builds a model to discover it."""
    hp = kt.HyperParameters()
    for param in space.params:
        scope = hp.conditional_scope(param.when[0], list(param.when[1])) if param.when else contextlib.nullcontext()
        with scope:
            declare(hp, param, tuner_name(space, param))
    return hp


def tuner_name(space: SearchSpace, param: Param) -> str:
    """Return what KerasTuner calls a hyperparameter: its name, made unique if it has several conditional variants.

    KerasTuner allows one name in several scopes, but its grid keeps one range per name.
    """
    if param.when is None or sum(other.name == param.name for other in space.params) == 1:
        return param.name
    return f"{param.name} ({param.when[0]} {'/'.join(map(str, param.when[1]))})"


def declare(hp: kt.HyperParameters, param: Param, name: str) -> None:
    """Declare one hyperparameter."""
    if param.kind == "choice":
        hp.Choice(name, list(param.values), default=param.default)
    elif param.kind == "boolean":
        hp.Boolean(name, default=param.default)
    elif param.kind == "fixed":
        hp.Fixed(name, param.default)
    elif param.kind == "int":
        step = param.step or (None if param.sampling == "log" else 1)
        hp.Int(name, param.min_value, param.max_value, step=step, sampling=param.sampling, default=param.default)
    elif param.step:  # KerasTuner's stepped floats lose their maximum to rounding (0.0 to 0.3 by 0.1 never gives 0.3)
        hp.Choice(name, list(param.grid() or ()), default=param.default)
    else:
        hp.Float(
            name,
            param.min_value,
            param.max_value,
            step=param.step,
            sampling=param.sampling,
            default=param.default,
        )


def from_tuner(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the active configuration that KerasTuner's values mean; floats keep six digits."""
    params: dict[str, Any] = {}
    for param in space.params:
        name = tuner_name(space, param)
        if name in values and (param.when is None or params.get(param.when[0]) in param.when[1]):
            params[param.name] = rounded_float(values[name])
    return params


def rounded_float(value: Any) -> Any:
    """Return a float with six significant digits, as it is kept; anything else unchanged."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def to_tuner(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return KerasTuner's values of an active configuration, to the last bit where a step makes them a grid."""
    values: dict[str, Any] = {}
    for param in space.params:
        if param.name in params and (param.when is None or params.get(param.when[0]) in param.when[1]):
            values[tuner_name(space, param)] = params[param.name]
    return values


class Proposer:
    """One oracle behind three verbs: `propose` the next configuration, `tell` its score, `replay` an earlier trial."""

    def __init__(self, oracle: str, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.oracle = ORACLES[oracle](
            objective=kt.Objective(OBJECTIVE, "max"),
            max_trials=None,
            seed=1 + seed * SEED_STRIDE,  # KerasTuner takes a seed of 0 for "random"
            hyperparameters=hyperparameters(space),
            allow_new_entries=False,
        )
        self.oracle._max_collisions = 10_000  # its default of 20 declares small spaces exhausted too early
        self.oracle.verbose = 0
        self.running: dict[int, Trial] = {}

    def propose(self, number: int, is_acceptable: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """Return the next acceptable configuration, or None when the space is exhausted or the oracle has to wait.

        Refused proposals are ended as failed, so that no oracle repeats them; after PROPOSING_SECONDS of them None is
        returned.
        """
        end = time.monotonic() + PROPOSING_SECONDS
        while time.monotonic() < end:
            with quiet():
                trial = self.oracle.create_trial(f"{SLOT}-{number}")
            if trial.status != TrialStatus.RUNNING:
                return None
            params = from_tuner(self.space, trial.hyperparameters.values)
            if is_acceptable(params):
                self.running[number] = trial
                return params
            self.end(trial, None)
        return None

    def replay(self, number: int, params: Mapping[str, Any]) -> None:
        """Bring the oracle to where it was after trial `number` was proposed, by it or by someone else."""
        if isinstance(self.oracle, GridOracle):  # its order is a chain in which every link must have been proposed
            if self.propose(number, lambda proposed: dict(proposed) == dict(params)) is None:
                raise SpaceError(
                    f"trial {number} {dict(params)} is not in the grid; expected the space that the study began with"
                )
            return
        values = self.oracle.get_space()
        values.values = to_tuner(self.space, params)
        trial = Trial(hyperparameters=values, trial_id=f"replayed-{number}", status=TrialStatus.RUNNING)
        self.oracle.trials[trial.trial_id] = trial
        self.oracle.start_order.append(trial.trial_id)
        self.oracle.ongoing_trials[f"{SLOT}-{number}"] = trial
        self.oracle._record_values(trial)
        self.running[number] = trial

    def tell(self, number: int, score: float | None) -> None:
        """Report the score of a running trial; None for one that failed."""
        self.end(self.running.pop(number), score)

    def end(self, trial: Trial, score: float | None) -> None:
        """End a trial in the oracle."""
        with quiet():
            if score is not None:
                self.oracle.update_trial(trial.trial_id, {OBJECTIVE: score})
            trial.status = TrialStatus.FAILED if score is None else TrialStatus.COMPLETED
            self.oracle.end_trial(trial)


@contextlib.contextmanager
def quiet() -> Any:
    """Silence KerasTuner's deprecation warnings about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
