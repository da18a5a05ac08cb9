"""Pretrained networks of keras-hub, rebuilt of Keras' own layers, so that a saved model needs keras-hub nowhere."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from pipeline.errors import SpaceError
from pipeline.models.allowed import foreign_classes
from pipeline.parts.backbones import HUB

_INSTALL = "pip install keras-hub (beside tensorflow-cpu as docs/spaces.md says)"


def check_preset(name: str) -> None:
    """Read a preset, which downloads what keras-hub does not have yet, and build its network once.

    Raises:
        SpaceError: keras-hub or the preset is missing, or its network cannot be a part of a model.
    """
    make_network(name, (None, None, 3), has_weights=True)


def make_network(name: str, shape: tuple[int | None, ...], has_weights: bool) -> Any:
    """Return the network of `hub:PRESET` for pixels (batch, height, width, 3) from 0 to 255, up to its last map.

    Raises:
        SpaceError: see `check_preset`.
    """
    import keras

    preset = name.removeprefix(HUB)
    with _reading(name):
        import keras_hub

        converter = keras_hub.layers.ImageConverter.from_preset(preset)
        found = keras_hub.models.Backbone.from_preset(preset, load_weights=has_weights)
    if not isinstance(found.output, keras.KerasTensor) or len(found.output.shape) != 4:
        raise SpaceError(
            f"backbone {name}: {type(found).__name__} does not end in one map of features (height, width, channels); "
            "expected a convolutional network, such as one of the families efficientnet, resnet, densenet or vgg; "
            "choose another preset"
        )
    image = keras.Input(shape)
    given = keras.layers.Rescaling(plain(converter.scale, 1.0), plain(converter.offset, 0.0), name="as_trained")(image)
    try:
        copy = keras.models.clone_model(found, keras.Input(shape))
        network = keras.Model(image, copy(given), name="hub_backbone")
    except ValueError as error:
        raise SpaceError(
            f"backbone {name}: {type(found).__name__} cannot take images of {shape}: {str(error)[:200]}; expected a "
            "network for images of any size; choose another preset"
        ) from error
    if foreign := sorted(set(foreign_classes(keras.saving.serialize_keras_object(copy)))):
        raise SpaceError(
            f"backbone {name}: it has layers that are not Keras' own ({', '.join(foreign)[:200]}), which a model may "
            "not consist of; expected plain layers, such as those of EfficientNet (v1), ResNet, DenseNet or VGG; "
            "choose another preset"
        )
    if has_weights:
        copy.set_weights(found.get_weights())
    return network


def plain(value: Any, default: float) -> Any:
    """Return a factor or offset as a number, or a list of one for each channel."""
    if value is None:
        return default
    return list(map(float, value)) if isinstance(value, (list, tuple)) else float(value)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what keras-hub and its downloads raise into a SpaceError; what they print goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ModuleNotFoundError as error:
        raise SpaceError(
            f"backbone {name}: the Python package {error.name} is not installed; expected keras-hub and what it needs; "
            f"install it: {_INSTALL}"
        ) from error
    except Exception as error:  # keras-hub, kagglehub, h5py and json raise many kinds
        raise SpaceError(
            f"backbone {name}: keras-hub cannot read this preset ({str(error)[:300]}); expected the name of one, "
            "which it downloads, or an absolute path to a folder that holds config.json, image_converter.json and "
            "model.weights.h5 (save_to_preset of an image classifier writes them); correct it, bring such a folder "
            "from a machine with a network, or leave this backbone out of the space"
        ) from error
