"""Images that come as one array (.npz in MedMNIST's layout, idx files), streamed into a .npy file: never held whole."""

import contextlib
import gzip
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
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.data import cache_folder
from pipeline.data.cache_folder import LIMIT_BYTES, Hold
from pipeline.data.paths import Paths
from pipeline.data.source import NOT_GIVEN, SPLITS, Rows, Source, encodable
from pipeline.errors import DataError, StoppedEarly
from pipeline.files import sha256_json

DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "float32": np.float32, "float64": np.float32}
"""What images may be, and what they become."""
BLOCK_BYTES = 1 << 22
MAX_ARRAY_BYTES = 1 << 38  # 256 GiB; the largest MedMNIST+ file holds 17 GB
IMAGES = "images.npy"  # what the array is called in its cache folder
MAX_LABEL_BYTES = 1 << 30
MAX_LABEL = 2**31 - 1
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_EXPECTED = f"the four idx files {', '.join(IDX_FILES)}, each with or without .gz"
NPZ_LAYOUT = (
    "expected train_images, train_labels, [val_images, val_labels,] test_images, test_labels, or images, labels"
)
MAX_HEADER = 1000  # characters; numpy writes about 120
# What zipfile (RuntimeError: encrypted, or packed in an unknown way), gzip and numpy's headers raise on damaged files.
READ_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError, tokenize.TokenError, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


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
        parts = [npz_part(archive, path, split) for split in npz_splits(path, names)]
        return assemble(path, parts, [path], workspace, limit_bytes)


def npz_splits(path: Path, names: set[str]) -> list[str]:
    """Return the splits that the arrays called `names` hold, or [""] for images without a split."""
    if {"images", "labels"} <= names:
        return [""]
    found = [split for split in SPLITS if {f"{split}_images", f"{split}_labels"} & names]
    missing = [f"{split}_{what}" for split in found for what in ("images", "labels") if f"{split}_{what}" not in names]
    if missing or not {"train", "test"} <= set(found):
        listed = ", ".join(sorted(map(encodable, names))[:10]) or "no arrays"
        raise DataError(f"{path}: found {listed}; {NPZ_LAYOUT}; save it so")
    return found


def npz_part(archive: zipfile.ZipFile, path: Path, split: str) -> Part:
    """Return one split of an .npz file: its labels, and its images as blocks that are still to be read."""
    prefix = f"{split}_" if split else ""
    shape, stored = npz_header(archive, path, f"{prefix}images")
    where = f"{path}, {prefix}images"
    if stored.name not in DTYPES:
        raise DataError(f"{where}: found values of {stored}; expected {', '.join(DTYPES)}; convert them")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{where}: found the shape {shape}; expected (num_images, height, width[, bands])")
    if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] > 4:
        raise DataError(
            f"{where}: found the shape {shape}, which looks like bands first; expected (num_images, height, width, "
            "bands); save images.transpose(0, 2, 3, 1)"
        )
    labels = npz_labels(archive, path, f"{prefix}labels")
    if len(labels) != shape[0]:
        raise DataError(
            f"{where}: found {shape[0]} images and {len(labels)} labels; expected as many of both; save it again"
        )
    return Part(split, shape, DTYPES[stored.name], labels, npz_blocks(archive, path, f"{prefix}images"))


