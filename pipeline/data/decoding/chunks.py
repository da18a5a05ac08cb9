"""What a decoding child does with a few images: load, decode, describe. Nothing here knows of processes or caches."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding.bands import DecodeError, Header, array_header
from pipeline.data.decoding.content import read_file
from pipeline.data.decoding.decode import ERROR_CODES, FORMATS, decode_picture, from_array, probe
from pipeline.data.decoding.urls import read_url, url_stamp
from pipeline.data.similarity.thumbnails import THUMB_SIDE, thumbnails
from pipeline.data.source import FileLocation, Location, MemberLocation, RowLocation
from pipeline.records import ImageSpec
from pipeline.text import is_url

CODES = tuple(ERROR_CODES)
_CACHED_VALUES = 1 << 16  # floats: 256 KB
_NUM_THREADS = 16  # that ask for the stamps of URLs
ALL_FORMATS = (*FORMATS, "NPY")
FACTS = np.dtype(
    [
        ("code", "u1"),  # 0: used; else 1 + index into CODES
        ("sha256", "u1", 32),  # of the file, or of the row of an array
        ("digest", "u1", 16),  # the first half of the SHA-256 of the decoded pixels
        ("height", "u4"),
        ("width", "u4"),
        ("bands", "u2"),
        ("depth", "u1"),
        ("is_float", "?"),
        ("format", "u1"),  # index into ALL_FORMATS
        ("num_frames", "u4"),
        ("num_bytes", "u8"),
        ("has_alpha", "?"),
        ("is_oriented", "?"),
    ]
)
"""What is known of one image once it was decoded; height and width are those of the picture as it is seen."""
_NOTHING_KNOWN = (0, bytes(32), bytes(16), *[0] * 10)


class Chunk(NamedTuple):
    """Consecutive images: the row of the first, and where each lies."""

    first: int
    locations: list[Location]


@dataclass(frozen=True)
class Described:
    """A chunk after decoding: FACTS (k,), moments float64 (k, 2, channels), thumbs uint8 (k, 16, 16) and, by place in
    the chunk, why there are no pixels."""

    facts: NDArray[Any]
    moments: NDArray[np.float64]
    thumbs: NDArray[np.uint8]
    details: dict[int, str]


class Target(NamedTuple):
    """A .npy file that pixels are written into: its path and the byte where row 0 begins."""

    path: str
    offset: int


def _load(location: Location, spec: ImageSpec) -> Any:
    """Return the bytes of a file, or the pixels of a row.

    Raises:
        DecodeError: they cannot be had, or are more than `spec` allows.
    """
    if isinstance(location, RowLocation):
        return np.asarray(_mapped(location.path)[location.row])
    if isinstance(location, MemberLocation):
        return _read_member(location, spec.max_megabytes)
    if is_url(location.path):
        return read_url(location.path, spec.max_megabytes << 20, location.hosts)
    return read_file(location.path, spec.max_megabytes)


@lru_cache(maxsize=8)
def _mapped(path: str) -> NDArray[Any]:
    """Return a .npy file mapped into memory."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _read_member(location: MemberLocation, max_megabytes: int) -> bytes:
    """Return the bytes of a member of a tar."""
    if location.size > max_megabytes << 20:
        raise DecodeError("too_large", f"{location.size} bytes; at most {max_megabytes} MiB are read")
    if location.size == 0:
        raise DecodeError("empty", "zero bytes")
    try:
        descriptor = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, location.size, location.offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DecodeError("unreadable", error.strerror or str(error)) from error
    if len(content) < location.size:
        raise DecodeError("corrupt", "the shard is cut off")
    return content


def _decode_content(content: Any, spec: ImageSpec) -> tuple[NDArray[Any], Header]:
    """Return pixels as `spec` says, and what the file says of itself.

    Raises:
        DecodeError: there is no usable picture.
    """
    if isinstance(content, np.ndarray):
        return from_array(content, spec), array_header(content)
    return decode_picture(content, spec)


def stamp_chunk(chunk: Chunk) -> list[str]:
    """Return what `url_stamp` says of each location that is a URL; the others are left out."""
    files = [location for location in chunk.locations if isinstance(location, FileLocation)]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(lambda location: url_stamp(location.path, location.hosts), files))


