"""Files of weights as Keras' own download brings them, of networks that were not trained."""

from pathlib import Path
from typing import Any

from pipeline.parts import BACKBONES


def write_weights(home: Path, name: str) -> list[Any]:
    """Write random weights of a backbone to where Keras, at home there, looks for them; return them in order."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    from pipeline.models.backbones.applications import make_backbone

    network = make_backbone(name, (32, 32, 3), has_weights=False)
    path = home / "models" / BACKBONES[name].file
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    return list(network.get_weights())
