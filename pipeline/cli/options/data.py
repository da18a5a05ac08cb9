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
    help="Allow http(s) URLs in a table to reach NAME, a host on a private network or this machine. Repeatable.",
)
OPTIONS = (
    click.option(
        "--source", type=click.Path(file_okay=False), metavar="FOLDER", help="Folder with the files of a built-in set."
    ),
    click.option(
        "--image-size",
        type=click.IntRange(8, 1024),
        metavar="PIXELS",
        help="Resize images so that their longest side is PIXELS. [default: their own size, at most 64]",
    ),
    click.option(
        "--background",
        type=Colour(),
        default="#000000",
        show_default=True,
        metavar="COLOUR",
        help="Colour to show behind transparent pixels.",
    ),
    click.option(
        "--max-megapixels",
        type=click.IntRange(1, 178),  # Pillow reads no larger ones
        default=50,
        show_default=True,
        metavar="N",
        help="Do not decode pictures of more than N megapixels.",
    ),
    click.option(
        "--max-megabytes",
        type=click.IntRange(1, 4096),
        default=64,
        show_default=True,
        metavar="N",
        help="Do not read files of more than N megabytes.",
    ),
    click.option(
        "--cache-limit",
        type=Size(),
        default="20GB",
        show_default=True,
        metavar="SIZE",
        help="Disk space for decoded images and unpacked arrays; the least recently used go first.",
    ),
    allow_host_option,
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --source, --image-size, --background, --max-megapixels, --max-megabytes, --cache-limit and --allow-host."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
