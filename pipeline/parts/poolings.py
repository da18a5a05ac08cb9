"""What halves height and width between two stages; the table holds what a search space may name."""

from collections.abc import Callable

from pipeline.parts.blocks import Style, conv
from pipeline.parts.layer import Layer

Pooling = Callable[[str, int, Style], list[Layer]]


def maximum(name: str, filters: int, style: Style) -> list[Layer]:
    """Return the largest of four pixels."""
    return [Layer("max_pool", name, kernel=2, stride=2)]


def average(name: str, filters: int, style: Style) -> list[Layer]:
    """Return the mean of four pixels."""
    return [Layer("avg_pool", name, kernel=2, stride=2)]


def _strided(name: str, filters: int, style: Style) -> list[Layer]:
    """Return a convolution that skips every second pixel."""
    return conv(name, filters, style, kernel=3, stride=2)


def blurred(name: str, filters: int, style: Style) -> list[Layer]:
    """Return the largest of four pixels at every place, blurred by 1 2 1, of which every second is kept (Zhang 2019).

    Two means of two in a row are the blur.
    """
    return [
        Layer("max_pool", f"{name}_max", kernel=2, stride=1),
        Layer("avg_pool", f"{name}_blur", kernel=2, stride=1),
        Layer("avg_pool", name, kernel=2, stride=2),
    ]


POOLINGS: dict[str, Pooling] = {"max": maximum, "avg": average, "stride": _strided, "blur": blurred}