def npz_labels(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[Any]:
    """Return int64 (num_images,), or uint8 (num_images, num_classes) of 0 and 1."""
    shape, stored = npz_header(archive, path, name)
    where = f"{path}, {name}"
    if stored.kind not in "iub" or len(shape) not in (1, 2) or min(shape) < 1:
        raise DataError(
            f"{where}: found {stored} of the shape {shape}; expected integers (num_images,), or 0 and 1 (num_images, "
            "num_classes) where an image has several labels; save the number of each label's class"
        )
    if math.prod(shape) * stored.itemsize > MAX_LABEL_BYTES:
        raise DataError(f"{where}: found {shape} labels; expected at most {MAX_LABEL_BYTES >> 20} MiB of them")
    labels = np.concatenate(list(npz_blocks(archive, path, name))).reshape(shape)
    several = len(shape) == 2 and shape[1] > 1
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest > (1 if several else MAX_LABEL):
        expected = "0 and 1 in each column" if several else f"numbers from 0 to {MAX_LABEL}"
        raise DataError(f"{where}: found labels from {lowest} to {highest}; expected {expected}; correct them")
    return labels.astype(np.uint8) if several else labels.reshape(-1).astype(np.int64)


def npz_header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array in an .npz file, after its size was found to be what they say."""
    info = archive.getinfo(f"{name}.npy")
    with readable(path, "an .npz file"), archive.open(info) as file:
        shape, is_fortran, dtype = npy_header(file)
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


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read magic and header of a .npy stream; nothing of it is ever unpickled."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file, MAX_HEADER)
    if version == (2, 0):
        return npy.read_array_header_2_0(file, MAX_HEADER)
    raise ValueError(f".npy version {version}; expected (1, 0) or (2, 0)")


def npz_blocks(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[NDArray[Any]]:
    """Yield the values of an array in an .npz file, flat, in its own dtype or what DTYPES makes of it."""
    with readable(path, "an .npz file"), archive.open(f"{name}.npy") as file:
        shape, _, dtype = npy_header(file)
        become = DTYPES.get(dtype.name, dtype.newbyteorder("="))
        for content in byte_blocks(file, math.prod(shape) * dtype.itemsize):
            with np.errstate(over="ignore"):  # too large for single precision is infinite, which the decoder refuses
                values = np.frombuffer(content, dtype).astype(become, copy=False)
            yield values


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
    except READ_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason}); expected {kind}; fetch the file again") from error


def is_idx_folder(folder: Path) -> bool:
    """Tell whether a folder holds MNIST's four idx files (IDX_FILES, or train-images.idx3-ubyte), compressed or not."""
    return missing_idx(folder) is None


def has_idx(folder: Path) -> bool:
    """Tell whether a folder holds at least one of the four idx files."""
    return any(idx_file(folder, name) for name in IDX_FILES)


def missing_idx(folder: Path) -> str | None:
    """Return the first of the four idx files that a folder lacks."""
    return next((name for name in IDX_FILES if idx_file(folder, name) is None), None)


def idx_file(folder: Path, name: str) -> Path | None:
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
    files = [path for name in IDX_FILES if (path := idx_file(folder, name)) is not None]
    if len(files) < len(IDX_FILES):
        raise DataError(f"{folder}: found no {missing_idx(folder)}[.gz]; expected {IDX_EXPECTED}; fetch all of them")
    with contextlib.ExitStack() as stack:
        parts = []
        for split, images, labels in (("train", files[0], files[1]), ("test", files[2], files[3])):
            shape, blocks = open_idx(stack, images, 3)
            label_shape, label_blocks = open_idx(stack, labels, 1)
            if shape[0] != label_shape[0] or shape[0] > MAX_LABEL_BYTES:
                raise DataError(
                    f"{images}: found {shape[0]} images and {label_shape[0]} labels; expected as many of both; fetch "
                    "the files again"
                )
            numbers = np.concatenate(list(label_blocks)).astype(np.int64)
            parts.append(Part(split, shape, np.uint8, numbers, blocks))
        return assemble(folder, parts, [files[0], files[2]], workspace, limit_bytes, names)


def open_idx(
    stack: contextlib.ExitStack, path: Path, num_axes: int
) -> tuple[tuple[int, ...], Iterator[NDArray[np.uint8]]]:
    """Return the shape of an idx file (magic 0x0000 08 num_axes, big-endian sides, uint8 values) and its blocks."""
    kind = f"an idx file of uint8 with {num_axes} axes"
    with readable(path, kind):
        file = stack.enter_context(open_gzip(path))
        header = file.read(4 + 4 * num_axes)
        if header[:4] != bytes((0, 0, 8, num_axes)) or len(header) != 4 + 4 * num_axes:
            raise ValueError(f"it starts with {header[:4]!r}")
        shape = tuple(int(side) for side in np.frombuffer(header[4:], ">u4"))
        if min(shape) < 1:
            raise ValueError(f"it declares the shape {shape}")
    return shape, idx_blocks(file, path, shape, kind)


def idx_blocks(file: BinaryIO, path: Path, shape: tuple[int, ...], kind: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the values of an idx file behind its header, flat."""
    with readable(path, kind):
        for content in byte_blocks(file, math.prod(shape)):
            yield np.frombuffer(content, np.uint8)
        if file.read(1):  # which is also where gzip compares its checksum
            raise ValueError("more data than its header says")


def open_gzip(path: Path) -> BinaryIO:
    """Open a file to read, through gzip if its first bytes say so."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if is_compressed else path.open("rb")


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
    hold = open_array(workspace, files, lambda folder: write_array(folder, shape, first.dtype, blocks, limit_bytes))
    counts = {part.split: part.shape[0] for part in parts}
    return rows_source(where, hold, counts, np.concatenate([part.labels for part in parts]), names)


def open_array(workspace: Path, files: Sequence[Path], build: Callable[[Path], None]) -> Hold:
    """Return the cache folder of what these files hold, which `build` fills unless that is done.

    Its key is a hash of their paths, sizes and times of change.

    Raises:
        StoppedEarly: it cannot be written.
    """
    states = [(encodable(os.path.abspath(path)), path.stat()) for path in files]  # noqa: PTH100
    key = sha256_json([[path, state.st_size, state.st_mtime_ns] for path, state in states])[:32]
    try:
        return cache_folder.open_or_build(cache_folder.home_of(workspace, "arrays"), key, build)
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
    with (folder / IMAGES).open("wb") as file:
        file.write(array_header(shape, dtype))
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)


def array_header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """Return what a .npy file starts with."""
    header = io.BytesIO()
    description = npy.dtype_to_descr(np.dtype(dtype))
    npy.write_array_header_1_0(header, {"descr": description, "fortran_order": False, "shape": shape})
    return header.getvalue()


def rows_source(
    where: Path,
    hold: Hold,
    counts: Mapping[str, int],
    numbers: NDArray[Any],
    names: Sequence[str] | None = None,
) -> Source:
    """Return a source over the rows of IMAGES in a folder; `counts` are the images of each split, in their order.

    `numbers` are labels as in Part; `names` are the classes by number.

    Raises:
        DataError: a label has no name in `names`.
    """
    name = Path(os.path.abspath(where)).name.removesuffix(".npz")  # noqa: PTH100  a link keeps its name
    splits = np.repeat([SPLITS.index(split) if split else NOT_GIVEN for split in counts], list(counts.values()))
    paths = Paths(f"{split}/{row:05d}".lstrip("/") for split, count in counts.items() for row in range(count))
    classes, labels = class_labels(where, numbers, names)
    return Source(
        encodable(name),
        encodable(str(where)),
        classes,
        paths,
        labels,
        splits.astype(np.uint8),
        Rows(str(hold.folder / IMAGES), hold),
    )


def class_labels(
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
