"""The one decoder of search and score: the bytes of a file become uint8 pixels, or an error with a code.

Version 1 of the rules: formats by content (JPEG, PNG, GIF, BMP, WebP, TIFF; first frame); EXIF orientation applied;
16-bit grey by its high byte; transparency over black; then grey (ITU-R 601 luma) or RGB; then an antialiased
bilinear resize of the whole picture to (height, width), without cropping. A change of these rules is a new version.
"""

import errno
import io
import os
import stat

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.records import ImageSpec

DECODER_VERSION = 1
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000  # half of Pillow's own warning threshold; a 50 Mpx RGB picture takes 150 MB

ERROR_CODES = {
    "missing": "no such file",
    "not_regular": "a folder, pipe, socket or device",
    "unreadable": "the operating system refused to read it",
    "empty": "zero bytes",
    "too_large": f"more than {MAX_BYTES >> 20} MiB or {MAX_PIXELS // 10**6} megapixels",
    "unsupported": f"not one of {', '.join(FORMATS)}",
    "corrupt": "the picture is damaged or cut off",
}


class DecodeError(Exception):
    """A file that holds no usable picture; `code` is a key of ERROR_CODES and `detail` says what was found."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


def read_file(path: str) -> bytes:
    """Return the bytes of a regular file of at most MAX_BYTES; never blocks on a pipe.

    Raises:
        DecodeError: missing, not_regular, unreadable, empty or too_large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise DecodeError("missing", "no such file") from error
    except OSError as error:
        code = "not_regular" if error.errno in (errno.ENXIO, errno.ENODEV) else "unreadable"
        raise DecodeError(code, error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)  # before fdopen, which refuses a folder
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("not_regular", "not a regular file")
        if status.st_size > MAX_BYTES:
            raise DecodeError("too_large", f"{status.st_size} bytes; at most {MAX_BYTES} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DecodeError("unreadable", error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if not content:
        raise DecodeError("empty", "zero bytes")
    return content


def open_image(content: bytes) -> Image.Image:
    """Open the header of a picture; the pixels are not decoded yet.

    Raises:
        DecodeError: unsupported, corrupt or too_large.
    """
    try:
        # Pillow's warning about large pictures is left alone: catch_warnings is not safe in threads.
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise DecodeError(
            "unsupported", f"the first bytes are {content[:8]!r}; expected {', '.join(FORMATS)}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError("too_large", str(error)) from error
    except Exception as error:  # border: Pillow raises OSError, ValueError, SyntaxError and more on broken headers
        raise DecodeError("corrupt", describe(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise DecodeError("too_large", f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded")
    return image


def decode(content: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Return uint8 pixels (height, width, channels) as `spec` says.

    Raises:
        DecodeError: unsupported, corrupt or too_large.
    """
    image = open_image(content)
    try:
        if image.format == "JPEG" and image.mode == "RGB" and spec.channels == 1:
            image.draft("L", None)  # libjpeg drops the colour planes; L is then the JPEG's own luma
        oriented = ImageOps.exif_transpose(image)
        flat = flatten(oriented, "L" if spec.channels == 1 else "RGB")
        size = (spec.width, spec.height)
        pixels = np.asarray(flat if flat.size == size else flat.resize(size, Image.Resampling.BILINEAR))
    except Exception as error:  # border: a foreign file becomes a recorded outcome, whatever Pillow raises
        raise DecodeError("corrupt", describe(error)) from error
    return pixels.reshape(spec.shape)


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Return an 8-bit picture of mode "L" or "RGB": 16-bit by the high byte, transparency over black."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("float pixels have no defined range; expected 8-bit or 16-bit pixels")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(background, image)
    return image if image.mode == mode else image.convert(mode)


def is_colour(image: Image.Image) -> bool:
    """Tell whether a picture stores colour (a palette counts as colour unless all its entries are grey)."""
    if image.mode == "P":
        palette = image.getpalette() or []
        return any(not red == green == blue for red, green, blue in zip(*[iter(palette)] * 3, strict=False))
    return image.mode not in ("1", "L", "LA", "La", "I", "F") and not image.mode.startswith("I;16")


def describe(error: Exception) -> str:
    """Return one line that names an exception."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
