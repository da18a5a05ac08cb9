"""Rules and size limits for arrays of pixels of any bands and depth, and .npy files, which hold such arrays.

TIFF files are read in `tiff`, what Pillow holds whole in `decode`; both share `fit`, `turn`, `Header`, `DecodeError`.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.records import ImageSpec

Pixels = NDArray[Any]
Read = Callable[[], Pixels]
"""Reads pixels (height, width, bands) of uint8, uint16 or float32."""

NPY_MAGIC = b"\x93NUMPY"
_MAX_BANDS = 65535  # as in TIFF
_MOST_VALUES = 4  # a pixel, in the largest picture allowed: as many as Pillow holds
_MOST_VALUE_BYTES = 4
_LUMA = (19595, 38470, 7471)  # ITU-R 601 in parts of 65536, as in Pillow (src/libImaging/Convert.c, L24)


class DecodeError(Exception):
    """A file that holds no usable picture; `code` is a key of `decode.ERROR_CODES`, `detail` says what was found."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a file says of its picture; `width` and `height` are those of the picture as it is seen.

    `bands` is 1 for grey, 3 for colour, else their number; alpha does not count. `depth` is what can be read of it, in
    bits a band: 1, 8, 16 or 32. `is_oriented` tells of an EXIF orientation other than 1.
    """

    format: str
    width: int
    height: int
    bands: int
    depth: int
    is_float: bool
    has_alpha: bool
    is_oriented: bool
    num_frames: int


def open_npy(content: bytes, max_megapixels: int) -> tuple[Header, Read]:
    """Return the header of a .npy file and what reads it; nothing is unpickled."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DecodeError("unsupported", f"a .npy file of version {version}; expected (1, 0) or (2, 0)")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = reader(file)
    if len(shape) not in (2, 3):
        raise DecodeError("unsupported", f"an array {shape}; expected (height, width) or (height, width, bands)")
    if dtype.name not in ("uint8", "uint16", "float32", "float64"):
        raise DecodeError("unsupported", f"an array of {dtype}; expected uint8, uint16 or float32")
    bands = shape[2] if len(shape) == 3 else 1
    check_size(shape[1], shape[0], bands, dtype.itemsize, max_megapixels)
    start, num_values = file.tell(), math.prod(shape)
    if len(content) - start < num_values * dtype.itemsize:
        raise DecodeError("corrupt", f"{len(content) - start} bytes of pixels; the array {shape} of {dtype} has more")

    def read() -> Pixels:
        values = np.frombuffer(content, dtype, num_values, start)
        return simplified(values.reshape(shape, order="F" if is_fortran else "C").reshape(*shape[:2], bands))

    depth = min(32, 8 * dtype.itemsize)
    return Header("NPY", shape[1], shape[0], bands, depth, dtype.kind == "f", False, False, 1), read


def check_size(width: int, height: int, bands: int, value_bytes: int, max_megapixels: int) -> None:
    """Refuse a picture without pixels, or with more bands, pixels, values or bytes than are allowed."""
    if min(width, height, bands) < 1:
        raise DecodeError("corrupt", f"{width} x {height} pixels of {bands} bands")
    if bands > _MAX_BANDS:
        raise DecodeError("unsupported", f"{bands} bands; expected at most {_MAX_BANDS}")
    limit = max_megapixels * 10**6
    if width * height > limit or width * height * bands > _MOST_VALUES * limit:
        raise DecodeError(
            "too_large",
            f"{width} x {height} pixels of {bands} bands; at most {limit:,} pixels or {_MOST_VALUES * limit:,} values "
            "are decoded",
        )
    check_bytes_of_pixels(width * height * bands * value_bytes, max_megapixels)


def check_bytes_of_pixels(num_bytes: int, max_megapixels: int) -> None:
    """Refuse pixels that take more than `most_bytes` while they are read."""
    if num_bytes > most_bytes(max_megapixels):
        limit = f"{most_bytes(max_megapixels):,}"
        raise DecodeError("too_large", f"{num_bytes:,} bytes of pixels; at most {limit} are decoded")


def most_bytes(max_megapixels: int) -> int:
    """Return what the pixels of a file may take: as many bytes as the largest picture of _MOST_VALUES floats a pixel.

    What Pillow holds takes at most four bytes a pixel.
    """
    return max_megapixels * 10**6 * _MOST_VALUES * _MOST_VALUE_BYTES


def simplified(pixels: Pixels) -> Pixels:
    """Return uint8 and uint16 values as they are, all others as float32."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which `fit` refuses
        return pixels.astype(np.float32)


def array_header(pixels: Pixels) -> Header:
    """Return the header of a raw array (height, width) or (height, width, bands)."""
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    is_float = pixels.dtype.kind == "f"
    return Header("NPY", pixels.shape[1], pixels.shape[0], bands, 8 * pixels.itemsize, is_float, False, False, 1)


def exif_orientation(value: Any) -> int:
    """Return an EXIF orientation 1 to 8; values that mean nothing are 1."""
    return int(value) if value in range(2, 9) else 1


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Return (height, width, bands) as it is meant to be seen, from how it is stored (EXIF 2.32, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def fit(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Return pixels as `spec` says, from uint8, uint16 or float32 (height, width, bands).

    Raises:
        DecodeError: unsupported (bands or depth that `spec` does not take) or corrupt (values that are not finite).
    """
    bands = pixels.shape[2]
    if bands != spec.channels and not {bands, spec.channels} <= {1, 3}:
        raise DecodeError("unsupported", f"{bands} bands; expected {spec.channels} as the image specification says")
    resized = _resize(_to_channels(_to_depth(pixels, spec.dtype), spec.channels), spec.height, spec.width)
    return np.ascontiguousarray(resized)


def _to_depth(pixels: Pixels, dtype: str) -> Pixels:
    """Return uint8, uint16 or float32: 16 to 8 bits by the high byte, 8 to 16 bits so that white stays white."""
    if dtype == "float32":
        values = pixels.astype(np.float32, copy=False)
        if pixels.dtype.kind == "f" and not np.isfinite(values).all():
            number = np.count_nonzero(~np.isfinite(values).all(axis=2))
            raise DecodeError("corrupt", f"{number} pixels are not finite")
        return values
    if pixels.dtype == np.float32:
        raise DecodeError(
            "unsupported", f"float or 32-bit values have no fixed white; expected 8-bit or 16-bit values for {dtype}"
        )
    if pixels.dtype == dtype:
        return pixels
    return (pixels >> 8).astype(np.uint8) if dtype == "uint8" else pixels.astype(np.uint16) * np.uint16(257)


def _to_channels(pixels: Pixels, channels: int) -> Pixels:
    """Return grey as RGB, RGB as grey (ITU-R 601 luma), or the bands as they are."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if pixels.dtype == np.float32:
        return (pixels @ (np.array(_LUMA, np.float32) / 65536))[..., None]
    luma = (pixels @ np.array(_LUMA, np.uint32) + 32768) >> 16
    return luma.astype(pixels.dtype)[..., None]


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return (height, width, bands) by an antialiased bilinear filter: bytes as bytes, all else in single precision."""
    if pixels.shape[:2] == (height, width):
        return pixels
    is_bytes, is_integer = pixels.dtype == np.uint8, pixels.dtype.kind == "u"
    resized = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    for band in range(pixels.shape[2]):
        plane = np.ascontiguousarray(pixels[..., band], None if is_bytes else np.float32)
        small = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        resized[..., band] = np.rint(small) if is_integer else small
    return resized


def describe(error: Exception) -> str:
    """Return one line that names an exception."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
