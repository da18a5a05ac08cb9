"""Plain values of a YAML file -> Params: every check on what a space says; reading text is elsewhere."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.space.params import DEFAULTS, KNOWN_PARAMS, LARGEST, Known, Param, Value, is_same, suggestion
from pipeline.space.portfolio import Portfolio, checked_portfolio
from pipeline.space.values import check_keys, check_unique, checked_value, described, refuse

_TOP_KEYS = ("schema", "description", "params", "portfolio")
_RANGE_KEYS = ("min_value", "max_value", "step", "sampling", "default")
_KEYS: dict[str, tuple[str, ...]] = {
    "int": _RANGE_KEYS,
    "float": _RANGE_KEYS,
    "choice": ("values", "default"),
    "boolean": ("default",),
    "fixed": ("value",),
}
_TYPES_OF_KIND = {
    "int": ("int", "choice", "fixed"),
    "float": ("float", "choice", "fixed"),
    "boolean": ("boolean", "choice", "fixed"),
    "text": ("choice", "fixed"),
}
_EXAMPLE = "{type: int, min_value: 2, max_value: 4, default: 3}"


def check_document(document: Any, source: str) -> tuple[str, tuple[Param, ...], Portfolio]:
    """Return the description, the hyperparameters and the portfolio of a space.

    Raises:
        SpaceError: the first thing that is wrong, with its place.
    """
    where = f"{source}: the file"
    if not isinstance(document, dict):
        refuse(
            where,
            described(document),
            f"a mapping with the keys {', '.join(_TOP_KEYS)}",
            "start with `schema: 1`",
        )
    if "schema" not in document:
        refuse(where, "has no schema", "schema: 1", "add the line `schema: 1`")
    if not is_same(document["schema"], 1):
        refuse(
            f"{source}: schema",
            described(document["schema"]),
            "1",
            "write `schema: 1`, or update this program",
        )
    check_keys(source, document, _TOP_KEYS)
    description = document.get("description", "")
    if not isinstance(description, str) or len(description.splitlines()) > 1:
        refuse(f"{source}: description", described(description), "one line of text", "write one line, in quotes")
    params = _checked_params(document.get("params"), source)
    return description, params, checked_portfolio(document.get("portfolio", {}), params, source)


def _checked_params(raw: Any, source: str) -> tuple[Param, ...]:
    """Return the hyperparameters in the order of the file."""
    where = f"{source}: params"
    if not isinstance(raw, dict) or not raw:
        found = "is empty or missing" if not raw else described(raw)
        refuse(where, found, "a mapping with at least one hyperparameter", f"add such as `depth: {_EXAMPLE}`")
    for name in raw:
        if name not in KNOWN_PARAMS:
            names = ", ".join(KNOWN_PARAMS)
            refuse(f"{where}.{name}", "is not a hyperparameter", names, suggestion(name, KNOWN_PARAMS))
    params: dict[str, list[Param]] = {name: [] for name in raw}
    for name, entry in raw.items():
        variants = entry if isinstance(entry, list) else [entry]
        for index, variant in enumerate(variants):
            place = f"{where}.{name}[{index}]" if isinstance(entry, list) else f"{where}.{name}"
            params[name].append(_checked_param(place, name, variant, params))
        _check_variants(f"{where}.{name}", params[name])
    return tuple(itertools.chain.from_iterable(params.values()))


def _checked_param(where: str, name: str, raw: Any, params: Mapping[str, list[Param]]) -> Param:
    """Return one dimension. `params` holds what was read so far, and an empty list for what follows."""
    if not isinstance(raw, dict):
        shown = str(raw).lower() if isinstance(raw, bool) else str(raw)[:60]
        do = f"write {{type: fixed, value: {shown}}}" if isinstance(raw, Value) else "write the type and its keys"
        refuse(where, described(raw), f"a mapping such as {_EXAMPLE}", do)
    known = KNOWN_PARAMS[name]
    kind = _checked_type(where, name, raw)
    check_keys(where, raw, ("type", *_KEYS[kind], "when"))
    when = _checked_when(where, name, raw["when"], params) if "when" in raw else None
    if kind in ("int", "float"):
        return _checked_range(where, name, raw, when)
    values = _checked_values(where, known, kind, raw)
    default = _checked_default(where, name, raw, values) if kind != "fixed" else values[0]
    return Param(name, kind, values, default=default, when=when)


def _checked_type(where: str, name: str, raw: Mapping[str, Any]) -> str:
    """Return the type of a dimension, if it is one that its hyperparameter can have."""
    legal = _TYPES_OF_KIND[KNOWN_PARAMS[name].kind]
    kind = raw.get("type")
    if "type" not in raw:
        refuse(where, "has no type", ", ".join(legal), f"add `type: {legal[0]}`")
    if not isinstance(kind, str) or kind not in _KEYS:
        do = suggestion(kind, _KEYS) if isinstance(kind, str) else f"write `type: {legal[0]}`"
        refuse(f"{where}.type", described(kind), ", ".join(_KEYS), do)
    if kind not in legal:
        expected = f"{', '.join(legal)}, since {name} is {KNOWN_PARAMS[name].expected}"
        refuse(f"{where}.type", described(kind), expected, f"write `type: {legal[0]}`")
    return str(kind)


def _checked_values(where: str, known: Known, kind: str, raw: Mapping[str, Any]) -> tuple[Value, ...]:
    """Return what a choice, boolean or fixed can be."""
    if kind == "boolean":
        return (False, True)
    key = _KEYS[kind][0]
    if key not in raw:
        refuse(where, f"has no {key}", f"{key}, since type is {kind}", f"add `{key}:`")
    if kind == "fixed":
        return (checked_value(f"{where}.value", raw["value"], known),)
    values = raw["values"]
    if not isinstance(values, list) or not values:
        refuse(f"{where}.values", described(values), "a list of at least one value", "write it as [a, b]")
    if {type(value) for value in values} == {int, float}:
        refuse(f"{where}.values", f"mix whole numbers and floats: {values}", "one type", "write 1.0 instead of 1")
    checked = [checked_value(f"{where}.values[{index}]", value, known) for index, value in enumerate(values)]
    check_unique(f"{where}.values", checked)
    return tuple(checked)


def _checked_default(where: str, name: str, raw: Mapping[str, Any], values: Sequence[Value]) -> Value:
    """Return the default of a choice or boolean; KerasTuner's own is the first value."""
    if "default" not in raw:
        return values[0]
    default = checked_value(f"{where}.default", raw["default"], KNOWN_PARAMS[name])
    if default not in values:
        shown = ", ".join(map(str, values))
        refuse(
            f"{where}.default",
            described(default),
            f"one of its values {shown}",
            "choose one, or add it to values",
        )
    return default


