"""Images in an .npz file (MedMNIST's layout), read block by block: never held whole."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.readers.arrays import MAX_LABEL_BYTES, Part, assemble, byte_blocks, readable, refuse_number
from pipeline.data.source import SPLITS, Source, encodable
from pipeline.errors import DataError

_DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "float32": np.float32, "float64": np.float32}
"""What images may be, and what they become."""
_MAX_LABEL = 2**31 - 1
_NPZ_LAYOUT = (
    "expected train_images, train_labels, [val_images, val_labels,] test_images, test_labels, or images, labels"
)
_MAX_HEADER = 1000  # characters; numpy writes about 120


def from_npz(path: Path, workspace: Path, limit_bytes: int = LIMIT_BYTES) -> Source:
    """Read an .npz file of images (num_images, height, width[, bands]) and labels, with or without splits.

    Labels are integers (num_images,) or (num_images, 1), or 0 and 1 of (num_images, num_classes) for several labels.

    Raises:
        DataError: not an .npz file, not in this layout, damaged, pickled, or more than MAX_ARRAY_BYTES.
        StoppedEarly: no room for the array on the disk, or within `limit_bytes` of cache.
    """
    with readable(path, "an .npz file"):
        archive = zipfile.ZipFile(path)
    with archive:
        names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        parts = [_npz_part(archive, path, split) for split in _npz_splits(path, names)]
        return assemble(path, parts, [path], workspace, limit_bytes)


def _npz_splits(path: Path, names: set[str]) -> list[str]:
    """Return the splits that the arrays called `names` hold, or [""] for images without a split."""
    if {"images", "labels"} <= names:
        return [""]
    found = [split for split in SPLITS if {f"{split}_images", f"{split}_labels"} & names]
    missing = [f"{split}_{what}" for split in found for what in ("images", "labels") if f"{split}_{what}" not in names]
    if missing or not {"train", "test"} <= set(found):
        listed = ", ".join(sorted(map(encodable, names))[:10]) or "no arrays"
        raise DataError(f"{path}: found {listed}; {_NPZ_LAYOUT}; save it so")
    return found


def _npz_part(archive: zipfile.ZipFile, path: Path, split: str) -> Part:
    """Return one split of an .npz file: its labels, and its images as blocks that are still to be read."""
    prefix = f"{split}_" if split else ""
    shape, stored = _npz_header(archive, path, f"{prefix}images")
    where = f"{path}, {prefix}images"
    if stored.name not in _DTYPES:
        raise DataError(f"{where}: found values of {stored}; expected {', '.join(_DTYPES)}; convert them")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{where}: found the shape {shape}; expected (num_images, height, width[, bands])")
    if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] > 4:
        raise DataError(
            f"{where}: found the shape {shape}, which looks like bands first; expected (num_images, height, width, "
            "bands); save images.transpose(0, 2, 3, 1)"
        )
    labels = _npz_labels(archive, path, f"{prefix}labels", shape[0])
    return Part(split, shape, _DTYPES[stored.name], labels, _npz_blocks(archive, path, f"{prefix}images"))


def _npz_labels(archive: zipfile.ZipFile, path: Path, name: str, num_images: int) -> NDArray[Any]:
    """Return int64 (num_images,), or uint8 (num_images, num_classes) of 0 and 1."""
    shape, stored = _npz_header(archive, path, name)
    where = f"{path}, {name}"
    if stored.kind not in "iub" or len(shape) not in (1, 2) or min(shape) < 1:
        raise DataError(
            f"{where}: found {stored} of the shape {shape}; expected integers (num_images,), or 0 and 1 (num_images, "
            "num_classes) where an image has several labels; save the number of each label's class"
        )
    refuse_number(f"{path}, {name.replace('labels', 'images')}", num_images, shape[0])
    if math.prod(shape) * stored.itemsize > MAX_LABEL_BYTES:
        raise DataError(f"{where}: found {shape} labels; expected at most {MAX_LABEL_BYTES >> 20} MiB of them")
    labels = np.concatenate(list(_npz_blocks(archive, path, name))).reshape(shape)
    several = len(shape) == 2 and shape[1] > 1
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest > (1 if several else _MAX_LABEL):
        expected = "0 and 1 in each column" if several else f"numbers from 0 to {_MAX_LABEL}"
        raise DataError(f"{where}: found labels from {lowest} to {highest}; expected {expected}; correct them")
    return labels.astype(np.uint8) if several else labels.reshape(-1).astype(np.int64)


def _npz_header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array in an .npz file, after its size was found to be what they say."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(  # of the others zipfile unpacks all at once, whatever is asked for
            f"{path}, {name}: found zip compression method {info.compress_type}; expected stored or deflate; save it "
            "with np.savez_compressed"
        )
    with readable(path, "an .npz file"), archive.open(info) as file:
        shape, is_fortran, dtype = _npy_header(file)
        header = file.tell()
    if is_fortran and len(shape) > 1:
        raise DataError(f"{path}, {name}: found columns first (Fortran order); save np.ascontiguousarray of it")
    if header + math.prod(shape) * dtype.itemsize != info.file_size:
        if dtype.hasobject:
            raise DataError(
                f"{path}, {name}: found pickled objects; expected a plain array of numbers "
                "(images of one size, labels as the numbers of their classes); save it so"
            )
        raise DataError(
            f"{path}, {name}: found {info.file_size} bytes for {shape} of {dtype}; expected a plain array of the size "
            "it declares; save it again"
        )
    return shape, dtype


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read magic and header of a .npy stream; nothing of it is ever unpickled."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file, _MAX_HEADER)
    if version == (2, 0):
        return npy.read_array_header_2_0(file, _MAX_HEADER)
    raise ValueError(f".npy version {version}; expected (1, 0) or (2, 0)")


def _npz_blocks(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[NDArray[Any]]:
    """Yield the values of an array in an .npz file, flat, in its own dtype or what _DTYPES makes of it."""
    with readable(path, "an .npz file"), archive.open(f"{name}.npy") as file:
        shape, _, dtype = _npy_header(file)
        become = _DTYPES.get(dtype.name, dtype.newbyteorder("="))
        for content in byte_blocks(file, math.prod(shape) * dtype.itemsize):
            with np.errstate(over="ignore"):  # too large for single precision is infinite, which the decoder refuses
                values = np.frombuffer(content, dtype).astype(become, copy=False)
            yield values
