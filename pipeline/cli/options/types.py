"""How the values of options are written, and what they become."""

import ipaddress
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

_SIZE_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_PER_GPU = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Duration(click.ParamType[float]):
    """A duration such as 90s, 45m, 1h30m or 2d, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value.lower())
        if not parts or "".join(number + unit for number, unit in parts) != value.lower():
            self.fail(
                f"{value!r} is not a duration; write a number with a unit, such as 90s, 45m, 1h30m or 2d", param, ctx
            )
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        if seconds < 1:
            self.fail(f"{value!r} is too short; the shortest duration is 1s", param, ctx)
        return seconds


class PerGpu(click.ParamType[int | str]):
    """How many processes share a GPU: 1 to 32, or `auto`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        from pipeline.machine import AUTO

        number = int(value) if str(value).isdecimal() else 0
        if value != AUTO and not 1 <= number <= _MAX_PER_GPU:
            self.fail(f"{value!r} is not a number of processes; write {AUTO}, or 1 to {_MAX_PER_GPU}", param, ctx)
        return number or AUTO


class AugmentPolicy(click.ParamType[str]):
    """What is done to training images: auto, a policy by its name or as text, or a file, whose content it becomes."""

    name = "policy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pipeline.space.augmentation import AUGMENTATIONS, augmentation_of, read_augmentation

        if value == "auto":
            return "auto"
        with suppress(ValueError):
            augmentation_of(value)
            return str(value)
        if not Path(value).exists():
            names = ", ".join(("auto", *AUGMENTATIONS))
            self.fail(
                f"{value!r} is neither a policy nor a file; choose one of {names}, or a YAML file (docs/recipe.md)",
                param,
                ctx,
            )
        return read_augmentation(Path(value)).as_text()


class ImageShape(click.ParamType[tuple[int, int, int]]):
    """Height, width and channels of an image, as in 32x32x3."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) != 3 or not all(part.isdecimal() and 0 < int(part) < 100_000 for part in parts):
            self.fail(f"{value!r} is not an image size; write height x width x channels, such as 32x32x3", param, ctx)
        height, width, channels = map(int, parts)
        return height, width, channels


class Goal(click.ParamType[str]):
    """A value that ends a search when a trial reaches it, such as val_accuracy=0.95."""

    name = "goal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pipeline.records import OBJECTIVES

        metric, _, number = str(value).partition("=")
        try:
            is_number = math.isfinite(float(number))
        except ValueError:
            is_number = False
        if metric not in OBJECTIVES or not is_number:
            names = ", ".join(OBJECTIVES)
            self.fail(f"{value!r} is not a goal; write METRIC=NUMBER, where METRIC is one of {names}", param, ctx)
        return str(value)


class StudyName(click.ParamType[str]):
    """The name of a study: letters, digits, dot, dash and underscore, at most 64, as it becomes a folder."""

    name = "study"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not NAME.fullmatch(value):
            self.fail(
                f"{value!r} cannot be the name of a study; use 1 to 64 letters, digits, '.', '_' or '-'", param, ctx
            )
        return str(value)


class Size(click.ParamType[int]):
    """An amount of storage such as 500MB, 20GB or 1.5GiB, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([kmg]i?b|tb)", value.lower())
        if not parts:
            self.fail(f"{value!r} is not a size; write a number with a unit, such as 500MB, 20GB or 1.5GiB", param, ctx)
        return round(float(parts[1]) * _SIZE_UNITS[parts[2]])


class Colour(click.ParamType[str]):
    """A colour as #rrggbb."""

    name = "colour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            self.fail(f"{value!r} is not a colour; write #rrggbb, such as '#000000' or '#ffffff'", param, ctx)
        return str(value).lower()


class Host(click.ParamType[str]):
    """The name or address of a machine, without scheme and port; of an IPv6 address without its brackets."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        plain = value.removeprefix("[").removesuffix("]")
        if not (re.fullmatch(r"[\w.-]+", value) or _is_address(plain)):
            self.fail(
                f"{value!r} is not a host; write a name such as images.example.org, without scheme or port",
                param,
                ctx,
            )
        return str(plain)


def _is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
