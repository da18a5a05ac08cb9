"""What a network that Keras has built costs: a pretrained one, or one of the user's own code."""

import math
from collections.abc import Iterator
from typing import Any

import keras

from pipeline.models.cost import Cost


def leaves(model: keras.Model) -> Iterator[Any]:
    """Yield the layers of a model, and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def measure_model(model: keras.Model) -> Cost:
    """Return the cost of a built model; a layer that is used several times counts once.

    Each weight of a convolution multiplies once at each place of its output, each weight of a dense layer once.
    """
    shapes, flops = [], dict.fromkeys(("kernel", "depthwise_kernel", "pointwise_kernel"), 0)
    for layer in leaves(model):
        output = tuple(layer.output.shape[1:])
        for name in flops:
            if (kernel := getattr(layer, name, None)) is not None:
                kind = "depthwise_kernel" if isinstance(layer, keras.layers.DepthwiseConv2D) else name
                flops[kind] += 2 * math.prod(kernel.shape) * math.prod(output[:-1])
        shapes.append((layer.name, output))
    return Cost(model.count_params(), sum(flops.values()), tuple(shapes), flops["depthwise_kernel"])
