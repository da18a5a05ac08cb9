"""Decoded images on disk, once for all trials: a folder of arrays, keyed by files and rules, whole or rebuilt."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.data.cache import folder as cache_folder
from pipeline.data.cache.stamps import source_key
from pipeline.data.cache.streaming import StreamedImages, write_locations
from pipeline.data.decoding.bands import DecodeError, Header
from pipeline.data.decoding.chunks import (
    CODES,
    FACTS,
    Described,
    Target,
    describe_chunk,
    empty_description,
    probe_chunk,
    write_rows,
)
from pipeline.data.decoding.decode import DECODER_VERSION, FORMATS
from pipeline.data.decoding.decoders import Decoders, Killed, chunks_of
from pipeline.data.similarity.clusters import Clusters
from pipeline.data.similarity.duplicates import find_duplicates
from pipeline.data.similarity.thumbnails import THUMB_SIDE
from pipeline.data.source import Finding, Source, encodable
from pipeline.errors import DataError
from pipeline.files import sha256_json, write_json
from pipeline.records import ImageSpec
from pipeline.workspace import Workspace

_NUM_PROBED = 256  # headers that are read to choose size and channels
_MAX_SIDE = 64  # longest side of images whose size the user did not choose; cost grows with its square

Report = Callable[[int, int], None]


class Images(Protocol):
    """Decoded images (num_images, height, width, channels): `images[rows]` is an array of those rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any) -> NDArray[Any]: ...


@dataclass(frozen=True)
class SpecOptions:
    """What the user may decide about the images: the longest side in pixels (None: their own, up to _MAX_SIDE), the
    colour under transparent pixels, and the largest files that are decoded."""

    image_size: int | None = None
    background: str = "#000000"
    max_megapixels: int = 50
    max_megabytes: int = 64

    def square(self) -> ImageSpec:
        """Return the format for images of which nothing is known: square, RGB, uint8."""
        side = self.image_size or _MAX_SIDE
        return ImageSpec(side, side, 3, "uint8", self.background, self.max_megapixels, self.max_megabytes)


@dataclass(frozen=True)
class ImageCache:
    """Every image of a source, decoded, with what is known of each, in the order of the source.

    `facts` are chunks.FACTS (num_images,), `moments` float64 (num_images, 2, channels): mean and mean square of each
    channel; they and the clusters are mapped from the folder. `bad` are the files without pixels. `lock` keeps the
    folder from being cleared away while it is held.
    """

    folder: Path
    spec: ImageSpec
    facts: NDArray[Any]
    moments: NDArray[np.float64]
    clusters: Clusters
    bad: tuple[Finding, ...]
    is_streamed: bool
    lock: cache_folder.CacheLease

    @property
    def is_usable(self) -> NDArray[np.bool_]:
        """Which images have pixels, bool (num_images,)."""
        return np.asarray(self.facts["code"] == 0)

    @property
    def thumbs(self) -> NDArray[np.uint8]:
        """Grey thumbnails, uint8 (num_images, 16, 16), mapped from the folder."""
        return np.asarray(np.load(self.folder / "thumbs.npy", mmap_mode="r"))

    def images(self) -> Images:
        """Return the pixels: mapped into memory, or decoded when they are asked for."""
        return open_images(self.folder, self.spec)


