"""Images in idx files, as MNIST comes, read block by block: never held whole."""

import contextlib
import gzip
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.readers.arrays import Part, assemble, byte_blocks, readable, refuse_number
from pipeline.data.source import Source
from pipeline.errors import DataError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_EXPECTED = f"the four idx files {', '.join(IDX_FILES)}, each with or without .gz"


def is_idx_folder(folder: Path) -> bool:
    """Tell whether a folder holds MNIST's four idx files (IDX_FILES, or train-images.idx3-ubyte), compressed or not."""
    return missing_idx(folder) is None


def has_idx(folder: Path) -> bool:
    """Tell whether a folder holds at least one of the four idx files."""
    return any(_idx_file(folder, name) for name in IDX_FILES)


def missing_idx(folder: Path) -> str | None:
    """Return the first of the four idx files that a folder lacks."""
    return next((name for name in IDX_FILES if _idx_file(folder, name) is None), None)


def _idx_file(folder: Path, name: str) -> Path | None:
    """Return the idx file of that name, as it is called in one of the ways in which it is passed on."""
    paths = (folder / f"{form}{end}" for form in (name, name.replace("-idx", ".idx")) for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def from_idx_folder(
    folder: Path, workspace: Path, limit_bytes: int = LIMIT_BYTES, names: Sequence[str] | None = None
) -> Source:
    """Read MNIST's four idx files: train is train, t10k is test. `names` are the classes by number.

    Raises:
        DataError: a file is missing, damaged, not idx of uint8, or does not fit the others.
        StoppedEarly: no room for the array on the disk, or within `limit_bytes` of cache.
    """
    files = [path for name in IDX_FILES if (path := _idx_file(folder, name)) is not None]
    if len(files) < len(IDX_FILES):
        raise DataError(f"{folder}: found no {missing_idx(folder)}[.gz]; expected {IDX_EXPECTED}; fetch all of them")
    with contextlib.ExitStack() as stack:
        parts = []
        for split, images, labels in (("train", files[0], files[1]), ("test", files[2], files[3])):
            shape, blocks = _open_idx(stack, images, 3)
            label_shape, label_blocks = _open_idx(stack, labels, 1)
            refuse_number(images, shape[0], label_shape[0])
            numbers = np.concatenate(list(label_blocks)).astype(np.int64)
            parts.append(Part(split, shape, np.uint8, numbers, blocks))
        return assemble(folder, parts, [files[0], files[2]], workspace, limit_bytes, names)


def _open_idx(
    stack: contextlib.ExitStack, path: Path, num_axes: int
) -> tuple[tuple[int, ...], Iterator[NDArray[np.uint8]]]:
    """Return the shape of an idx file (magic 0x0000 08 num_axes, big-endian sides, uint8 values) and its blocks."""
    kind = f"an idx file of uint8 with {num_axes} axes"
    with readable(path, kind):
        file = stack.enter_context(_open_gzip(path))
        header = file.read(4 + 4 * num_axes)
        if header[:4] != bytes((0, 0, 8, num_axes)) or len(header) != 4 + 4 * num_axes:
            raise ValueError(f"it starts with {header[:4]!r}")
        shape = tuple(int(side) for side in np.frombuffer(header[4:], ">u4"))
        if min(shape) < 1:
            raise ValueError(f"it declares the shape {shape}")
    return shape, _idx_blocks(file, path, shape, kind)


def _idx_blocks(file: BinaryIO, path: Path, shape: tuple[int, ...], kind: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the values of an idx file behind its header, flat."""
    with readable(path, kind):
        for content in byte_blocks(file, math.prod(shape)):
            yield np.frombuffer(content, np.uint8)
        if file.read(1):  # which is also where gzip compares its checksum
            raise ValueError("more data than its header says")


def _open_gzip(path: Path) -> BinaryIO:
    """Open a file to read, through gzip if its first bytes say so."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if is_compressed else path.open("rb")
