"""Predictions of networks, kept with the SHA-256 of each image: rows may come in another order later."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.splits.manifest import places_of
from pipeline.files import replacing


def save(path: Path, digests: NDArray[np.uint8], **arrays: NDArray[Any]) -> None:
    """Write arrays (num_images, ...) of images whose SHA-256 are `digests`, uint8 (num_images, 32); by rename."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, digests=digests, allow_pickle=False, **arrays)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Return what `save` wrote, in the order in which it was written.

    Raises:
        OSError, ValueError, ...: one of `arrays.NPZ_ERRORS`: missing, damaged, or without digests.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if "digests" not in arrays:
        raise ValueError("it does not say which images it belongs to")
    return arrays


def load_for(path: Path, digests: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return what `save` wrote of some images, in their order.

    Raises:
        OSError, ValueError, ...: see `load`; ValueError also where it lacks one of the images.
    """
    return _aligned(load(path), digests)


def _aligned(arrays: dict[str, NDArray[Any]], digests: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the rows of arrays that belong to some images, in their order; copies of an image have equal rows.

    Raises:
        ValueError: the arrays lack one of the images.
    """
    places = places_of(arrays["digests"], digests)
    if (places < 0).any():
        raise ValueError(f"{int((places < 0).sum())} of {len(places)} images are missing in it")
    return {name: array[places] for name, array in arrays.items()}
