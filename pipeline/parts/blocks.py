"""Blocks of convolutions, of which a stage is a row; the tables hold what a search space may name.

A block keeps height and width and turns `width` channels into `filters`. `source` is the layer that it takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.parts.layer import Layer

_EXPANSION = 4  # of the channels inside a mobile block; MobileNetV2 has 6, smaller pictures need less
_SQUEEZE = 4  # by which squeeze-excite narrows; Hu et al. 2018 have 16 for widths of 256 and more
_NARROWEST = 8


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common: a key of NORMS, a key of ACTIVATIONS, side of kernels in pixels."""

    kernel: int
    norm: str
    activation: str
    squeeze_excite: bool


Block = Callable[[str, int, int, Style, str], list[Layer]]


def plain(name: str, width: int, filters: int, style: Style, source: str) -> list[Layer]:
    """Return one convolution."""
    layers = conv(name, filters, style)
    return layers + _excited(name, filters, style, layers[-1].name)


def residual(name: str, width: int, filters: int, style: Style, source: str) -> list[Layer]:
    """Return two convolutions with a connection around them (He et al. 2016)."""
    layers = conv(f"{name}a", filters, style) + conv(f"{name}b", filters, style, is_active=False)
    layers += _excited(name, filters, style, layers[-1].name)
    return _added(name, layers, width, filters, style, source)


def separable(name: str, width: int, filters: int, style: Style, source: str) -> list[Layer]:
    """Return a convolution of each channel by itself, then one of 1 x 1 over all channels (Chollet 2017)."""
    layers = [Layer("depthwise", f"{name}_depthwise", kernel=style.kernel, use_bias=False)]
    layers += conv(name, filters, style, kernel=1)
    return layers + _excited(name, filters, style, layers[-1].name)


def mobile(name: str, width: int, filters: int, style: Style, source: str) -> list[Layer]:
    """Return an inverted residual: wider, each channel by itself, narrow again (Sandler et al. 2018)."""
    inner, has_bias = _EXPANSION * width, style.norm == "none"
    layers = conv(f"{name}_expand", inner, style, kernel=1)
    layers += [Layer("depthwise", f"{name}_depthwise", kernel=style.kernel, use_bias=has_bias)]
    layers += finished(f"{name}_depthwise", style)
    layers += _excited(name, inner, style, layers[-1].name)
    layers += conv(f"{name}_project", filters, style, kernel=1, is_active=False)
    if width != filters:
        return layers
    return [*layers, Layer("add", f"{name}_add", sources=(layers[-1].name, source))]


BLOCKS: dict[str, Block] = {"plain": plain, "residual": residual, "separable": separable, "mobile": mobile}

NORMS: dict[str, Callable[[str], list[Layer]]] = {
    "batch": lambda name: [Layer("batch_norm", name)],
    "group": lambda name: [Layer("group_norm", name)],
    "layer": lambda name: [Layer("layer_norm", name)],
    "none": lambda name: [],
}

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu")


def conv(
    name: str, filters: int, style: Style, kernel: int = 0, stride: int = 1, is_active: bool = True
) -> list[Layer]:  # fmt: skip
    """Return a convolution with its normalisation and activation; the bias is left to the normalisation if any.

    The side of the kernel is that of the style unless it is given.
    """
    has_bias = style.norm == "none"
    first = Layer("conv", name, units=filters, kernel=kernel or style.kernel, stride=stride, use_bias=has_bias)
    return [first, *(finished(name, style) if is_active else NORMS[style.norm](f"{name}_norm"))]


def finished(name: str, style: Style) -> list[Layer]:
    """Return what follows a convolution: normalisation and activation."""
    return [*NORMS[style.norm](f"{name}_norm"), Layer(style.activation, f"{name}_{style.activation}")]


def _excited(name: str, filters: int, style: Style, source: str) -> list[Layer]:
    """Return squeeze-excite, if the style has it: each channel times a gate that sees the mean of all channels."""
    if not style.squeeze_excite:
        return []
    return [
        Layer("squeeze", f"{name}_squeeze"),
        Layer("conv", f"{name}_narrow", units=max(_NARROWEST, filters // _SQUEEZE), kernel=1),
        Layer("relu", f"{name}_narrow_relu"),
        Layer("conv", f"{name}_gate", units=filters, kernel=1),
        Layer("sigmoid", f"{name}_gate_sigmoid"),
        Layer("multiply", f"{name}_excite", sources=(source, f"{name}_gate_sigmoid")),
    ]


def _added(name: str, layers: list[Layer], width: int, filters: int, style: Style, source: str) -> list[Layer]:
    """Return layers with a connection around them, by a convolution of 1 x 1 where the number of channels changes."""
    end = layers[-1].name
    if width != filters:
        first, *rest = conv(f"{name}_around", filters, style, kernel=1, is_active=False)
        layers = [*layers, replace(first, sources=(source,)), *rest]
        source = layers[-1].name
    return [
        *layers,
        Layer("add", f"{name}_add", sources=(end, source)),
        Layer(style.activation, f"{name}_{style.activation}"),
    ]