def probe_chunk(chunk: Chunk, spec: ImageSpec) -> list[Header | DecodeError]:
    """Return the header of each image, or why there is none; of `spec` only the limits count."""
    headers: list[Header | DecodeError] = []
    for location in chunk.locations:
        try:
            content = _load(location, spec)
            is_row = isinstance(content, np.ndarray)
            headers.append(array_header(content) if is_row else probe(content, spec.max_megapixels))
        except DecodeError as error:
            headers.append(error)
    return headers


def decode_chunk(chunk: Chunk, spec: ImageSpec) -> list[NDArray[Any] | DecodeError]:
    """Return the pixels of each image, or why there are none."""
    decoded: list[NDArray[Any] | DecodeError] = []
    for location in chunk.locations:
        try:
            decoded.append(_decode_content(_load(location, spec), spec)[0])
        except DecodeError as error:
            decoded.append(error)
    return decoded


def describe_chunk(chunk: Chunk, spec: ImageSpec, target: Target | None) -> Described:
    """Decode a chunk, write its pixels into `target` if there is one, and return what is known of each image."""
    num_images = len(chunk.locations)
    stack = np.zeros((num_images, *spec.shape), spec.dtype)
    known: list[tuple[Any, ...]] = []
    failed: dict[int, DecodeError] = {}
    for place, location in enumerate(chunk.locations):
        try:
            content = _load(location, spec)
            pixels, header = _decode_content(content, spec)
        except DecodeError as error:
            failed[place] = error
            known.append(_NOTHING_KNOWN)
        else:
            stack[place] = pixels
            known.append(_image_facts(content, header, pixels))
    facts = np.zeros(num_images, FACTS)
    for name, column in zip(FACTS.names or (), zip(*known, strict=True), strict=True):
        if name in ("sha256", "digest"):
            facts[name] = np.frombuffer(b"".join(column), np.uint8).reshape(num_images, -1)
        else:
            facts[name] = column
    for place, why in failed.items():
        facts["code"][place] = 1 + CODES.index(why.code)
    if target is not None:
        write_rows(target, chunk.first, stack)
    details = {place: why.detail for place, why in failed.items()}
    return Described(facts, _moments_of(stack), thumbnails(stack), details)


def _moments_of(stack: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean and the mean square of each channel of each image, float64 (num_images, 2, channels).

    As matrix products over blocks that stay in the processor's cache: a twelfth of the time of `mean`. Bytes are exact
    enough in single precision.
    """
    num_images, height, width, channels = stack.shape
    images = stack.reshape(num_images, height * width, channels)
    dtype = np.float32 if stack.dtype == np.uint8 else np.float64
    average = np.full((1, height * width), 1 / (height * width), dtype)
    moments = np.empty((num_images, 2, channels))
    step = max(1, _CACHED_VALUES // (height * width * channels))
    for start in range(0, num_images, step):
        wide = images[start : start + step].astype(dtype)
        moments[start : start + step, :1] = average @ wide
        moments[start : start + step, 1:] = average @ np.square(wide, out=wide)
    return moments


def _image_facts(content: Any, header: Header, pixels: NDArray[Any]) -> tuple[Any, ...]:
    """Return one record of FACTS."""
    raw = content.tobytes() if isinstance(content, np.ndarray) else content
    return (
        0,
        hashlib.sha256(raw).digest(),
        hashlib.sha256(np.ascontiguousarray(pixels).data).digest()[:16],
        header.height,
        header.width,
        header.bands,
        header.depth,
        header.is_float,
        ALL_FORMATS.index(header.format),
        header.num_frames,
        len(raw),
        header.has_alpha,
        header.is_oriented,
    )


def write_rows(target: Target, first: int, stack: NDArray[Any]) -> None:
    """Write rows into a .npy file; a full disk is an error here, where it would be a signal in a memory map."""
    data = np.ascontiguousarray(stack).reshape(-1).view(np.uint8).data
    descriptor = os.open(target.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        position = target.offset + first * (stack.nbytes // max(1, len(stack)))
        while data:
            written = os.pwrite(descriptor, data, position)
            position += written
            data = data[written:]
    finally:
        os.close(descriptor)


def empty_description(spec: ImageSpec, code: str, detail: str) -> Described:
    """Return what is known of one image whose decoding did not end."""
    facts = np.zeros(1, FACTS)
    facts["code"] = 1 + CODES.index(code)
    thumbs = np.zeros((1, THUMB_SIDE, THUMB_SIDE), np.uint8)
    return Described(facts, np.zeros((1, 2, spec.channels)), thumbs, {0: detail})
