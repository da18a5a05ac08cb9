"""Pictures and arrays as the bytes of a file, and what the decoder says of bytes that are none."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.decode import decode
from pipeline.records import ImageSpec

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # a copy: Pillow leaves settings of one format behind for the next
    return file.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    """Return an array as a TIFF by tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def saved(pixels: np.ndarray, **options) -> bytes:
    """Return an array as a .npy file."""
    file = io.BytesIO()
    np.save(file, pixels, **options)
    return file.getvalue()


def picture(rows: list) -> Image.Image:
    """Return rows of pixels as a picture."""
    return Image.fromarray(np.array(rows, np.uint8))


def random(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """Return noise over all values of the type, the same in each call."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def exif(orientation: int) -> Image.Exif:
    """Return Exif data that holds an orientation alone."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def code_of(content: bytes, spec: ImageSpec) -> str:
    """Return the code with which a file is refused."""
    with pytest.raises(DecodeError) as raised:
        decode(content, spec)
    return raised.value.code
