"""The options that say how images are read and where they are kept, for every command that decodes a data set."""

from collections.abc import Callable
from typing import Any

import click

from pipeline.cli.options.types import Colour, Host, Size

allow_host_option = click.option(
    "--allow-host",
    type=Host(),
    multiple=True,
    metavar="NAME",
    help="Let http(s) URLs in a table reach NAME, a host on a private network or this machine. Repeatable.",
)
OPTIONS = (
    click.option(
        "--source", type=click.Path(file_okay=False), metavar="FOLDER", help="Where the files of a built-in set lie."
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
