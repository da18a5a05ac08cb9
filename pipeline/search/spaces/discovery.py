"""The space that a user's own code spans: build(hp) is run, without training, until it asks for nothing new."""

import contextlib
import inspect
import os
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from pipeline.errors import SpaceError
from pipeline.models.cost import ImageShape, ImpossibleNetwork
from pipeline.models.hypermodel.build import inspect_without_weights, preset
from pipeline.models.hypermodel.loader import load, modules_beside
from pipeline.space import KNOWN_PARAMS, Builder, Param, SearchSpace
from pipeline.space.params import RECIPE, is_same
from pipeline.space.values import checked_value, described, refuse

_MAX_BUILDS = 100  # of some 50 ms each, for a network of twenty layers on one core
_NUM_SAMPLED = 10  # random configurations in a row that must bring nothing new
_MAX_PROBED = 10  # values of one hyperparameter; of more, only the first and the last are tried
NAME = re.compile(r"[\w. /:-]{1,250}", re.ASCII)  # what MLflow takes as the name of a param

When = tuple[str, tuple[Any, ...]]


@dataclass
class _Survey:
    """What build(hp) was seen to ask for: its hyperparameters in the order in which they came up, and each build.

    `builds` holds (values, names asked for) of the builds that succeeded; `is_compiled` is that all of these were.
    """

    builder: Builder
    image_shape: ImageShape
    num_classes: int
    declared: dict[tuple[str, str], Any] = field(default_factory=dict)
    builds: list[tuple[dict[str, Any], frozenset[str]]] = field(default_factory=list)
    num_builds: int = 0
    is_compiled: bool = True

    def build(self, values: dict[str, Any]) -> list[Any]:
        """Build once and return the hyperparameters that were new.

        Raises:
            SpaceError: the code cannot be used at all, or not with its defaults.
        """
        self.num_builds += 1
        hp = preset(values)
        try:
            is_compiled = inspect_without_weights(
                self.builder, hp, self.image_shape, self.num_classes, lambda model: model.compiled
            )
        except ImpossibleNetwork as error:
            if not values:
                raise SpaceError(
                    f"{error}; expected that the defaults can be built; change them, or the code"
                ) from error
        else:
            self.is_compiled &= is_compiled
            self.builds.append((dict(hp.values), frozenset(one.name for one in hp.space if hp.is_active(one))))
        return [one for one in hp.space if self.is_new(one)]

    def is_new(self, found: Any) -> bool:
        """Remember a hyperparameter and tell whether it was unknown.

        Raises:
            SpaceError: it is known with another range.
        """
        key = (found.name, repr([condition.get_config() for condition in found.conditions]))
        known = self.declared.setdefault(key, found)
        if known.get_config() != found.get_config():
            refuse(
                f"{self.builder.path}: {found.name}", f"is {known} and also {found}", "one range for a name",
                "give it a name for each range, such as one with the value that it depends on",
            )  # fmt: skip
        return known is found

    def run(self) -> None:
        """Build with the defaults, with other values of each hyperparameter alone, and with random values of all."""
        rng = random.Random(0)
        queue: deque[dict[str, Any]] = deque([{}])
        num_sampled = 0
        while self.num_builds < _MAX_BUILDS and (queue or num_sampled < _NUM_SAMPLED):
            if queue:
                values = queue.popleft()
            else:
                values = {one.name: rng.choice(_probes(one)) for one in self.declared.values()}
                num_sampled += 1
            for found in self.build(values):
                num_sampled = 0
                parents = {condition.name: condition.values[0] for condition in found.conditions}
                queue.extend({**values, **parents, found.name: value} for value in _probes(found))


def _probes(hp: Any) -> list[Any]:
    """Return the values of a hyperparameter that may change what else is asked for: all if they are few."""
    kind = type(hp).__name__
    if kind == "Fixed":
        return [hp.value]
    if kind == "Boolean":
        return [False, True]
    if kind == "Float":  # no amount of a float makes a new layer; the default stands for all
        return [hp.default]
    if kind == "Int" and hp.step is None:
        return [hp.min_value, hp.max_value]
    values = [int(value) if kind == "Int" else value for value in hp.values]
    return values if len(values) <= _MAX_PROBED else [values[0], values[-1]]


def load_hypermodel(builder: Builder, image_shape: ImageShape, num_classes: int) -> SearchSpace:
    """Return the space of a user's code for images (height, width, channels).

    Raises:
        SpaceError: the code cannot be run, builds what cannot be trained or saved, or spans no space.
    """
    survey = _Survey(builder, image_shape, num_classes)
    with _gpus_hidden():
        survey.run()
    source = f"{builder.path}:{builder.name}"
    params = tuple(_checked_names(source, _translated(survey, source)))
    _check_recipe(source, params, ("batch_size", "augment") if survey.is_compiled else RECIPE)
    first_line = (inspect.getdoc(load(builder)) or "").partition("\n")[0]
    builder = replace(builder, modules=modules_beside(builder))  # also those that build imports when it runs
    return SearchSpace(source.rpartition("/")[2], first_line, params, source, builder=builder)


