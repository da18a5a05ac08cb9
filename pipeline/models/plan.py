"""The layers of a network as plain values, made from hyperparameters alone: what is built and what is counted.

A network is: normalise, then `depth` stages of convolutions with a pooling between stages, then a head that ends in
logits. `build` turns the plan into Keras layers and `cost` into shapes, parameters and FLOPs, so both see one truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.space import complete

FILTER_MULTIPLE = 8  # widths that are multiples of 8 fill the vector registers of CPUs and tensor cores


@dataclass(frozen=True)
class Layer:
    """One layer. `kind` is a key of `build.BUILDERS`; the other fields are read by the kinds that need them."""

    kind: str
    name: str
    units: int = 0
    kernel: int = 0
    stride: int = 1
    rate: float = 0.0
    use_bias: bool = True


def plan_layers(params: Mapping[str, Any], num_classes: int) -> list[Layer]:
    """Return the layers from the normalised image to the logits; missing hyperparameters take their defaults."""
    values = complete(params)
    layers: list[Layer] = []
    for stage in range(values["depth"]):
        filters = stage_filters(values["filters"], values["filters_growth"], stage)
        for index in range(values["convs_per_stage"]):
            layers += conv_block(
                f"stage{stage + 1}_conv{index + 1}", filters, values["kernel_size"], 1, values["batch_norm"]
            )
        if stage < values["depth"] - 1:
            layers += pooling(f"stage{stage + 1}_pool", values["pooling"], filters, values["batch_norm"])
    return layers + head(values, num_classes)


def stage_filters(filters: int, growth: float, stage: int) -> int:
    """Return the width of a stage: filters x growth^stage, to the nearest multiple of FILTER_MULTIPLE."""
    return max(FILTER_MULTIPLE, round(filters * growth**stage / FILTER_MULTIPLE) * FILTER_MULTIPLE)


def conv_block(name: str, filters: int, kernel: int, stride: int, batch_norm: bool) -> list[Layer]:
    """Return convolution, optional batch normalisation, ReLU; the bias is left to the normalisation if there is one."""
    norm = [Layer("batch_norm", f"{name}_norm")] if batch_norm else []
    conv = Layer("conv", name, units=filters, kernel=kernel, stride=stride, use_bias=not batch_norm)
    return [conv, *norm, Layer("relu", f"{name}_relu")]


def pooling(name: str, kind: str, filters: int, batch_norm: bool) -> list[Layer]:
    """Return what halves height and width between stages: maximum, average, or a convolution with stride 2."""
    if kind == "stride":
        return conv_block(name, filters, 3, 2, batch_norm)
    return [Layer({"max": "max_pool", "avg": "avg_pool"}[kind], name, kernel=2, stride=2)]


def head(values: Mapping[str, Any], num_classes: int) -> list[Layer]:
    """Return the fully connected part: collapse the map, dense layers, logits."""
    collapse = {"gap": "global_avg_pool", "gmp": "global_max_pool", "flatten": "flatten"}[values["head"]]
    layers = [Layer(collapse, "head")]
    for index in range(values["dense_layers"]):
        name = f"dense{index + 1}"
        layers += [Layer("dense", name, units=values["dense_units"]), Layer("relu", f"{name}_relu")]
    if values["dropout"] > 0:
        layers.append(Layer("dropout", "dropout", rate=values["dropout"]))
    return [*layers, Layer("dense", "logits", units=num_classes)]
