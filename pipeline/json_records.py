"""Frozen dataclasses to JSON and back: which keys a file has is said by the fields of its record.

A field with a `key` in its metadata has that name in JSON. The fields of a record whose field is `flat` stand in the
object around it. A field whose default is None is left out where it is None; every other one is always written. When
read, what is missing has its default, or is None where that is allowed: files of earlier versions lack some keys.
"""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

Record = TypeVar("Record")

FLAT = {"flat": True}
"""Metadata of a field whose own fields stand in the object around it."""

EMPTY = {"empty": True}
"""Metadata of a field that is written as an empty object where it is None."""


def to_json(value: Any) -> Any:
    """Return a record, or what holds records, as dicts, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found: dict[str, object] = {}
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if inner is None and field.default is None:
                found |= {_key(field): {}} if field.metadata.get("empty") else {}
            elif field.metadata.get("flat"):
                found |= to_json(inner)
            else:
                found[_key(field)] = to_json(inner)
        return found
    if isinstance(value, dict):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(inner) for inner in value]
    return value


def from_json(kind: type[Record], value: Any) -> Record:
    """Return the record of a kind that JSON holds; unknown keys are ignored.

    Raises:
        ValueError: a key is missing, or its value is of another type; the message names it.
    """
    return typing.cast(Record, _value_of(kind, value, ""))


def _key(field: "dataclasses.Field[Any]") -> str:
    return str(field.metadata.get("key", field.name))


def _value_of(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        *others, inner = (each for each in arguments if each is not types.NoneType)
        is_absent = value is None or (value == {} and dataclasses.is_dataclass(inner))
        kind = next((other for other in others if _is_plain(other, value)), inner)
        return None if is_absent else _value_of(kind, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _record_of(kind, value, where)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {name: _value_of(arguments[1], inner, f"{where}.{name}") for name, inner in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            return tuple(_value_of(each, inner, where) for each, inner in zip(kinds, value, strict=True))
    elif origin is None and _is_plain(kind, value):
        with contextlib.suppress(OverflowError):  # a whole number beyond all floats
            return kind(value)
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where.lstrip('.') or 'it'} is {value!r:.80}; expected {name}")


def _is_plain(kind: Any, value: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value in list(kind)
    wanted = (int, float) if kind is float else kind
    return isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))


def _record_of(kind: Any, value: Mapping[str, object], where: str) -> Any:
    found, hints = {}, _hints(kind)
    for field in dataclasses.fields(kind):
        hint, key = hints[field.name], _key(field)
        if field.metadata.get("flat"):
            if not (field.default is None and _is_absent(hint, value)):
                found[field.name] = _value_of(hint, value, where)
        elif key in value:
            found[field.name] = _value_of(hint, value[key], f"{where}.{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if types.NoneType in typing.get_args(hint):
                found[field.name] = None
                continue
            raise ValueError(f"{f'{where}.{key}'.lstrip('.')} is missing")
    return kind(**found)


def _is_absent(hint: Any, value: Mapping[str, object]) -> bool:
    """Tell whether an object lacks the first key of an optional record that would stand in it."""
    (kind,) = (each for each in typing.get_args(hint) if each is not types.NoneType)
    return _key(dataclasses.fields(kind)[0]) not in value


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)
