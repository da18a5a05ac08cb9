"""Decoded images on disk, once for all trials: arrays that children map into memory, keyed by content and rules."""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decode import DECODER_VERSION, DecodeError, decode, is_colour, open_image, read_file
from pipeline.data.sources import SPLITS, Example, Source, encodable
from pipeline.data.split import RULES_VERSION, assign_splits
from pipeline.errors import DataError
from pipeline.files import locked, sha256_json, sync_folder, write_json
from pipeline.machine import num_cores
from pipeline.records import ImageSpec

NUM_PROBED = 256  # headers that are read to choose size and channels
MAX_SIDE = 64  # longest side of images whose size the user did not choose; cost grows with its square
CHUNK = 32  # images a thread decodes before it hands them over
MAX_BAD_FRACTION = 0.5

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class BadFile:
    """A file that no trial sees: its path, a code of `decode.ERROR_CODES` and what was found."""

    path: str
    code: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """Decoded images in `folder`: images.npy uint8 (num_images, height, width, channels), labels.npy, splits.npy.

    `fingerprint` is the SHA-256 of every image, label and split. `mean` and `std` are those of the training pixels,
    one number a channel, on the scale 0 to 255. `counts` are images by split, `class_counts` by class.
    """

    folder: Path
    name: str
    origin: str
    classes: tuple[str, ...]
    spec: ImageSpec
    fingerprint: str
    counts: dict[str, int]
    class_counts: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bad: tuple[BadFile, ...]


@dataclass(frozen=True)
class Draft:
    """A source whose splits and image format are decided and whose pixels are not read yet."""

    source: Source
    splits: tuple[str, ...]
    spec: ImageSpec

    @property
    def counts(self) -> dict[str, int]:
        """Images by split."""
        return {name: self.splits.count(name) for name in SPLITS}


def draft(source: Source, image_size: int | None = None) -> Draft:
    """Decide splits and image format; `image_size` is the longest side in pixels, None keeps up to MAX_SIDE."""
    splits = tuple(assign_splits(source.examples, source.origin))
    return Draft(source, splits, choose_spec(source, image_size))


