"""The plan of a network as a `keras.Model`: pixels in, normalisation inside, logits out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from pipeline.models.plan import Layer, plan_layers
from pipeline.space import Builder

BATCH_NORM_MOMENTUM = (
    0.9  # short trainings need faster statistics than Keras' 0.99; airbench and hlb-CIFAR10 use <= 0.9
)

BUILDERS: dict[str, Callable[[Layer], Any]] = {
    "conv": lambda layer: keras.layers.Conv2D(
        layer.units,
        layer.kernel,
        layer.stride,
        "same",
        use_bias=layer.use_bias,
        kernel_initializer="he_normal",
        name=layer.name,
    ),
    "batch_norm": lambda layer: keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=layer.name),
    "relu": lambda layer: keras.layers.ReLU(name=layer.name),
    "max_pool": lambda layer: keras.layers.MaxPooling2D(layer.kernel, layer.stride, name=layer.name),
    "avg_pool": lambda layer: keras.layers.AveragePooling2D(layer.kernel, layer.stride, name=layer.name),
    "global_avg_pool": lambda layer: keras.layers.GlobalAveragePooling2D(name=layer.name),
    "global_max_pool": lambda layer: keras.layers.GlobalMaxPooling2D(name=layer.name),
    "flatten": lambda layer: keras.layers.Flatten(name=layer.name),
    "dense": lambda layer: keras.layers.Dense(layer.units, name=layer.name),
    "dropout": lambda layer: keras.layers.Dropout(layer.rate, name=layer.name),
}


@dataclass(frozen=True)
class Pixels:
    """What goes in: shape (height, width, channels), dtype, and mean and standard deviation of each channel."""

    shape: tuple[int, int, int]
    dtype: str
    mean: Sequence[float]
    std: Sequence[float]

    def scale(self) -> list[float]:
        """Return the factor of each channel; a constant channel must not be divided by zero, nor its noise blown up."""
        smallest = 1e-12 if self.dtype == "float32" else 1.0
        return [1.0 / max(value, smallest) for value in self.std]


def build(params: Mapping[str, Any], pixels: Pixels, num_classes: int, builder: Builder | None = None) -> keras.Model:
    """Return an untrained model: pixels (batch, height, width, channels) to float32 logits (batch, num_classes).

    With a `builder` it is the user's, which normalises by itself and may be compiled.
    """
    if builder is not None:
        from pipeline.models.hypermodel import build_hypermodel, preset

        return build_hypermodel(builder, preset(params), pixels.shape, num_classes)
    inputs = keras.Input(pixels.shape, dtype=pixels.dtype, name="image")
    scale = pixels.scale()
    offset = [-value * factor for value, factor in zip(pixels.mean, scale, strict=True)]
    if len(scale) == 1:
        outputs = keras.layers.Rescaling(scale[0], offset[0], name="normalise")(inputs)
    else:
        outputs = keras.layers.Rescaling(scale, offset, name="normalise")(inputs)
    for layer in plan_layers(params, num_classes):
        outputs = BUILDERS[layer.kind](layer)(outputs)
    return keras.Model(inputs, outputs, name="cnn")
