"""How options are written: durations and names, turned into seconds and checked text; and seconds into text again."""

import re
from typing import Any

import click

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Duration(click.ParamType[float]):
    """A duration such as 90s, 45m, 1h30m or 2d, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, at least one."""
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value.lower())
        if not parts or "".join(number + unit for number, unit in parts) != value.lower():
            self.fail(
                f"{value!r} is no duration; expected a number with a unit, such as 90s, 45m, 1h30m or 2d",
                param,
                ctx,
            )
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        if seconds < 1:
            self.fail(f"{value!r} is {seconds} s; expected at least 1s", param, ctx)
        return seconds


class StudyName(click.ParamType[str]):
    """The name of a study: letters, digits, dot, dash and underscore, at most 64, as it becomes a folder."""

    name = "study"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not NAME.fullmatch(value):
            self.fail(f"{value!r} cannot be a study; expected 1 to 64 letters, digits, '.', '_' or '-'", param, ctx)
        return str(value)


def format_seconds(seconds: float) -> str:
    """Return a duration as a person writes it: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
