"""The plan of a network as a `keras.Model`: pixels in, normalisation inside, logits out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from pipeline.models.backbones.applications import make_backbone
from pipeline.models.plan import has_backbone, plan_layers
from pipeline.parts import Layer, pixel_range, scaled
from pipeline.records import Params
from pipeline.space import Builder

_BATCH_NORM_MOMENTUM = (
    0.9  # short trainings need faster statistics than Keras' 0.99; airbench and hlb-CIFAR10 use <= 0.9
)
_NUM_GROUPS = 8  # of channels that are normalised together; widths are multiples of it
_LARGEST = {"uint8": 255, "uint16": 65535}  # pixel values
_SMALLEST_CUBE = 1e-6  # the slope of a cube root is infinite at 0

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
    "depthwise": lambda layer: keras.layers.DepthwiseConv2D(
        layer.kernel,
        layer.stride,
        "same",
        use_bias=layer.use_bias,
        depthwise_initializer="he_normal",
        name=layer.name,
    ),
    "backbone": lambda layer: partial(_pretrained, layer),
    "resize": lambda layer: partial(resized, layer),
    "batch_norm": lambda layer: keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, name=layer.name),
    "group_norm": lambda layer: keras.layers.GroupNormalization(_NUM_GROUPS, name=layer.name),
    "layer_norm": lambda layer: keras.layers.LayerNormalization(name=layer.name),
    "relu": lambda layer: keras.layers.ReLU(name=layer.name),
    "leaky_relu": lambda layer: keras.layers.LeakyReLU(name=layer.name),
    "gelu": lambda layer: keras.layers.Activation("gelu", name=layer.name),
    "silu": lambda layer: keras.layers.Activation("silu", name=layer.name),
    "sigmoid": lambda layer: keras.layers.Activation("sigmoid", name=layer.name),
    "add": lambda layer: keras.layers.Add(name=layer.name),
    "multiply": lambda layer: keras.layers.Multiply(name=layer.name),
    "max_pool": lambda layer: keras.layers.MaxPooling2D(layer.kernel, layer.stride, padding(layer), name=layer.name),
    "avg_pool": lambda layer: keras.layers.AveragePooling2D(
        layer.kernel, layer.stride, padding(layer), name=layer.name
    ),
    "squeeze": lambda layer: keras.layers.GlobalAveragePooling2D(keepdims=True, name=layer.name),
    "cube_root": lambda layer: partial(_cube_root, layer),
    "global_avg_pool": lambda layer: keras.layers.GlobalAveragePooling2D(name=layer.name),
    "global_max_pool": lambda layer: keras.layers.GlobalMaxPooling2D(name=layer.name),
    "flatten": lambda layer: keras.layers.Flatten(name=layer.name),
    "dense": lambda layer: keras.layers.Dense(layer.units, name=layer.name),
    "dropout": lambda layer: keras.layers.Dropout(layer.rate, name=layer.name),
}


def padding(layer: Layer) -> str:
    """Return how a pooling treats the edge: it leaves half a window out, or keeps the size where it skips nothing."""
    return "same" if layer.stride == 1 else "valid"


def _pretrained(layer: Layer, inputs: Any) -> Any:
    """Return the features of a pretrained network."""
    rgb = keras.layers.Concatenate(name="grey_as_rgb")([inputs] * 3) if inputs.shape[-1] == 1 else inputs
    return make_backbone(layer.name, rgb.shape[1:])(rgb)


def resized(layer: Layer, inputs: Any) -> Any:
    """Return images (batch, height, width, channels) made smaller by the share `layer.rate`."""
    height, width = (scaled(side, layer.rate) for side in inputs.shape[1:3])
    return keras.layers.Resizing(height, width, name=layer.name)(inputs)


def _cube_root(layer: Layer, inputs: Any) -> Any:
    """Return the cube root of numbers that are not negative."""
    return keras.ops.power(keras.layers.Rescaling(1.0, _SMALLEST_CUBE, name=layer.name)(inputs), 1 / 3)


@dataclass(frozen=True)
class Pixels:
    """What goes in: shape (height, width, channels), dtype, and mean and standard deviation of each channel."""

    shape: tuple[int, int, int]
    dtype: str
    mean: Sequence[float]
    std: Sequence[float]

    def within(self, low: float, high: float) -> tuple[list[float], list[float]]:
        """Return factor and offset of each channel such that pixels go from `low` to `high`.

        Of float32 pixels no range is known: two standard deviations around the mean go there.
        """
        if self.dtype in _LARGEST:
            return [(high - low) / _LARGEST[self.dtype]] * len(self.mean), [low] * len(self.mean)
        part, middle = (high - low) / 4, (high + low) / 2
        scale, offset = self.standard()
        return [part * value for value in scale], [part * value + middle for value in offset]

    def standard(self) -> tuple[list[float], list[float]]:
        """Return factor and offset of each channel to mean 0 and deviation 1.

        A constant channel must not be divided by zero, nor its noise blown up.
        """
        smallest = 1e-12 if self.dtype == "float32" else 1.0
        scale = [1.0 / max(value, smallest) for value in self.std]
        return scale, [-value * factor for value, factor in zip(self.mean, scale, strict=True)]


def build(params: Params, pixels: Pixels, num_classes: int, builder: Builder | None = None) -> keras.Model:
    """Return an untrained model: pixels (batch, height, width, channels) to float32 logits (batch, num_classes).

    With a `builder` it is the user's, which normalises by itself and may be compiled.
    """
    if builder is not None:
        from pipeline.models.hypermodel.build import build_hypermodel, preset

        return build_hypermodel(builder, preset(params), pixels.shape, num_classes)
    inputs = keras.Input(pixels.shape, dtype=pixels.dtype, name="image")
    scale, offset = pixels.within(*pixel_range(params["backbone"])) if has_backbone(params) else pixels.standard()
    if len(scale) == 1:
        outputs = keras.layers.Rescaling(scale[0], offset[0], name="normalise")(inputs)
    else:
        outputs = keras.layers.Rescaling(scale, offset, name="normalise")(inputs)
    found: dict[str, keras.KerasTensor] = {}
    for layer in plan_layers(params, num_classes):
        taken = [found[name] for name in layer.sources]
        found[layer.name] = outputs = BUILDERS[layer.kind](layer)(taken[0] if len(taken) == 1 else taken or outputs)
    return keras.Model(inputs, outputs, name="cnn")


def flip_averaged(model: keras.Model) -> keras.Model:
    """Return a model of the same weights whose logits are the mean for an image and its mirror image; twice the work.

    It takes what `model` takes: pixels (batch, height, width, channels).
    """
    network = keras.Model(model.inputs[0], model.outputs[0], name="network")  # whatever a user called it
    image = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype, name="image")
    logits = [network(image), network(keras.ops.flip(image, axis=2))]
    return keras.Model(image, keras.layers.Average(name="mean_of_both")(logits), name="flip_averaged")


def averaged(models: Sequence[keras.Model]) -> keras.Model:
    """Return a model of the same weights whose logits are the mean of those of several, which take the same images."""
    networks = [
        keras.Model(model.inputs[0], model.outputs[0], name=f"network_{number}") for number, model in enumerate(models)
    ]
    image = keras.Input(models[0].input_shape[1:], dtype=models[0].inputs[0].dtype, name="image")
    logits = [network(image) for network in networks]
    return keras.Model(image, keras.layers.Average(name="mean_of_all")(logits), name="ensemble")