def _checked_range(where: str, name: str, raw: Mapping[str, Any], when: Any) -> Param:
    """Return a dimension of type int or float."""
    known, kind = KNOWN_PARAMS[name], str(raw["type"])
    for key in ("min_value", "max_value"):
        if key not in raw:
            refuse(where, f"has no {key}", f"min_value and max_value, since type is {kind}", f"add `{key}:`")
    low: Any = checked_value(f"{where}.min_value", raw["min_value"], known)
    high: Any = checked_value(f"{where}.max_value", raw["max_value"], known)
    if low > high:
        refuse(f"{where}.min_value", f"is {low}, above max_value {high}", "min_value < max_value", "swap the two")
    if low == high:
        do = f"write {{type: fixed, value: {low}}}"
        refuse(f"{where}.min_value", f"equals max_value {high}", "min_value < max_value", do)
    sampling = _checked_sampling(where, raw, low)
    step = _checked_step(where, raw, low, high) if "step" in raw else None
    if step is None and (kind, sampling) == ("int", "linear"):
        step = 1
    param = Param(name, kind, (), low, high, step, sampling, low, when)
    for value in itertools.islice(param.grid() or (), 20):  # only kernel_size has gaps, and its range is 1 to 11
        if not known.is_legal(value):
            refuse(
                where,
                f"includes {value}",
                known.expected,
                "set step: 2, or list the values with type: choice",
            )
    return _with_default(where, raw, param)


def _with_default(where: str, raw: Mapping[str, Any], param: Param) -> Param:
    """Return the dimension with the default that the file names; KerasTuner's own is min_value."""
    if "default" not in raw:
        return param
    default: Any = checked_value(f"{where}.default", raw["default"], KNOWN_PARAMS[param.name])
    low, high = param.min_value, param.max_value
    if low is None or high is None or not low <= default <= high:
        refuse(
            f"{where}.default",
            f"is {default}",
            f"a value from {low} to {high}",
            "move it, or widen the range",
        )
    if not param.accepts(default):
        expected = f"{low} plus a multiple of step {param.step}"
        refuse(
            f"{where}.default",
            f"is {default}, off the steps",
            expected,
            "move it onto a step, or change step",
        )
    return Param(param.name, param.kind, (), low, high, param.step, param.sampling, default, param.when)


