"""A name or a YAML file becomes a SearchSpace that can be counted, sampled and asked; no networks here."""

import importlib.resources
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import SpaceError
from pipeline.records import Params
from pipeline.space.builder import Builder
from pipeline.space.checks import check_document
from pipeline.space.params import (
    DEFAULTS,
    KNOWN_PARAMS,
    Param,
    Value,
    active_defaults,
    complete,
    defaults_for,
    is_active,
    recipe,
    suggestion,
)
from pipeline.space.yaml_file import parse, read_bytes

__all__ = [
    "DEFAULTS",
    "KNOWN_PARAMS",
    "Builder",
    "Param",
    "SearchSpace",
    "builtin_spaces",
    "builtin_text",
    "complete",
    "defaults_for",
    "is_active",
    "load_space",
    "recipe",
]

FOLDER = "search_spaces"


@dataclass(frozen=True)
class SearchSpace:
    """The hyperparameters that a search varies, in order. `source` is the file as the user knows it.

    A name with several variants is several Params, whose conditions exclude each other. `portfolio` holds complete
    active configurations with their names, in the order in which a search begins with them. `builder` is the user's own
    code that makes the networks; without one it is `models.plan`.
    """

    name: str
    description: str
    params: tuple[Param, ...]
    source: str
    portfolio: tuple[tuple[str, Params], ...] = ()
    builder: Builder | None = None

    def names(self) -> list[str]:
        """Return the hyperparameters, each once, in the order of the file."""
        return list(dict.fromkeys(param.name for param in self.params))

    def backbones(self) -> list[str]:
        """Return the pretrained networks that it may try, each once; in code of the user the name means nothing."""
        params = [param for param in self.params if param.name == "backbone" and self.builder is None]
        values = dict.fromkeys(str(value) for param in params for value in param.values)
        return [name for name in values if name != "none"]

    def defaults(self) -> Params:
        """Return the configuration in which every active hyperparameter has its default."""
        return active_defaults(self.params)

    def active(self, values: Params) -> Params:
        """Keep the hyperparameters that are active under `values`.

        Raises:
            SpaceError: one that is active is missing.
        """
        kept: dict[str, Value] = {}
        for param in self.params:
            if not is_active(param, kept):
                continue
            if param.name not in values:
                raise SpaceError(
                    f"{self.source}: params.{param.name} is missing from the configuration {dict(values)}; "
                    "expected a value for every active hyperparameter; add it"
                )
            kept[param.name] = values[param.name]
        return kept

    def contains(self, params: Params) -> bool:
        """Tell whether `params` holds exactly the active hyperparameters, each with one of its values."""
        active = [param for param in self.params if is_active(param, params)]
        names = {param.name for param in active}
        return names == set(params) and all(param.accepts(params[param.name]) for param in active)

    def with_fixed(self, name: str, value: Value) -> "SearchSpace":
        """Return the space in which one hyperparameter, whether it was varied or not, always has one value."""
        fixed = Param(name, "fixed", values=(value,), default=value)
        others = tuple(param for param in self.params if param.name != name)
        space = replace(self, params=(fixed, *others), portfolio=())
        return replace(
            space, portfolio=tuple((each, space.active({**params, name: value})) for each, params in self.portfolio)
        )

    def sample(self, rng: random.Random) -> Params:
        """Return a random configuration, each hyperparameter drawn independently by its own sampling."""
        values: dict[str, Value] = {}
        for param in self.params:
            if is_active(param, values):
                values[param.name] = param.sample(rng)
        return values

    def neighbour(self, params: Params, rng: random.Random, part: float) -> Params:
        """Return a configuration in which about a part of the values is drawn anew, each independently."""
        values: dict[str, Value] = {}
        for param in self.params:
            if is_active(param, values):
                is_kept = rng.random() >= part and param.name in params and param.accepts(params[param.name])
                values[param.name] = params[param.name] if is_kept else param.sample(rng)
        return values

    def size(self) -> float:
        """Return the number of distinct configurations; infinite where a hyperparameter is continuous."""
        if any(param.grid() is None for param in self.params):
            return math.inf
        return float(math.prod(self.branches(param) for param in self.params if param.when is None))

    def branches(self, parent: Param) -> int:
        """Return the number of configurations of `parent` and what depends on it."""
        children = [param for param in self.params if param.when and param.when[0] == parent.name]
        mentioned = {value for child in children if child.when for value in child.when[1]}
        count = len(parent.grid() or ()) - len(mentioned)
        for value in mentioned:
            active = (child for child in children if is_active(child, {parent.name: value}))
            count += math.prod(len(child.grid() or ()) for child in active)
        return count

    def to_json(self) -> dict[str, Any]:
        """Return the whole space as JSON-able values, without the place of its file, but with the text of user code."""
        document: dict[str, object] = {
            "schema": 1,
            "name": self.name,
            "description": self.description,
            "params": [param.to_json() for param in self.params],
            "portfolio": {name: dict(params) for name, params in self.portfolio},
        }
        return document if self.builder is None else {**document, "builder": self.builder.to_json()}


def builtin_spaces() -> list[str]:
    """Return the names of the installed spaces, sorted."""
    files = importlib.resources.files(FOLDER).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_space(name_or_path: str) -> SearchSpace:
    """Return the installed space of that name, or the space in that YAML file.

    Raises:
        SpaceError: unknown name, unreadable file, or a space that is not sound.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path or "\\" in name_or_path:
        path = Path(name_or_path)
        return space_from(read_bytes(path), path.stem, name_or_path)
    return space_from(builtin_text(name_or_path).encode(), name_or_path, f"{FOLDER}/{name_or_path}.yaml")


def builtin_text(name: str) -> str:
    """Return the file of an installed space.

    Raises:
        SpaceError: there is none of that name.
    """
    known = builtin_spaces()
    if name not in known:
        raise SpaceError(
            f"search space {name!r} is not installed; expected {', '.join(known)}, or a file; "
            f"{suggestion(name, known)}; give a file by its path: ./{name}.yaml"
        )
    return (importlib.resources.files(FOLDER) / f"{name}.yaml").read_text(encoding="utf-8")


def space_from(content: bytes, name: str, source: str) -> SearchSpace:
    """Return the space that the bytes of a YAML file describe."""
    description, params, portfolio = check_document(parse(content, source), source)
    return SearchSpace(name, description, params, source, portfolio)
