"""The plan of a network as a `keras.Model`: uint8 images in, normalisation inside, logits out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from pipeline.models.plan import Layer, plan_layers

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


def build(
    params: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> keras.Model:
    """Return an untrained model: uint8 (batch, height, width, channels) to float32 logits (batch, num_classes).

    `mean` and `std` are those of the training pixels, one number a channel, on the scale 0 to 255.
    """
    inputs = keras.Input(image_shape, dtype="uint8", name="image")
    scale = [1.0 / max(value, 1.0) for value in std]  # a constant channel must not be divided by zero
    offset = [-value * factor for value, factor in zip(mean, scale, strict=True)]
    if len(scale) == 1:
        outputs = keras.layers.Rescaling(scale[0], offset[0], name="normalise")(inputs)
    else:
        outputs = keras.layers.Rescaling(scale, offset, name="normalise")(inputs)
    for layer in plan_layers(params, num_classes):
        outputs = BUILDERS[layer.kind](layer)(outputs)
    return keras.Model(inputs, outputs, name="cnn")