def _checked_sampling(where: str, raw: Mapping[str, Any], low: float) -> str:
    """Return linear or log."""
    sampling = raw.get("sampling", "linear")
    if sampling not in ("linear", "log"):
        refuse(f"{where}.sampling", described(sampling), "linear or log", "write one of these")
    if sampling == "log" and low <= 0:
        do = "raise min_value, or write `sampling: linear`"
        refuse(f"{where}.min_value", f"is {low} with sampling log", "a number > 0", do)
    if sampling == "log" and "step" in raw:
        do = "remove step, or list the values with type: choice"
        refuse(f"{where}.step", "is given with sampling log", "one of the two", do)
    return str(sampling)


def _checked_step(where: str, raw: Mapping[str, Any], low: float, high: float) -> float:
    """Return the distance between values, which must lead from min_value to max_value."""
    kind = str(raw["type"])
    expected = "a whole number >= 1" if kind == "int" else "a number > 0"
    number = Known(kind, expected, lambda value: 0 < value <= LARGEST)
    step: Any = checked_value(f"{where}.step", raw["step"], number)
    steps = (high - low) / step
    if steps > LARGEST:
        refuse(
            f"{where}.step",
            f"is {step}: more than {LARGEST:,} values",
            "fewer",
            "raise step, or leave it out",
        )
    if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
        near = low + step * max(1, int(steps))
        do = f"write `max_value: {near:g}`, or change step"
        refuse(
            f"{where}.max_value",
            f"is {high}, which steps of {step} from {low} never reach",
            "a whole number of steps",
            do,
        )
    return float(step) if kind == "float" else int(step)


def _checked_when(where: str, name: str, raw: Any, params: Mapping[str, list[Param]]) -> tuple[str, tuple[Value, ...]]:
    """Return the condition of a dimension: one parent that was declared before, and some of its values."""
    where = f"{where}.when"
    if not isinstance(raw, dict) or len(raw) != 1:
        found = f"names {len(raw)} parents" if isinstance(raw, dict) else described(raw)
        refuse(where, found, "one parent with a list of its values", "write such as {dense_layers: [1, 2]}")
    ((parent_name, values),) = raw.items()
    parent = _checked_parent(f"{where}.{parent_name}", name, parent_name, params)
    where = f"{where}.{parent_name}"
    if not isinstance(values, list) or not values:
        refuse(where, described(values), f"a list of values of {parent_name}", f"write [{DEFAULTS[parent_name]}]")
    checked = []
    for index, value in enumerate(values):
        checked.append(checked_value(f"{where}[{index}]", value, KNOWN_PARAMS[parent_name]))
        if not parent.accepts(checked[-1]):
            expected = f"a value that params.{parent_name} can have"
            refuse(
                f"{where}[{index}]",
                described(value),
                expected,
                f"remove it, or add it to params.{parent_name}",
            )
    check_unique(where, checked)
    return parent_name, tuple(checked)


def _checked_parent(where: str, name: str, parent: str, params: Mapping[str, list[Param]]) -> Param:
    """Return the hyperparameter that a condition is on."""
    if parent not in params:
        others = [other for other in params if other != name]
        refuse(
            where,
            "is not in this space",
            "a hyperparameter that is declared above",
            suggestion(parent, others),
        )
    if parent == name or not params[parent]:
        found = f"is {name} itself" if parent == name else f"is declared after {name}"
        refuse(
            where,
            found,
            "a hyperparameter that is declared above",
            f"move {parent} above {name}, or remove `when`",
        )
    param = params[parent][0]
    if param.when is not None:
        do = "make one of the two unconditional"
        refuse(where, "has a condition of its own (nested conditions)", "a parent without `when`", do)
    if param.kind == "float":
        do = f"give {parent} the type choice, or remove `when`"
        refuse(where, "is a range of floats", "a parent of type choice, boolean, int or fixed", do)
    return param


def _check_variants(where: str, variants: Sequence[Param]) -> None:
    """Refuse variants of one hyperparameter of which two, or none, could hold at a time."""
    if not variants:
        refuse(
            where,
            "is an empty list",
            f"a mapping such as {_EXAMPLE}, or a list of them",
            "add one, or remove it",
        )
    if len(variants) == 1:
        return
    seen: dict[Value, int] = {}
    for index, variant in enumerate(variants):
        if variant.when is None:
            do = "add `when: {parent: [values]}`"
            refuse(f"{where}[{index}]", "has no condition", "`when` in each of several variants", do)
        if variants[0].when and variant.when[0] != variants[0].when[0]:
            found = f"depends on {variant.when[0]}, but [0] on {variants[0].when[0]}"
            refuse(f"{where}[{index}].when", found, "the same parent in all variants", "use one parent")
        for value in variant.when[1]:
            if value in seen:
                found = f"overlaps with [{seen[value]}]: both hold where {variant.when[0]} is {value}"
                refuse(
                    f"{where}[{index}].when",
                    found,
                    "conditions that exclude each other",
                    "remove the value from one",
                )
            seen[value] = index
