"""A search space by the name that the user gave: installed, a YAML file, or the user's own code."""

from pipeline.machine import check_backend
from pipeline.space import Builder, SearchSpace, load_space
from pipeline.space.builder import is_code, read_builder

_EXAMPLE_SHAPE = (64, 64, 3)
_EXAMPLE_CLASSES = 10
FOR_CPU, FOR_GPU = "cnn", "gpu"  # built-in spaces
# Judgements: a batch of 512 is a twentieth of so many images, and 4 GB of activations at so many pixels a side.
MIN_GPU_IMAGES, MAX_GPU_SIDE = 10_000, 64


def default_space(image_shape: tuple[int, int, int], num_images: int, has_gpu: bool) -> str:
    """Return the built-in space that suits this machine, images (height, width, channels), and their number."""
    is_for_gpu = has_gpu and num_images >= MIN_GPU_IMAGES and max(image_shape[:2]) <= MAX_GPU_SIDE
    return FOR_GPU if is_for_gpu else FOR_CPU


def open_space(
    name: str, image_shape: tuple[int, int, int] = _EXAMPLE_SHAPE, num_classes: int = _EXAMPLE_CLASSES
) -> SearchSpace:
    """Return the space; the user's own code is run, for images (height, width, channels), which imports Keras.

    Pretrained networks are measured by building them, which imports Keras too.

    Raises:
        InvalidUsage: code needs a Keras backend that is not installed.
        SpaceError: there is no such space, or it cannot be used.
    """
    found = read_space(name)
    if isinstance(found, Builder):
        _import_keras()
        from pipeline.search.spaces.discovery import load_hypermodel

        return load_hypermodel(found, image_shape, num_classes)
    if found.backbones():
        _import_keras()
    return found


def read_space(name: str) -> SearchSpace | Builder:
    """Return the space, or where the user's own code lies, which is not run yet.

    Raises:
        SpaceError: there is no such space, or its file is no space.
    """
    return read_builder(name) if is_code(name) else load_space(name)


def _import_keras() -> None:
    """Import Keras without what its backend writes on that occasion.

    Raises:
        InvalidUsage: the backend is not installed.
    """
    check_backend()
    from pipeline.bundle import native_chatter_hidden

    with native_chatter_hidden():
        import keras  # noqa: F401
