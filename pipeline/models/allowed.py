"""Which Keras classes a model may consist of: the one rule for what is trained, saved and loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

# Keras' safe_mode has had a dozen bypasses in two years, each through a class that no image classifier needs.
ALLOWED_LAYERS = (
    "Functional",
    "Sequential",
    "InputLayer",
    "Rescaling",
    "Resizing",
    "Normalization",
    "Conv2D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "Dense",
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "Activation",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "PReLU",
    "Softmax",
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Flatten",
    "Reshape",
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "RandomFlip",
    "RandomTranslation",
    "RandomRotation",
    "RandomZoom",
    "RandomContrast",
    "Add",
    "Multiply",
    "Average",
    "Concatenate",
    "ZeroPadding2D",
    "Cropping2D",
    "UpSampling2D",
)
_ALLOWED_LAYER_MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.src.models.functional",
    "keras.src.models.sequential",
)
# Arithmetic without a layer of its own: the root of the head gem, the mirror image of flip averaging, the zeros around
# an image in the ResNet v2 of keras-hub.
_ALLOWED_OPERATIONS = tuple(("keras.src.ops.numpy", name) for name in ("Power", "Flip", "Pad"))
# Values that carry numbers only; a callable is never among them.
_ALLOWED_VALUE_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
_ALLOWED_VALUES = ("__keras_tensor__", "__tuple__", "__tensor__", "__numpy__", "DTypePolicy")


def foreign_classes(config: Any) -> Iterator[str]:
    """Yield module and name of every class in a Keras config that is not allowed."""
    for found in _named_classes(config):
        if not _is_allowed(found):
            yield f"{found.get('module')}.{found.get('class_name')}"


def _named_classes(config: Any) -> Iterator[Mapping[str, object]]:
    """Yield every object of a Keras config that names a class, however deep."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _is_allowed(found: Mapping[str, object]) -> bool:
    """Tell whether a serialised object of a Keras config is a known layer or a plain value."""
    name, module = found.get("class_name"), found.get("module")
    if found.get("registered_name") not in (None, name):
        return False
    if name in _ALLOWED_VALUES:
        return module in (None, "keras", "builtins")
    if (module, name) in _ALLOWED_OPERATIONS:
        return True
    if module in _ALLOWED_VALUE_MODULES:
        return name not in ("function", "__lambda__")
    return name in ALLOWED_LAYERS and module in _ALLOWED_LAYER_MODULES
