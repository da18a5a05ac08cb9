"""Output shapes, parameters and FLOPs of a network by arithmetic, before anything is built."""

import math
from collections.abc import Iterator

from pipeline.models.backbones.applications import measure_backbone
from pipeline.models.cost import Cost, ImpossibleNetwork, Shape
from pipeline.models.plan import plan_layers
from pipeline.parts import Layer, scaled
from pipeline.records import Params
from pipeline.space import Builder


def measure(
    params: Params, image_shape: tuple[int, int, int], num_classes: int, builder: Builder | None = None
) -> Cost:
    """Return the cost of the network that `params` describe for images (height, width, channels).

    With a `builder` its network is built, without memory for its weights; that imports Keras.

    Raises:
        ImpossibleNetwork: a pooling finds fewer than two pixels in a direction, or the builder fails.
    """
    if builder is not None:
        from pipeline.models.hypermodel.build import measure_hypermodel

        return measure_hypermodel(builder, tuple(params.items()), image_shape, num_classes)
    num_params = flops = depthwise_flops = 0
    shapes = []
    for layer, shape in _taken_shapes(params, image_shape, num_classes):
        num_weights, num_multiplications, given = _measure_layer(layer, shape)
        num_params += num_weights
        flops += 2 * num_multiplications
        depthwise_flops += _depthwise_part(layer, shape, 2 * num_multiplications)
        shapes.append((layer.name, given))
    return Cost(num_params, flops, tuple(shapes), depthwise_flops)


def dense_params(params: Params, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Return the weights of the network in which each convolution is a fully connected layer between the same maps.

    That is what the sharing of weights over the picture saves: there each output sees all inputs by weights of its own.
    """
    total = 0
    for layer, shape in _taken_shapes(params, image_shape, num_classes):
        num_weights, _, given = _measure_layer(layer, shape)
        is_shared = layer.kind in ("conv", "depthwise")
        total += (math.prod(shape) + layer.use_bias) * math.prod(given) if is_shared else num_weights
    return total


def _taken_shapes(params: Params, image_shape: tuple[int, int, int], num_classes: int) -> Iterator[tuple[Layer, Shape]]:
    """Yield each layer of a network with the shape of what it takes."""
    shape: Shape = image_shape
    shapes: dict[str, Shape] = {}
    for layer in plan_layers(params, num_classes):
        if layer.sources:  # the largest: a gate is one pixel, and broadcast
            shape = max((shapes[name] for name in layer.sources), key=math.prod)
        yield layer, shape
        shapes[layer.name] = shape = _measure_layer(layer, shape)[2]


def _depthwise_part(layer: Layer, shape: Shape, flops: int) -> int:
    """Return how many of the FLOPs of a layer are spent on channels by themselves."""
    if layer.kind == "backbone":
        return measure_backbone(layer.name, shape)[2]
    return flops if layer.kind == "depthwise" else 0


def _measure_layer(layer: Layer, shape: Shape) -> tuple[int, int, Shape]:
    """Return (weights, multiplications, output shape) of one layer on one image."""
    if layer.kind == "conv":
        height, width = (math.ceil(side / layer.stride) for side in shape[:2])  # padding "same"
        weights = layer.kernel**2 * shape[2] * layer.units
        return weights + layer.use_bias * layer.units, height * width * weights, (height, width, layer.units)
    if layer.kind == "depthwise":
        weights = layer.kernel**2 * shape[2]
        return weights + layer.use_bias * shape[2], shape[0] * shape[1] * weights, shape
    if layer.kind == "backbone":
        num_weights, flops, _, given = measure_backbone(layer.name, shape)
        return num_weights, flops // 2, given
    if layer.kind == "resize":
        return 0, 0, (scaled(shape[0], layer.rate), scaled(shape[1], layer.rate), shape[2])
    if layer.kind in ("max_pool", "avg_pool"):
        return 0, 0, _pooled(layer, shape)
    if layer.kind == "batch_norm":
        return 4 * shape[-1], 0, shape
    if layer.kind in ("group_norm", "layer_norm"):
        return 2 * shape[-1], 0, shape
    if layer.kind == "squeeze":
        return 0, 0, (1, 1, shape[2])
    if layer.kind in ("global_avg_pool", "global_max_pool"):
        return 0, 0, (shape[2],)
    if layer.kind == "flatten":
        return 0, 0, (math.prod(shape),)
    if layer.kind == "dense":
        return (shape[0] + 1) * layer.units, shape[0] * layer.units, (layer.units,)
    return 0, 0, shape  # activations, sums, products, dropout


def _pooled(layer: Layer, shape: Shape) -> Shape:
    """Return the shape after a pooling.

    Raises:
        ImpossibleNetwork: there are fewer than two pixels in a direction.
    """
    if layer.stride == 1:  # padding "same"
        return shape
    height, width = (side // layer.stride for side in shape[:2])  # padding "valid"
    if height < 1 or width < 1:
        raise ImpossibleNetwork(f"{layer.name} halves a map of {shape[0]} x {shape[1]} pixels; the depth is too large")
    return height, width, shape[2]
