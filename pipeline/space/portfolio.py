"""The portfolio of a space: named configurations that a search begins with, each a few changes of the defaults."""

from collections.abc import Sequence
from typing import Any

from pipeline.records import Params
from pipeline.space.params import KNOWN_PARAMS, Param, active_defaults, is_active, suggestion
from pipeline.space.values import checked_value, described, refuse

Portfolio = tuple[tuple[str, Params], ...]

_EXAMPLE = "small: {filters: 16}"


def checked_portfolio(raw: Any, params: Sequence[Param], source: str) -> Portfolio:
    """Return the configurations of a portfolio, complete and active, in the order of the file."""
    where = f"{source}: portfolio"
    if not isinstance(raw, dict):
        do = f"write such as `{_EXAMPLE}`"
        refuse(where, described(raw), "a mapping of names to changes of the defaults", do)
    portfolio: list[tuple[str, Params]] = []
    for name, changes in raw.items():
        configuration = _checked_configuration(f"{where}.{name}", changes, params)
        for other, known in portfolio:
            if known == configuration:
                do = "change one of the two, or remove it"
                refuse(f"{where}.{name}", f"is the same configuration as {other}", "another one", do)
        portfolio.append((name, configuration))
    return tuple(portfolio)


def _checked_configuration(where: str, changes: Any, params: Sequence[Param]) -> Params:
    """Return the defaults with some changes, if each is a value of a hyperparameter that is then active."""
    if not isinstance(changes, dict):
        do = "write {} for the defaults themselves"
        refuse(where, described(changes), f"a mapping such as in `{_EXAMPLE}`", do)
    names = dict.fromkeys(param.name for param in params)
    checked = {}
    for name, value in changes.items():
        if name not in names:
            refuse(f"{where}.{name}", "is not in this space", ", ".join(names), suggestion(name, names))
        checked[name] = checked_value(f"{where}.{name}", value, KNOWN_PARAMS[name])
    configuration = active_defaults(params, checked)
    for name, value in checked.items():
        variants = [param for param in params if param.name == name]
        active = next((param for param in variants if is_active(param, configuration)), None)
        if active is None:
            parent = variants[0].when[0] if variants[0].when else ""
            found = f"is given, though {parent} is {configuration.get(parent)}"
            legal = " or ".join(str(one) for variant in variants if variant.when for one in variant.when[1])
            refuse(f"{where}.{name}", found, f"{parent} to be {legal} with it", f"remove {name}, or change {parent}")
        if not active.accepts(value):
            do = "change it, or widen params." + name
            refuse(f"{where}.{name}", described(value), f"a value that params.{name} can have: {shown(active)}", do)
    return configuration


def shown(param: Param) -> str:
    """Return the values of a hyperparameter for reading."""
    if param.min_value is None or param.max_value is None:
        return ", ".join(map(str, param.values))
    step = f" in steps of {param.step}" if param.step not in (None, 1) else ""
    return f"{param.min_value} to {param.max_value}{step}"