@contextlib.contextmanager
def _gpus_hidden() -> Iterator[None]:
    """Keep this process from the GPUs, which belong to its children, and leave the environment as it was for them."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        keras.ops.zeros(())  # the backend looks for GPUs at its first tensor, and never again
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _translated(survey: _Survey, source: str) -> list[Param]:
    """Return the hyperparameters as Params, each with at most one condition, parents first."""
    params: list[Param] = []
    for found in survey.declared.values():
        when = _declared_condition(found, params) if found.conditions else _seen_condition(found.name, survey, params)
        param = replace(_range_of(found, f"{source}: {found.name}"), when=when)
        if not param.accepts(param.default):
            refuse(f"{source}: {param.name}", f"has the default {param.default}", "one of its values", "change one")
        _add_variant(params, param, source)
    return params


def _declared_condition(found: Any, params: Sequence[Param]) -> When | None:
    """Return the innermost condition of a `conditional_scope` whose parent always exists.

    A Param has one condition. Where a scope has several, the hyperparameter exists more often than it is asked for: a
    configuration may then be tried twice, and none is missed.
    """
    always = {param.name for param in params if param.when is None}
    for condition in reversed(found.conditions):
        if condition.name in always:
            return condition.name, tuple(condition.values)
    return None


def _seen_condition(name: str, survey: _Survey, params: Sequence[Param]) -> When | None:
    """Return on which values of one parent a hyperparameter was asked for, if that explains every build.

    This finds the parent of `for i in range(hp.Int("depth", 1, 5)): hp.Int(f"filters_{i}", ...)`.
    """
    builds = survey.builds
    if all(name in asked for _, asked in builds):
        return None
    for parent in reversed(params):
        grid = parent.grid()
        if parent.when is not None or grid is None or len(grid) > _MAX_PROBED:
            continue
        with_it = {values[parent.name] for values, asked in builds if name in asked and parent.name in values}
        without = {values[parent.name] for values, asked in builds if name not in asked and parent.name in values}
        if with_it and not with_it & without and len(with_it | without) == len(grid):
            return parent.name, tuple(value for value in grid if value in with_it)
    return None


def _add_variant(params: list[Param], param: Param, source: str) -> None:
    """Add a hyperparameter to those before it, which may hold the same name under other conditions.

    Raises:
        SpaceError: two ranges of one name could hold at once.
    """
    for index, other in enumerate(params):
        if other.name != param.name:
            continue
        if replace(other, when=None) == replace(param, when=None):
            params[index] = replace(other, when=either(other.when, param.when))
            return
        is_apart = other.when and param.when and other.when[0] == param.when[0]
        if not is_apart or set(other.when[1]) & set(param.when[1]):  # type: ignore[index]
            refuse(
                f"{source}: {param.name}", "has two ranges that can hold at once",
                "ranges in conditional scopes of one parent that exclude each other", "give it two names",
            )  # fmt: skip
    params.append(param)


def either(first: When | None, second: When | None) -> When | None:
    """Return the condition that holds where one of two does; None, which always holds, if they have two parents."""
    if first is None or second is None or first[0] != second[0]:
        return None
    return first[0], tuple(dict.fromkeys((*first[1], *second[1])))


def _range_of(found: Any, where: str) -> Param:
    """Return a KerasTuner hyperparameter as a Param without its condition.

    Raises:
        SpaceError: a range that Params cannot say.
    """
    kind = type(found).__name__.lower()
    if kind == "fixed":
        return Param(found.name, kind, (found.value,), default=found.value)
    if kind == "boolean":
        return Param(found.name, kind, (False, True), default=found.default)
    if kind == "choice":
        return choice(found.name, list(found.values), found.default)
    low, high, step = found.min_value, found.max_value, found.step
    number = int if kind == "int" else float
    if step is not None and found.sampling != "linear":  # steps of a factor
        return choice(found.name, [number(f"{value:.12g}") for value in found.values], number(found.default))
    if found.sampling == "reverse_log":
        refuse(where, "has sampling reverse_log", "linear or log", "write one of these, or give it a step")
    if step is not None:
        high = low + int((high - low) / step + 1e-9) * step
    if low == high:
        return Param(found.name, "fixed", (number(low),), default=number(low))
    step = None if step is None else number(step)
    return Param(found.name, kind, (), number(low), number(high), step, found.sampling, number(found.default))


def choice(name: str, values: list[Any], default: Any) -> Param:
    """Return a choice of values, each once."""
    once = tuple(value for index, value in enumerate(values) if not any(is_same(value, v) for v in values[:index]))
    return Param(name, "choice" if len(once) > 1 else "fixed", once, default=default)


def _checked_names(source: str, params: Sequence[Param]) -> Sequence[Param]:
    """Refuse a space without hyperparameters, and names that MLflow cannot keep."""
    if not params:
        refuse(
            source, "asks for no hyperparameters", "at least one", 'vary something, such as hp.Int("filters", 8, 64)'
        )
    for param in params:
        if not NAME.fullmatch(param.name):
            do = "use letters, digits and _"
            refuse(f"{source}: {param.name!r}", "cannot be kept by MLflow", "letters, digits, space and _ - . / :", do)
    return params


def _check_recipe(source: str, params: Sequence[Param], names: Sequence[str]) -> None:
    """Refuse values that the training cannot follow, in hyperparameters that it reads by their names."""
    for param in params:
        if param.name not in names:
            continue
        for value in param.values or (param.min_value, param.max_value):
            known = KNOWN_PARAMS[param.name]
            try:
                checked_value(f"{source}: {param.name}", value, known)
            except SpaceError:
                expected = f"{known.expected}, since the training reads a hyperparameter of this name"
                refuse(f"{source}: {param.name}", described(value), expected, "correct it, or use another name")
