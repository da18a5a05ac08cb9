"""Networks that were trained before: those of keras.applications by name, those of keras-hub as `hub:PRESET`."""

from dataclasses import dataclass

_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"
MIN_SIDE = 32  # pixels; smaller images are refused by keras.applications
HUB = "hub:"
_HUB_PIXELS = (0.0, 255.0)  # what keras-hub's image converters take


@dataclass(frozen=True)
class _Backbone:
    """A network of keras.applications without its last layer.

    `constructor` is its name there; `file` holds its weights, under that name below `folder` of _STORE and in Keras'
    own cache; `md5` is the digest that Keras knows of it, empty where it knows none. `pixels` are the lowest and the
    highest value that it takes.
    """

    constructor: str
    folder: str
    file: str
    md5: str = ""
    pixels: tuple[float, float] = (-1.0, 1.0)

    @property
    def url(self) -> str:
        """Where Keras' own download is from."""
        return f"{_STORE}/{self.folder}/{self.file}"


BACKBONES = {
    "mobilenet_v2": _Backbone(
        "MobileNetV2", "mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
    "efficientnet_v2_b0": _Backbone(  # it brings the normalisation that it was trained with
        "EfficientNetV2B0",
        "efficientnet_v2",
        "efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
        (0.0, 255.0),
    ),
    "resnet50_v2": _Backbone(
        "ResNet50V2",
        "resnet",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "fac2f116257151a9d068a22e544a4917",
    ),
}


def is_pretrained(name: object) -> bool:
    """Tell whether a space may name this as `backbone`; whether keras-hub knows a preset is not asked here.

    A relative path to one is refused: a resumed search may begin elsewhere. Code of the user may mean something else by
    `backbone`, such as a number.
    """
    if not isinstance(name, str) or not name.startswith(HUB):
        return name in BACKBONES
    preset = name.removeprefix(HUB)
    is_path = "/" in preset and "://" not in preset
    return preset.startswith("/") if is_path else preset.strip(". ~") != ""


def pixel_range(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a pixel that a network takes."""
    return _HUB_PIXELS if name.startswith(HUB) else BACKBONES[name].pixels
