"""A SearchSpace and its configurations in KerasTuner's words, and back; nothing is proposed here."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras_tuner as kt

from pipeline.records import Params
from pipeline.space import Param, SearchSpace, is_active

PARENT = "tuner/trial_id"
RUNG = "tuner/rung"
"""The words of KerasTuner's Hyperband for a trial that goes on: id of the trial that it continues, and its new rung."""


class DeclaredSpace(kt.HyperParameters):
    """Hyperparameters that never change once declared: copies share them and have only values of their own.

    KerasTuner's copy goes through a dictionary, several times a trial, and every trial would keep a space.
    """

    def copy(self) -> "DeclaredSpace":
        """Return the same space with values that can be changed."""
        twin = DeclaredSpace()
        twin._hps, twin._space, twin.values = self._hps, self._space, dict(self.values)
        return twin


def hyperparameters(space: SearchSpace) -> DeclaredSpace:
    """Declare the whole space, with conditions, up front: KerasTuner never builds a model to discover it."""
    hp = DeclaredSpace()
    for param in space.params:
        scope = hp.conditional_scope(param.when[0], list(param.when[1])) if param.when else contextlib.nullcontext()
        with scope:
            _declare(hp, param, _tuner_name(space, param))
    hp.values = {}
    return hp


def _tuner_name(space: SearchSpace, param: Param) -> str:
    """Return what KerasTuner calls a hyperparameter: its name, made unique if it has several conditional variants.

    KerasTuner allows one name in several scopes, but its grid keeps one range per name.
    """
    if param.when is None or sum(other.name == param.name for other in space.params) == 1:
        return param.name
    return f"{param.name} ({param.when[0]} {'/'.join(map(str, param.when[1]))})"


def _declare(hp: kt.HyperParameters, param: Param, name: str) -> None:
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
        hp.Float(name, param.min_value, param.max_value, sampling=param.sampling, default=param.default)


def from_tuner(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the active configuration that KerasTuner's values mean; continuous floats keep six digits."""
    params: dict[str, Any] = {}
    for param in space.params:
        name = _tuner_name(space, param)
        if name in values and is_active(param, params):
            params[param.name] = kept(param, values[name])
    return params


def kept(param: Param, value: Any) -> Any:
    """Return a value as a trial has it: of a continuous range six significant digits, within the range."""
    if param.min_value is None or param.max_value is None or param.grid() is not None:
        return value
    return min(max(rounded(value), param.min_value), param.max_value)


def rounded(value: Any) -> Any:
    """Return a float with six significant digits, which tell two configurations apart; anything else unchanged."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def to_tuner(space: SearchSpace, params: Params) -> dict[str, Any]:
    """Return KerasTuner's values of an active configuration."""
    values: dict[str, Any] = {}
    for param in space.params:
        if param.name in params and is_active(param, params):
            values[_tuner_name(space, param)] = params[param.name]
    return values


def configurations(space: SearchSpace, begun: Mapping[str, Any] | None = None, index: int = 0) -> Iterator[Params]:
    """Yield every configuration of a finite space once, the last hyperparameter varying fastest."""
    values = dict(begun or {})
    if index == len(space.params):
        yield values
        return
    param = space.params[index]
    if not is_active(param, values):
        yield from configurations(space, values, index + 1)
        return
    for value in param.grid() or ():
        yield from configurations(space, {**values, param.name: value}, index + 1)
