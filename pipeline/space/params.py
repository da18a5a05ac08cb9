"""The hyperparameters that networks understand, and what one dimension of a space is; no files here."""

import difflib
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SpaceError
from pipeline.parts import ACTIVATIONS, BACKBONES, BLOCKS, HEADS, NORMS, POOLINGS, is_pretrained
from pipeline.records import Params

Value = bool | int | float | str

LARGEST = 1_000_000
"""The largest number in a space: far above any network, and counting with it never overflows."""


@dataclass(frozen=True)
class Known:
    """What one hyperparameter may be. `kind` is int, float, boolean or text; `choices` the legal texts."""

    kind: str
    expected: str
    is_legal: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def _one_of(*choices: str) -> Known:
    """Return a hyperparameter that is one of some texts."""
    return Known("text", f"one of {', '.join(choices)}", lambda value: value in choices, choices)


def whole(minimum: int) -> Known:
    """Return a hyperparameter that is a whole number not below `minimum`."""
    return Known("int", f"a whole number >= {minimum}", lambda value: minimum <= value <= LARGEST)


_SHARE = Known("float", "a number >= 0 and < 1", lambda value: 0 <= value < 1)
_POSITIVE = Known("float", "a number > 0", lambda value: 0 < value <= LARGEST)

KNOWN_PARAMS: dict[str, Known] = {
    "backbone": Known(
        "text",
        f"none, {', '.join(BACKBONES)}, or hub: and a preset of keras-hub, by name or as an absolute path",
        lambda value: value == "none" or is_pretrained(value),
        ("none", *BACKBONES),
    ),
    "depth": whole(1),
    "convs_per_stage": whole(1),
    "filters": whole(1),
    "filters_growth": _POSITIVE,
    "kernel_size": Known("int", "an odd number from 1 to 11", lambda value: 1 <= value <= 11 and value % 2 == 1),
    "block": _one_of(*BLOCKS),
    "squeeze_excite": Known("boolean", "true or false", lambda value: True),
    "norm": _one_of(*NORMS),
    "activation": _one_of(*ACTIVATIONS),
    "pooling": _one_of(*POOLINGS),
    "pool_after": _one_of("last", "first"),
    "head": _one_of(*HEADS),
    "dense_layers": whole(0),
    "dense_units": whole(1),
    "dropout": _SHARE,
    "resolution": Known("float", "a number > 0, at most 1", lambda value: 0 < value <= 1),
    "optimizer": _one_of("adamw", "sgd", "muon"),
    "learning_rate": _POSITIVE,
    "backbone_rate": Known("float", "a number >= 0, at most 1", lambda value: 0 <= value <= 1),
    "frozen": _SHARE,
    "weight_decay": _SHARE,
    "label_smoothing": _SHARE,
    "batch_size": whole(1),
    "augment": _one_of("none", "light", "standard", "strong"),
}

DEFAULTS: dict[str, Value] = {
    "backbone": "none",
    "depth": 3,
    "convs_per_stage": 1,
    "filters": 32,
    "filters_growth": 2.0,
    "kernel_size": 3,
    "block": "plain",
    "squeeze_excite": False,
    "norm": "batch",
    "activation": "relu",
    "pooling": "max",
    "pool_after": "last",
    "head": "gap",
    "dense_layers": 0,
    "dense_units": 128,
    "dropout": 0.1,
    "resolution": 1.0,
    "optimizer": "muon",
    "learning_rate": 6e-2,
    "backbone_rate": 0.1,
    "frozen": 0.2,
    "weight_decay": 6e-5,
    "label_smoothing": 0.1,
    "batch_size": 64,
    "augment": "standard",
}


