"""Images that come as one array (see npz, idx, cifar), streamed into a .npy file of the cache: never held whole."""

import contextlib
import io
import lzma
import math
import os
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data.cache import folder as cache_folder
from pipeline.data.cache.folder import CacheLease
from pipeline.data.readers.paths import Paths
from pipeline.data.source import NOT_GIVEN, SPLITS, Rows, Source, encodable
from pipeline.errors import DataError, StoppedEarly
from pipeline.files import sha256_json
from pipeline.workspace import Workspace

BLOCK_BYTES = 1 << 22
MAX_ARRAY_BYTES = 1 << 38  # 256 GiB; the largest MedMNIST+ file holds 17 GB
MAX_LABEL_BYTES = 1 << 30
MAX_IMAGES = 1 << 26  # labels and names take some 40 bytes an image; packed, images of one pixel take next to nothing
_IMAGES = "images.npy"  # what the array is called in its cache folder
# What zipfile (RuntimeError: encrypted, or packed in an unknown way), gzip and NumPy's headers raise on damaged files.
ARCHIVE_ERRORS = (
    OSError, EOFError, ValueError, TypeError, RuntimeError, SyntaxError, OverflowError, tokenize.TokenError, zlib.error,
    lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip
NPZ_ERRORS = (*ARCHIVE_ERRORS, KeyError, MemoryError)  # of np.load, and of an .npz without an array that is asked for


@dataclass(frozen=True)
class Part:
    """The images of one split ("" when none is given): `shape` of the whole, `blocks` of its values in order.

    `labels` is int64 (num_images,), or uint8 (num_images, num_classes) of 0 and 1.
    """

    split: str
    shape: tuple[int, ...]
    dtype: Any
    labels: NDArray[Any]
    blocks: Iterator[NDArray[Any]]


def byte_blocks(file: Any, num_bytes: int, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield exactly `num_bytes` in blocks of `block_bytes`, the last one shorter.

    Raises:
        ValueError: the stream ends before.
    """
    for start in range(0, num_bytes, block_bytes):
        wanted = min(block_bytes, num_bytes - start)
        content = file.read(wanted)
        if len(content) != wanted:
            raise ValueError(f"{start + len(content)} bytes of data instead of {num_bytes}")
        yield content


@contextlib.contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn what a damaged file makes the block raise into a DataError that names the file."""
    try:
        yield
    except ARCHIVE_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason}); expected {kind}; fetch the file again") from error


def refuse_number(where: Path | str, num_images: int, num_labels: int) -> None:
    """Raise DataError for too many images, or not as many labels, before either is read."""
    if num_images != num_labels or num_images > MAX_IMAGES:
        raise DataError(
            f"{where}: found {num_images} images and {num_labels} labels; expected the same number of both, at most "
            f"{MAX_IMAGES:,}; save or fetch the files again"
        )


def assemble(
    where: Path,
    parts: Sequence[Part],
    files: Sequence[Path],
    workspace: Path,
    limit_bytes: int,
    names: Sequence[str] | None = None,
) -> Source:
    """Return the source of the parts of `files`, whose images now lie in one .npy file in this order."""
    first = parts[0]
    for part in parts:
        if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype or part.labels.ndim != first.labels.ndim:
            raise DataError(
                f"{where}: {part.split} holds images {part.shape[1:]} of {np.dtype(part.dtype)}, {first.split} "
                f"{first.shape[1:]} of {np.dtype(first.dtype)}; expected one size, dtype and kind of label in all"
            )
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    num_bytes = math.prod(shape) * np.dtype(first.dtype).itemsize
    if num_bytes > MAX_ARRAY_BYTES:
        raise DataError(
            f"{where}: found images {shape} of {num_bytes / 2**30:,.1f} GiB; expected at most "
            f"{MAX_ARRAY_BYTES >> 30} GiB in arrays; save them as files in a folder per class"
        )
    blocks = (block for part in parts for block in part.blocks)
    lease = open_array(workspace, files, lambda folder: write_array(folder, shape, first.dtype, blocks, limit_bytes))
    counts = {part.split: part.shape[0] for part in parts}
    return rows_source(where, lease, counts, np.concatenate([part.labels for part in parts]), names)


