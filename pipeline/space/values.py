"""One value of a YAML space: is it legal for its hyperparameter, and how to say so if not."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pipeline.errors import SpaceError
from pipeline.space.params import LARGEST, Known, Value, suggestion


def refuse(where: str, found: str, expected: str, do: str) -> NoReturn:
    """Raise the error of one place in a file."""
    raise SpaceError(f"{where} {found}; expected {expected}; {do}")


def described(value: Any) -> str:
    """Return what was found, as the predicate of a message."""
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    if value is None:
        return "is nothing"
    if isinstance(value, bool):
        return f"is the boolean {str(value).lower()}"
    kinds = {str: f"the text {shown}", int: f"the number {shown}", float: f"the number {shown}"}
    return "is " + kinds.get(type(value), f"the {type(value).__name__} {shown}").replace("the dict", "the mapping")


def checked_value(where: str, value: Any, known: Known) -> Value:
    """Return a value that is legal for a hyperparameter; 1 becomes 1.0 where floats are meant."""
    types = {"int": (int,), "float": (int, float), "boolean": (bool,), "text": (str,)}[known.kind]
    if type(value) not in types:
        refuse(where, described(value), known.expected, advice(value, known))
    if not known.is_legal(value):
        do = suggestion(value, known.choices) if known.choices else "correct the value"
        if not known.choices and value > LARGEST:
            do = f"stay at or below {LARGEST:,}"
        refuse(where, described(value), known.expected, do)
    legal: Value = float(value) if known.kind == "float" else value
    return legal


def advice(value: Any, known: Known) -> str:
    """Return how to write a value that YAML read as something else than what is needed."""
    if isinstance(value, bool):
        do = f"quote it: '{'on' if value else 'off'}'" if known.kind == "text" else "write a number"
        words = "on and yes as true" if value else "off and no as false"
        return f"YAML reads {words}; {do}"
    if isinstance(value, str) and known.kind in ("int", "float"):
        number = yaml_number(value)
        return f"YAML reads {value} as text; write {number}" if number else "write a number"
    if isinstance(value, float) and known.kind == "int" and value == value // 1:
        return f"write {value:.0f}"
    return {"boolean": "write true or false, without quotes", "text": "write one of these"}.get(
        known.kind, "write such a number"
    )


def yaml_number(text: str) -> str:
    """Return a number as YAML 1.1 needs it (point, signed exponent); empty if `text` is not a number."""
    try:
        float(text)
    except ValueError:
        return ""
    mantissa, mark, exponent = text.strip().lower().partition("e")
    if not mark:
        return mantissa
    point = "" if "." in mantissa else ".0"
    sign = "" if exponent.startswith(("+", "-")) else "+"
    return f"{mantissa}{point}e{sign}{exponent}"


def check_unique(where: str, values: Sequence[Value]) -> None:
    """Refuse a list that says a value twice: it would be drawn twice as often."""
    for index, value in enumerate(values):
        if value in values[:index]:
            refuse(f"{where}[{index}]", f"repeats {value!r}", "each value once", "remove it")


def check_keys(where: str, mapping: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a key that means nothing here."""
    for key in mapping:
        if key not in known:
            refuse(f"{where}: key {key!r}", "is unknown here", ", ".join(known), suggestion(key, known))