def choose_spec(source: Source, options: SpecOptions) -> ImageSpec:
    """Return the format that fits most images: median size, scaled to the wanted side; channels; depth.

    Raises:
        DataError: none of the probed files is an image.
    """
    limits = options.square()
    rows = range(0, len(source), max(1, len(source) // _NUM_PROBED))
    with Decoders(num_workers=1) as decoders:
        work = partial(probe_chunk, spec=limits)
        chunks = chunks_of(lambda row: source.storage.location(row), rows, image_bytes=1 << 20)
        probed = [
            header
            for _, headers in decoders.map(work, chunks)
            for header in ([DecodeError("killed", headers)] if isinstance(headers, Killed) else headers)
        ]
    found = [each for each in probed if isinstance(each, Header)]
    failed = [each for each in probed if isinstance(each, DecodeError)]
    if not found:
        first = "; ".join(f"{error.code.replace('_', ' ')}, {error.detail}" for error in failed[:1])
        raise DataError(
            f"{source.origin}: none of {len(rows)} probed files is a readable image (the first, "
            f"{encodable(source.paths[0])}: {first}); expected {', '.join(FORMATS)} files or .npy arrays; see "
            "`pipeline data check`"
        )
    found = _commonest_bands(found)  # others are named as unsupported
    height, width = (float(np.median([getattr(header, axis) for header in found])) for axis in ("height", "width"))
    longest = max(height, width)
    scale = (options.image_size or min(longest, _MAX_SIDE)) / longest
    channels = max(header.bands for header in found)
    return ImageSpec(
        max(1, round(height * scale)), max(1, round(width * scale)), channels, _choose_dtype(found, channels),
        options.background, options.max_megapixels, options.max_megabytes, DECODER_VERSION,
    )  # fmt: skip


def _commonest_bands(headers: Sequence[Header]) -> list[Header]:
    """Return the pictures of the commonest number of bands; grey and colour count as one, and win a tie."""
    counts = Counter(0 if header.bands in (1, 3) else header.bands for header in headers)
    bands = max(sorted(counts), key=lambda bands: counts[bands])
    return [header for header in headers if header.bands == bands or (not bands and header.bands in (1, 3))]


def _choose_dtype(headers: Sequence[Header], channels: int) -> str:
    """Return the depth that keeps what the pictures hold: float32 if most are or are 32-bit, uint16 if any is deep."""
    if sum(header.is_float or header.depth > 16 for header in headers) > len(headers) / 2:
        return "float32"
    is_deep = any(header.depth > 8 for header in headers)
    is_colour = channels == 3 and not all(header.format in ("NPY", "TIFF") for header in headers)
    return "uint16" if is_deep and not is_colour else "uint8"


def open_cache(
    source: Source, spec: ImageSpec, workspace: Path, limit_bytes: int, report: Report | None = None
) -> ImageCache:
    """Return the decoded images: those on disk if these very files were decoded by these very rules, else decode now.

    Images that do not fit into `limit_bytes`, or on the disk, are not kept: they are decoded when they are asked for.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    home = Workspace(workspace).cache("images")
    key = sha256_json([source_key(source), asdict(spec)])[:32]

    def build_here(folder: Path) -> None:
        is_kept = cache_folder.make_room(home, len(source) * spec.num_bytes, limit_bytes)
        build(source, spec, folder, is_kept, report or (lambda done, total: None))

    return _read_cache(source, spec, cache_folder.open_or_build(home, key, build_here))


def build(source: Source, spec: ImageSpec, folder: Path, is_kept: bool, report: Report) -> None:
    """Decode every image into `folder`: images.npy (if kept), thumbs.npy, facts.npy, moments.npy, clusters.npy."""
    total = len(source)
    details: dict[int, str] = {}
    target = _create_array(folder / "images.npy", (total, *spec.shape), spec.dtype) if is_kept else None
    thumbs = _create_array(folder / "thumbs.npy", (total, THUMB_SIDE, THUMB_SIDE), np.uint8)
    facts = _create_array(folder / "facts.npy", (total,), FACTS)
    moments = _create_array(folder / "moments.npy", (total, 2, spec.channels), np.float64)
    work = partial(describe_chunk, spec=spec, target=target)
    with Decoders() as decoders:
        for chunk, outcome in decoders.map(work, chunks_of(source.storage.location, range(total), spec.num_bytes)):
            known: Described = empty_description(spec, "killed", outcome) if isinstance(outcome, Killed) else outcome
            for column, values in ((thumbs, known.thumbs), (facts, known.facts), (moments, known.moments)):
                write_rows(column, chunk.first, values)
            details |= {chunk.first + place: detail for place, detail in known.details.items()}
            report(chunk.first + len(chunk.locations), total)
    known_facts = _mapped(folder / "facts.npy")
    clusters = find_duplicates(_mapped(folder / "thumbs.npy"), known_facts["digest"], known_facts["code"] == 0)
    np.save(folder / "clusters.npy", np.stack([clusters.exact, clusters.near]))
    write_locations(folder / "index.parquet", source, is_streamed=not is_kept)
    write_json(folder / "details.json", {str(row): detail for row, detail in details.items()})
    write_json(folder / "spec.json", asdict(spec))


def _create_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Target:
    """Create a .npy file of zeros, with its space reserved, and return where its rows begin."""
    np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    return Target(str(path), size - int(np.prod(shape)) * np.dtype(dtype).itemsize)


def _read_cache(source: Source, spec: ImageSpec, lease: cache_folder.CacheLease) -> ImageCache:
    """Return what a whole cache folder holds."""
    folder = lease.folder
    facts = _mapped(folder / "facts.npy")
    exact, near = _mapped(folder / "clusters.npy")
    details = cache_folder.read_json(folder / "details.json")
    bad = tuple(
        Finding(source.paths[int(row)], CODES[facts["code"][row] - 1], details.get(str(row), ""))
        for row in np.flatnonzero(facts["code"])
    )
    is_streamed = not (folder / "images.npy").exists()
    return ImageCache(
        folder, spec, facts, _mapped(folder / "moments.npy"), Clusters(exact, near), bad, is_streamed, lease
    )


def _mapped(path: Path) -> NDArray[Any]:
    """Return a .npy file mapped into memory, so that its pages are read when they are used, and can be given back."""
    return np.asarray(np.load(path, mmap_mode="r"))


def open_images(folder: Path, spec: ImageSpec) -> Images:
    """Return the pixels of a cache folder: mapped into memory, or decoded when they are asked for."""
    if (folder / "images.npy").exists():
        return _mapped(folder / "images.npy")
    return StreamedImages(folder / "index.parquet", spec)