def choose_spec(source: Source, image_size: int | None) -> ImageSpec:
    """Return the median size, scaled to the wanted longest side, and three channels if any probed image has colour."""
    if source.arrays is not None:
        height, width = source.arrays.shape[1:3]
        sizes, colours = [(height, width)], [False]
    else:
        step = max(1, len(source.examples) // NUM_PROBED)
        probed = [probe(source, example) for example in source.examples[::step]]
        found = [size_and_colour for size_and_colour in probed if size_and_colour]
        if not found:
            raise DataError(
                f"{source.origin}: none of {len(probed)} probed files is a readable image "
                f"({source.examples[0].path!r}, ...); expected JPEG, PNG, GIF, BMP, WebP or TIFF files"
            )
        sizes, colours = [item[0] for item in found], [item[1] for item in found]
    height, width = (float(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    longest = max(height, width)
    scale = (image_size or min(longest, MAX_SIDE)) / longest
    return ImageSpec(
        max(1, round(height * scale)), max(1, round(width * scale)), 3 if any(colours) else 1, DECODER_VERSION
    )


def probe(source: Source, example: Example) -> tuple[tuple[int, int], bool] | None:
    """Return ((height, width) as seen, has colour) from the header of a file, or None if it is not an image."""
    try:
        image = open_image(read_file(os.path.join(source.root, example.path)))  # noqa: PTH118
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
    except Exception as error:  # border: a foreign file; the decoder will name it
        if isinstance(error, DecodeError | OSError | ValueError | SyntaxError):
            return None
        raise
    size = (image.width, image.height) if turned else (image.height, image.width)
    return size, is_colour(image)


def prepare(drafted: Draft, workspace: Path, report: Report | None = None) -> Dataset:
    """Return the decoded images, from the cache if these very files were decoded by these very rules before.

    Raises:
        DataError: too many files are bad, or a class has no readable training image.
    """
    folder = workspace / "mlruns" / "cache" / "images" / cache_key(drafted)
    if not (folder / "meta.json").is_file():
        build_cache(drafted, folder, report or (lambda done, total: None))
    return open_cache(drafted, folder)


def cache_key(drafted: Draft) -> str:
    """Return the name of the cache folder: a hash of every file's path, size, time of change, label and split."""
    source = drafted.source
    digest = hashlib.sha256(f"{RULES_VERSION} {asdict(drafted.spec)} {source.root}".encode("utf-8", "surrogateescape"))
    if source.arrays is not None:
        digest.update(source.arrays.tobytes())
    for example, split in zip(source.examples, drafted.splits, strict=True):
        stamp = file_stamp(source, example)
        digest.update(f"{example.path}\0{example.label}\0{split}\0{stamp}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def file_stamp(source: Source, example: Example) -> str:
    """Return size and time of change of a file, which tell a changed file without reading it."""
    if source.arrays is not None:
        return str(example.index)
    try:
        status = os.stat(os.path.join(source.root, example.path))  # noqa: PTH116, PTH118
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def build_cache(drafted: Draft, folder: Path, report: Report) -> None:
    """Decode everything into a temporary folder that becomes `folder` by rename."""
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_cache(drafted, temporary, report)
        with locked(folder.with_name("lock"), "the image cache"):
            if not (folder / "meta.json").is_file():  # else another process was quicker, and its children read it
                shutil.rmtree(folder, ignore_errors=True)
                temporary.rename(folder)
                sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_cache(drafted: Draft, folder: Path, report: Report) -> None:
    """Write images.npy, labels.npy, splits.npy and, last, meta.json."""
    source, spec = drafted.source, drafted.spec
    numbers = {name: index for index, name in enumerate(source.classes)}
    total = len(source.examples)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (total, *spec.shape))
    if hasattr(os, "posix_fallocate"):  # a full disk is an error here; a write into the map would be a SIGBUS
        with (folder / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    labels: list[int] = []
    splits: list[int] = []
    bad: list[BadFile] = []
    content = hashlib.sha256()
    for index, (example, split, decoded) in enumerate(
        zip(source.examples, drafted.splits, decode_all(source, spec), strict=True)
    ):
        if index % 1000 == 0:
            report(index, total)
        if isinstance(decoded, BadFile):
            bad.append(decoded)
            continue
        pixels, digest = decoded
        images[len(labels)] = pixels
        content.update(f"{digest} {example.label} {split}\n".encode("utf-8", "surrogateescape"))
        labels.append(numbers[example.label])
        splits.append(SPLITS.index(split))
    images.flush()
    check_enough(drafted, labels, splits, bad)
    np.save(folder / "labels.npy", np.asarray(labels, np.int32))
    np.save(folder / "splits.npy", np.asarray(splits, np.uint8))
    mean, std = pixel_statistics(images, np.flatnonzero(np.asarray(splits) == SPLITS.index("train")))
    meta = {
        "fingerprint": hashlib.sha256(f"{content.hexdigest()} {asdict(spec)}".encode()).hexdigest(),
        "mean": mean,
        "std": std,
        "bad": [asdict(item) for item in bad],
    }
    write_json(folder / "meta.json", meta)
    report(total, total)


def check_enough(drafted: Draft, labels: list[int], splits: list[int], bad: list[BadFile]) -> None:
    """Raise DataError unless most files and every class can be learned from."""
    source = drafted.source
    first = f"{bad[0].path}: {bad[0].code}, {bad[0].detail}" if bad else ""
    if len(bad) > MAX_BAD_FRACTION * len(source.examples):
        raise DataError(
            f"{source.origin}: {len(bad)} of {len(source.examples)} files are not usable images (the first is "
            f"{first}); expected most of them to be; check the folder"
        )
    for index, name in enumerate(SPLITS):
        present = {label for label, split in zip(labels, splits, strict=True) if split == index}
        if not present or (name == "train" and len(present) < len(source.classes)):
            gone = [label for number, label in enumerate(source.classes) if number not in present]
            raise DataError(
                f"{source.origin}: the {name} split has no readable image of {', '.join(gone[:5])} (the first bad "
                f"file is {first}); add images"
            )


def decode_all(source: Source, spec: ImageSpec) -> Iterator[tuple[NDArray[np.uint8], str] | BadFile]:
    """Yield, in the order of the examples, (pixels, SHA-256 of the file) or what is wrong; decoded by threads."""

    def decode_chunk(start: int) -> list[tuple[NDArray[np.uint8], str] | BadFile]:
        return [decode_one(source, example, spec) for example in source.examples[start : start + CHUNK]]

    num_threads = num_cores()
    pool = ThreadPoolExecutor(num_threads)
    running: deque[Future[list[tuple[NDArray[np.uint8], str] | BadFile]]] = deque()
    try:
        for start in range(0, len(source.examples), CHUNK):
            running.append(pool.submit(decode_chunk, start))
            if len(running) > 2 * num_threads:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption waits for what is being decoded, not for all


def decode_one(source: Source, example: Example, spec: ImageSpec) -> tuple[NDArray[np.uint8], str] | BadFile:
    """Return (pixels, SHA-256 of what was read) of one example, or what is wrong with it."""
    if source.arrays is not None:
        return array_image(source.arrays[example.index], spec)
    try:
        content = read_file(os.path.join(source.root, example.path))  # noqa: PTH118
        return decode(content, spec), hashlib.sha256(content).hexdigest()
    except DecodeError as error:
        return BadFile(encodable(example.path), error.code, encodable(error.detail))


def array_image(pixels: NDArray[np.uint8], spec: ImageSpec) -> tuple[NDArray[np.uint8], str]:
    """Return (pixels, SHA-256) of one grey image of an array source, resized as files are."""
    from PIL import Image

    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if pixels.shape != (spec.height, spec.width):
        resized = Image.fromarray(pixels).resize((spec.width, spec.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return pixels.reshape(spec.shape), digest


def pixel_statistics(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel, on the scale 0 to 255, over the given images."""
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    num_pixels = len(rows) * images.shape[1] * images.shape[2]
    for start in range(0, len(rows), 1024):
        block = images[rows[start : start + 1024]].astype(np.float64)
        total += block.sum(axis=(0, 1, 2))
        squares += (block**2).sum(axis=(0, 1, 2))
    mean = total / num_pixels
    std = np.sqrt(np.maximum(squares / num_pixels - mean**2, 0))
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in std]


def open_cache(drafted: Draft, folder: Path) -> Dataset:
    """Return what a finished cache folder holds."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    source = drafted.source
    labels, splits = np.load(folder / "labels.npy"), np.load(folder / "splits.npy")
    return Dataset(
        folder=folder,
        name=source.name,
        origin=source.origin,
        classes=source.classes,
        spec=drafted.spec,
        fingerprint=meta["fingerprint"],
        counts={name: int((splits == index).sum()) for index, name in enumerate(SPLITS)},
        class_counts={name: int((labels == index).sum()) for index, name in enumerate(source.classes)},
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        bad=tuple(BadFile(**item) for item in meta["bad"]),
    )


def read_split(folder: Path, names: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return images uint8 (num_images, height, width, channels) and labels int32 of the named splits, in memory."""
    splits = np.load(folder / "splits.npy")
    rows = np.flatnonzero(np.isin(splits, [SPLITS.index(name) for name in names]))
    images = np.load(folder / "images.npy", mmap_mode="r")
    return images[rows], np.load(folder / "labels.npy")[rows]


def dataset_identity(dataset: Dataset) -> str:
    """Return the fingerprint of images, labels, splits and class names."""
    return sha256_json([dataset.fingerprint, list(dataset.classes)])
