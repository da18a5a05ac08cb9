"""The layers of a network as plain values, made from hyperparameters alone: what is built and what is counted.

A network is: normalise, a stem, then `depth` stages of blocks with a pooling between or in them, then a head that ends
in logits. With a `backbone` that network, trained before, takes the place of stem and stages. `build` turns the plan
into Keras layers and `measure` into shapes, parameters and FLOPs, so both see one truth.
"""

from pipeline.parts import BLOCKS, HEADS, POOLINGS, Layer, Style, conv
from pipeline.records import Params
from pipeline.space import complete

_FILTER_MULTIPLE = 8  # widths that are multiples of 8 fill the vector registers of CPUs and tensor cores


def plan_layers(params: Params, num_classes: int) -> list[Layer]:
    """Return the layers from the normalised image to the logits; missing hyperparameters take their defaults."""
    values = complete(params)
    style = Style(values["kernel_size"], values["norm"], values["activation"], values["squeeze_excite"])
    layers = [Layer("resize", "resize", rate=values["resolution"])] if values["resolution"] < 1 else []
    if has_backbone(values):
        return [*layers, Layer("backbone", values["backbone"]), *head(values, num_classes)]
    width = stage_filters(values["filters"], values["filters_growth"], 0)
    if values["block"] != "plain":  # which is a stem by itself
        layers += conv("stem", width, style, kernel=3)
    for stage in range(values["depth"]):
        filters = stage_filters(values["filters"], values["filters_growth"], stage)
        for index in range(values["convs_per_stage"]):
            name, source = f"stage{stage + 1}_conv{index + 1}", layers[-1].name if layers else ""
            layers += BLOCKS[values["block"]](name, width, filters, style, source)
            width = filters
            if _is_pooled(values, stage, index):
                layers += POOLINGS[values["pooling"]](f"stage{stage + 1}_pool", filters, style)
    return layers + head(values, num_classes)


def has_backbone(params: Params) -> bool:
    """Tell whether a configuration begins with a network that was trained before."""
    return bool(params.get("backbone", "none") != "none")


def _is_pooled(values: Params, stage: int, index: int) -> bool:
    """Tell whether a pooling follows a block: the first one of each stage, or the last one of all stages but the last.

    After the first, three quarters of the pixels are gone before most of the convolutions look at them.
    """
    if values["pool_after"] == "first":
        return index == 0
    return index == values["convs_per_stage"] - 1 and stage < values["depth"] - 1


def stage_filters(filters: int, growth: float, stage: int) -> int:
    """Return the width of a stage: filters x growth^stage, to the nearest multiple of _FILTER_MULTIPLE."""
    return max(_FILTER_MULTIPLE, round(filters * growth**stage / _FILTER_MULTIPLE) * _FILTER_MULTIPLE)


def head(values: Params, num_classes: int) -> list[Layer]:
    """Return the fully connected part: collapse the map, dense layers, logits."""
    layers = HEADS[values["head"]]()
    for index in range(values["dense_layers"]):
        name = f"dense{index + 1}"
        layers += [Layer("dense", name, units=values["dense_units"]), Layer("relu", f"{name}_relu")]
    if values["dropout"] > 0:
        layers.append(Layer("dropout", "dropout", rate=values["dropout"]))
    return [*layers, Layer("dense", "logits", units=num_classes)]