_PRETRAINED_DEFAULTS = {**DEFAULTS, "optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 32}
"""Of a configuration with a pretrained network: a step of Muon is too large for it (docs/recipe.md)."""


def defaults_for(params: Params) -> dict[str, Value]:
    """Return the defaults of a configuration, which depend on whether it begins with a pretrained network."""
    return _PRETRAINED_DEFAULTS if is_pretrained(params.get("backbone")) else DEFAULTS


def complete(params: Params) -> Params:
    """Return all hyperparameters, those that `params` leaves out at their defaults.

    Raises:
        SpaceError: a name that no network understands.
    """
    for name in params:
        if name not in KNOWN_PARAMS:
            raise SpaceError(
                f"params.{name} is not a hyperparameter; expected {', '.join(KNOWN_PARAMS)}; "
                f"{suggestion(name, KNOWN_PARAMS)}"
            )
    return {**defaults_for(params), **params}


BODY = (
    "depth", "convs_per_stage", "filters", "filters_growth", "kernel_size", "block", "squeeze_excite", "norm",
    "activation", "pooling", "pool_after",
)  # fmt: skip
"""The hyperparameters of what a backbone takes the place of."""
RECIPE = ("optimizer", "learning_rate", "weight_decay", "label_smoothing", "batch_size", "augment")
"""The hyperparameters that say how a network is trained, whoever builds it."""
THAWING = ("backbone_rate", "frozen")
"""Those that say how a pretrained part of it is; code of the user may have other uses for these names."""


def recipe(params: Params) -> Params:
    """Return the hyperparameters of RECIPE, with a backbone those of THAWING; what `params` leaves out by default."""
    names = RECIPE if params.get("backbone", "none") == "none" else (*RECIPE, *THAWING)
    return {name: params.get(name, defaults_for(params)[name]) for name in names}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message on a misspelt name: what to do."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "remove it, or use one of these names"


@dataclass(frozen=True)
class Param:
    """One dimension of a space; `kind` is int, float, choice, boolean or fixed, in KerasTuner's sense.

    `values` belong to choice, boolean and fixed, the next four fields to int and float; bounds are inclusive.
    `when` is (parent, its values): the hyperparameter exists only where the parent has one of them.
    """

    name: str
    kind: str
    values: tuple[Value, ...] = ()
    min_value: float | None = None
    max_value: float | None = None
    step: float | None = None
    sampling: str = "linear"
    default: Any = None
    when: tuple[str, tuple[Value, ...]] | None = None

    def grid(self) -> Sequence[Value] | None:
        """Return every value in order; None for a continuous range."""
        if self.min_value is None or self.max_value is None:
            return self.values
        if self.kind == "int":
            return range(int(self.min_value), int(self.max_value) + 1, int(self.step or 1))
        if self.step is None:
            return None
        count = round((self.max_value - self.min_value) / self.step) + 1
        return tuple(round(self.min_value + index * self.step, 12) for index in range(count))

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is one of the values; floats are compared up to rounding."""
        if self.min_value is None or self.max_value is None:
            return any(is_same(value, own) for own in self.values)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        if self.kind == "int":
            return value in (self.grid() or ())
        # min * (max / min) ** 1.0 may end one rounding above max.
        slack = 1e-9 * max(abs(self.min_value), abs(self.max_value))
        if not self.min_value - slack <= value <= self.max_value + slack:
            return False
        steps = (value - self.min_value) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-6)

    def sample(self, rng: random.Random) -> Value:
        """Return a random value, uniform over the values, the range, or the logarithm of the range."""
        if self.min_value is None or self.max_value is None or self.sampling == "linear":
            grid = self.grid()
            if grid is not None:
                return rng.choice(grid)
            return rng.uniform(self.min_value or 0.0, self.max_value or 0.0)
        value = math.exp(rng.uniform(math.log(self.min_value), math.log(self.max_value)))
        value = min(max(value, self.min_value), self.max_value)
        return round(value) if self.kind == "int" else value

    def to_json(self) -> dict[str, object]:
        """Return the fields that say something, as JSON-able values."""
        fields: dict[str, object] = {"name": self.name, "type": self.kind}
        if self.min_value is None:
            fields["values"] = list(self.values)
        else:
            fields |= {"min_value": self.min_value, "max_value": self.max_value, "step": self.step}
            fields["sampling"] = self.sampling
        fields["default"] = self.default
        fields["when"] = {self.when[0]: list(self.when[1])} if self.when else None
        return fields


def is_same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, where true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def is_active(param: Param, values: Params) -> bool:
    """Tell whether a hyperparameter exists where its parent has the value that `values` names."""
    if param.when is None:
        return True
    parent, parent_values = param.when
    return parent in values and any(is_same(values[parent], value) for value in parent_values)


def active_defaults(params: Sequence[Param], given: Params | None = None) -> Params:
    """Return the configuration in which every active hyperparameter has the value that is given, or its default."""
    values: dict[str, Value] = {}
    for param in params:
        if is_active(param, values):
            values[param.name] = (given or {}).get(param.name, param.default)
    return values