def open_array(workspace: Path, files: Sequence[Path], build: Callable[[Path], None]) -> CacheLease:
    """Return the cache folder of what these files hold, which `build` fills unless that is done.

    Its key is a hash of their paths, sizes and times of change.

    Raises:
        StoppedEarly: it cannot be written.
    """
    states = [(encodable(os.path.abspath(path)), path.stat()) for path in files]  # noqa: PTH100
    key = sha256_json([[path, state.st_size, state.st_mtime_ns] for path, state in states])[:32]
    try:
        return cache_folder.open_or_build(Workspace(workspace).cache("arrays"), key, build)
    except OSError as error:
        raise StoppedEarly(
            f"{encodable(str(workspace))}: the unpacked images cannot be written ({error}); expected a disk with room "
            "for them; free some disk space and try again"
        ) from error


def write_array(
    folder: Path, shape: tuple[int, ...], dtype: Any, blocks: Iterable[NDArray[Any]], limit_bytes: int
) -> None:
    """Write blocks of values as images.npy into a new cache folder, after room was made for them.

    Raises:
        StoppedEarly: no room on the disk, or within `limit_bytes` of cache.
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not cache_folder.make_room(folder.parent, num_bytes, limit_bytes):
        free = shutil.disk_usage(folder).free
        raise StoppedEarly(
            f"{folder.parent}: {free / 2**30:.1f} GiB are free, and --cache-limit is {limit_bytes / 2**30:.1f} GiB; "
            f"expected {num_bytes / 2**30:.1f} GiB for the unpacked images, beside what other processes use and "
            f"{cache_folder.FREE_BYTES >> 30} GiB that stay free; free some disk space, or raise --cache-limit"
        )
    with (folder / _IMAGES).open("wb") as file:
        file.write(_array_header(shape, dtype))
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)


def _array_header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """Return what a .npy file starts with."""
    header = io.BytesIO()
    description = npy.dtype_to_descr(np.dtype(dtype))
    npy.write_array_header_1_0(header, {"descr": description, "fortran_order": False, "shape": shape})
    return header.getvalue()


def rows_source(
    where: Path,
    lease: CacheLease,
    counts: Mapping[str, int],
    numbers: NDArray[Any],
    names: Sequence[str] | None = None,
) -> Source:
    """Return a source over the rows of _IMAGES in a folder; `counts` are the images of each split, in their order.

    `numbers` are labels as in Part; `names` are the classes by number.

    Raises:
        DataError: a label has no name in `names`.
    """
    name = Path(os.path.abspath(where)).name.removesuffix(".npz")  # noqa: PTH100  a link keeps its name
    splits = np.repeat([SPLITS.index(split) if split else NOT_GIVEN for split in counts], list(counts.values()))
    paths = Paths(f"{split}/{row:05d}".lstrip("/") for split, count in counts.items() for row in range(count))
    classes, labels = _class_labels(where, numbers, names)
    return Source(
        encodable(name),
        encodable(str(where)),
        classes,
        paths,
        labels,
        splits.astype(np.uint8),
        Rows(str(lease.folder / _IMAGES), lease),
    )


def _class_labels(
    where: Path, numbers: NDArray[Any], names: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int32] | NDArray[np.uint8]]:
    """Return the sorted names of the classes that occur, and labels as in Source."""
    if numbers.ndim == 2:
        return padded(range(numbers.shape[1])), numbers.astype(np.uint8)
    present = np.unique(numbers)
    if names is not None and present[-1] >= len(names):
        raise DataError(
            f"{where}: found labels up to {present[-1]}; expected 0 to {len(names) - 1}; these are files of another set"
        )
    texts = padded(present) if names is None else tuple(names[number] for number in present)
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order))
    return tuple(texts[index] for index in order), ranks[np.searchsorted(present, numbers)]


def padded(numbers: Any) -> tuple[str, ...]:
    """Return whole numbers as text of equal width, so that they sort as text as they do as numbers."""
    texts = [str(int(number)) for number in numbers]
    width = max(map(len, texts), default=1)
    return tuple(text.zfill(width) for text in texts)
