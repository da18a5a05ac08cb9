"""The state of a training in a file: whole or absent, verified when it is read, and no pickle in it."""

import json
import struct
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.files import replacing
from pipeline.records import EpochRow

# What reading a damaged archive raises, after its kind and the CRC of its members were looked at.
DAMAGES = (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, struct.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Position:
    """How far a training is: the rows of its whole epochs, and `step` steps of the next one.

    `loss` and `accuracy` are the means of those steps, `seconds` their time. `num_epochs` and `num_batches` (an epoch)
    are what is planned now; 0 is what was planned first.
    """

    rows: tuple[EpochRow, ...] = ()
    step: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    seconds: float = 0.0
    num_epochs: int = 0
    num_batches: int = 0


def save(path: Path | None, model: keras.Model, task: str, position: Position) -> None:
    """Write weights, state of the random numbers, optimizer and position; `task` is the hash of what is trained how.

    Without a path nothing is kept.
    """
    if path is None:
        return
    arrays = {
        f"{group}{number}": keras.ops.convert_to_numpy(variable)
        for group, variables in groups(model).items()
        for number, variable in enumerate(variables)
    }
    facts = json.dumps({"task": task, **asdict(position)})
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, facts=np.array(facts), **arrays)


def resume(path: Path | None, model: keras.Model, task: str) -> Position | None:
    """Bring a compiled model to the state in `path` and return its position; None, with a line on stderr, if it cannot.

    The model is as before then. A file that is absent is no cause for a line.
    """
    if path is None or not path.exists():
        return None
    model.optimizer.build(model.trainable_variables)
    try:
        arrays = read_arrays(path)
        facts = json.loads(str(arrays["facts"]))
        if facts.pop("task") != task:
            raise ValueError("it belongs to another training")
        rows = tuple(EpochRow(**row) for row in facts.pop("rows"))
        position = Position(rows, **facts)
        _assign(groups(model), arrays)
    except DAMAGES as error:
        ignore(path, error)
        return None
    return position


def start_from(path: Path, model: keras.Model) -> None:
    """Give a model the weights in `path`; if they cannot be used, say so on stderr and leave it as it is."""
    try:
        _assign({"weights": model.weights}, read_arrays(path))
    except DAMAGES as error:
        ignore(path, error)


def ignore(path: Path, error: Exception) -> None:
    """Say on stderr why a checkpoint is not used."""
    sys.stderr.write(f"{path}: the checkpoint is not used: {type(error).__name__}: {error}\n")


def groups(model: keras.Model) -> dict[str, Sequence[Any]]:
    """Return the variables that make up the state of a compiled model."""
    weights = {id(variable) for variable in model.weights}
    others = [variable for variable in model.variables if id(variable) not in weights]
    return {"weights": model.weights, "random": others, "optimizer": model.optimizer.variables}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a checkpoint after the CRC of each was verified; raises one of DAMAGES."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is damaged")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _assign(variables_by_group: dict[str, Sequence[Any]], arrays: dict[str, NDArray[Any]]) -> None:
    """Give variables their values, all of them or, with a ValueError or KeyError, none."""
    pairs = [
        (variable, arrays[f"{group}{number}"])
        for group, variables in variables_by_group.items()
        for number, variable in enumerate(variables)
    ]
    for variable, value in pairs:
        if tuple(variable.shape) != value.shape or keras.backend.standardize_dtype(variable.dtype) != value.dtype:
            raise ValueError(
                f"{variable.path} is {value.dtype} {value.shape}; expected {variable.dtype} {variable.shape}"
            )
    for variable, value in pairs:
        variable.assign(value)
