"""Search spaces: which there are, what one of them holds and costs, a copy to edit, and whether some can be used."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SpaceError
from pipeline.models.cost import Cost
from pipeline.records import Params
from pipeline.search.spaces.loader import open_space
from pipeline.space import DEFAULTS, SearchSpace, builtin_spaces, builtin_text, defaults_for, load_space
from pipeline.space.params import BODY, THAWING, Value


@dataclass(frozen=True)
class SpaceSummary:
    """A space in one line; `size` is None where it is infinite."""

    name: str
    params: tuple[str, ...]
    size: int | None
    description: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class CheckedSpace:
    """What became of one file: the number of hyperparameters, or the reason why it cannot be used."""

    file: str
    ok: bool
    params: int | None
    error: str | None


@dataclass(frozen=True)
class Network:
    """A network of a space and what it costs."""

    params: Params
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"params": self.params, "num_params": self.cost.num_params, "mflops": self.cost.mflops}


def list_spaces() -> list[SearchSpace]:
    """Return the installed spaces."""
    return [load_space(name) for name in builtin_spaces()]


def summary(space: SearchSpace) -> SpaceSummary:
    """Return a space in one line."""
    size = space.size()
    whole = None if math.isinf(size) else int(size)
    return SpaceSummary(space.name, tuple(space.names()), whole, space.description, space.source)


def extreme_networks(
    space: SearchSpace, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, Network] | None:
    """Return the `smallest` and the `largest` network with what they cost; None for code, or if none fits."""
    from pipeline.models.extremes import extremes

    if space.builder is not None or (found := extremes(space, image_shape, num_classes)) is None:
        return None
    return {name: Network(*each) for name, each in zip(("smallest", "largest"), found, strict=True)}


def fixed_params(space: SearchSpace) -> dict[str, Value]:
    """Return the hyperparameters that a space could vary but does not, with what they are."""
    defaults = defaults_for(space.defaults())
    return {name: defaults[name] for name in _usable_params(space) if name not in space.names()}


def copy_space(name: str, file: Path) -> None:
    """Write an installed space, with its comments, to a new file.

    Raises:
        SpaceError: there is no such space, or the file is there already or cannot be written.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise SpaceError(f"{file}: the name of a search space must end in .yaml or .yml; write {file}.yaml")
    text = builtin_text(name)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise SpaceError(f"{file}: already exists; choose another name, or edit it") from error
    except OSError as error:
        raise SpaceError(f"{file}: cannot be written ({error.strerror}); choose a folder that exists") from error


def check_space(file: str) -> CheckedSpace:
    """Read a space, or run the code that it is, and return what became of it."""
    try:
        space = open_space(file)
    except SpaceError as error:
        return CheckedSpace(file, False, None, str(error))
    return CheckedSpace(file, True, len(space.names()), None)


def _usable_params(space: SearchSpace) -> list[str]:
    if space.builder is not None:
        return ["batch_size", "augment"]
    backbones = [value for param in space.params if param.name == "backbone" for value in param.values] or ["none"]
    unused = {*(THAWING if not space.backbones() else ()), *(BODY if "none" not in backbones else ())}
    return [name for name in DEFAULTS if name not in unused]
