"""The options that say how images are read and where they are kept, for every command that decodes a data set."""

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import click

SIZE_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class Size(click.ParamType[int]):
    """An amount of storage such as 500MB, 20GB or 1.5GiB, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([kmg]i?b|tb)", value.lower())
        if not parts:
            self.fail(f"{value!r} is no size; expected a number with a unit, such as 500MB, 20GB or 1.5GiB", param, ctx)
        return round(float(parts[1]) * SIZE_UNITS[parts[2]])


class Colour(click.ParamType[str]):
    """A colour as #rrggbb."""

    name = "colour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the colour in lower case."""
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            self.fail(f"{value!r} is no colour; expected #rrggbb, such as '#000000' or '#ffffff'", param, ctx)
        return str(value).lower()


class Host(click.ParamType[str]):
    """The name or address of a machine, without scheme and port."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a name as it is, an IPv6 address without brackets."""
        plain = value.removeprefix("[").removesuffix("]")
        if not (re.fullmatch(r"[\w.-]+", value) or is_address(plain)):
            self.fail(
                f"{value!r} is not a host; expected a name such as images.example.org, without scheme and port",
                param,
                ctx,
            )
        return str(plain)


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


allow_host_option = click.option(
    "--allow-host",
    type=Host(),
    multiple=True,
    metavar="NAME",
    help="Let http(s) URLs in a table reach NAME, a host on a private network or this machine. Repeatable.",
)
OPTIONS = (
    click.option(
        "--source",
        type=click.Path(file_okay=False),
        metavar="FOLDER",
        help="Where the files of a built-in set lie.",
    ),
    click.option(
        "--image-size",
        type=click.IntRange(8, 1024),
        metavar="PIXELS",
        help="Longest side that images are resized to. [default: their own, at most 64]",
    ),
    click.option(
        "--background",
        type=Colour(),
        default="#000000",
        show_default=True,
        metavar="COLOUR",
        help="Colour under transparent pixels.",
    ),
    click.option(
        "--max-megapixels",
        type=click.IntRange(1, 178),  # Pillow reads no larger ones
        default=50,
        show_default=True,
        metavar="N",
        help="Larger pictures are not decoded.",
    ),
    click.option(
        "--max-megabytes",
        type=click.IntRange(1, 4096),
        default=64,
        show_default=True,
        metavar="N",
        help="Larger files are not read.",
    ),
    click.option(
        "--cache-limit",
        type=Size(),
        default="20GB",
        show_default=True,
        metavar="SIZE",
        help="Disk space for decoded images and unpacked arrays; what was not used for longest is removed.",
    ),
    allow_host_option,
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --source, --image-size, --background, --max-megapixels, --max-megabytes, --cache-limit and --allow-host."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
