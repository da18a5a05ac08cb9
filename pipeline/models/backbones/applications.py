"""Pretrained networks: their weights, from Keras' cache or a download, and what they cost."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import SpaceError
from pipeline.models.backbones.hub import check_preset, make_network
from pipeline.models.cost import ImpossibleNetwork, Shape
from pipeline.parts import BACKBONES
from pipeline.parts.backbones import HUB, MIN_SIDE

MODELS = "PIPELINE_KERAS_MODELS"
"""The environment variable that tells children where the user's Keras keeps weights: they have a KERAS_HOME of ours."""


def weights_folder() -> Path:
    """Return where the user's Keras keeps the weights of keras.applications."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(os.environ.get(MODELS) or Path(home, "models")).absolute()


def weights_path(name: str) -> Path:
    """Return where the weights of a backbone lie, if they are there."""
    return weights_folder() / BACKBONES[name].file


def fetch_weights(names: Iterable[str]) -> None:
    """Download what weights are missing, as Keras itself does, and check that all can be read.

    Raises:
        SpaceError: a file is missing and cannot be downloaded, or is damaged.
    """
    for name in names:
        if name.startswith(HUB):
            check_preset(name)
            continue
        backbone, path = BACKBONES[name], weights_path(name)
        if not path.is_file():
            sys.stderr.write(f"downloading the weights of {name} to {path}\n")
            try:
                download(name)
            except Exception as error:  # urllib, ssl and Keras raise many kinds
                raise SpaceError(
                    f"backbone {name}: its weights are not at {path}, and {backbone.url} cannot be downloaded "
                    f"({str(error)[:200]}); expected that file; fetch it on a machine with a network and put it there, "
                    "or leave this backbone out of the space"
                ) from error
        if not _is_readable(path):
            raise SpaceError(
                f"{path}: no HDF5 file; expected the weights of {name}, as {backbone.url} has them; remove it, and it "
                "is downloaded again"
            )


def download(name: str) -> None:
    """Download the weights of a backbone to Keras' cache."""
    import keras

    backbone = BACKBONES[name]
    with contextlib.redirect_stdout(sys.stderr):
        folder = weights_folder()
        place = {"cache_dir": str(folder.parent), "cache_subdir": folder.name}
        keras.utils.get_file(backbone.file, backbone.url, file_hash=backbone.md5 or None, **place)


def _is_readable(path: Path) -> bool:
    """Tell whether a file is whole enough to be opened as HDF5."""
    import h5py

    try:
        with h5py.File(path, "r"):
            return True
    except OSError:
        return False


def make_backbone(name: str, shape: Shape, has_weights: bool = True) -> Any:
    """Return the network for pixels (batch, height, width, 3) in its own range, up to its last map of features.

    Its batch normalisation never trains: it keeps the statistics that it came with. Without weights they are random.

    Raises:
        SpaceError: a preset of keras-hub cannot be read or used.
    """
    import keras

    if name.startswith(HUB):
        network = make_network(name, shape, has_weights)
    else:
        constructor = getattr(keras.applications, BACKBONES[name].constructor)
        weights = str(weights_path(name)) if has_weights else None
        network = constructor(include_top=False, weights=weights, input_shape=shape)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return network


def refusal(name: str, shape: Shape) -> str:
    """Return why a backbone cannot take images (height, width, channels); empty if it can."""
    height, width, channels = shape
    if channels not in (1, 3):
        return f"{name} was trained on RGB pictures; these images have {channels} channels"
    if min(height, width) < MIN_SIDE:
        return f"{name} needs at least {MIN_SIDE} x {MIN_SIDE} pixels, not {height} x {width}; give --image-size 96"
    return ""


@functools.lru_cache(maxsize=100)
def measure_backbone(name: str, shape: Shape) -> tuple[int, int, int, Shape]:
    """Return (weights, FLOPs, depthwise FLOPs, output shape) of a backbone for images (height, width, channels).

    It is built without memory for its weights, which imports Keras.

    Raises:
        ImpossibleNetwork: the images are too small, or neither grey nor RGB.
    """
    import keras

    from pipeline.models.keras_cost import measure_model

    height, width, _ = shape
    if reason := refusal(name, shape):
        raise ImpossibleNetwork(reason)
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = make_backbone(name, (height, width, 3), has_weights=False)
            cost = measure_model(model)
            return cost.num_params, cost.flops, cost.depthwise_flops, tuple(model.output_shape[1:])
    finally:
        keras.utils.clear_session(free_memory=False)
