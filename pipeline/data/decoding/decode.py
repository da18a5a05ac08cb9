"""The one decoder of search and score: the bytes of a file become pixels as an ImageSpec says, or an error with a code.

Version 2 of the rules. Formats by content: JPEG, PNG, GIF, BMP, WebP, TIFF (first frame or page) and .npy. EXIF
orientation is applied. Transparency lies over `spec.background`. Colour becomes grey by ITU-R 601 luma. uint8: 16-bit
values by their high byte. uint16: 8-bit values times 257. float32: values as they are. Then the whole picture is
resized to (height, width) by an antialiased bilinear filter. 16-bit colour is kept whole from TIFF and .npy; from PNG,
and with alpha, it is read by its high byte, as Pillow does. A change of these rules is a new version.

A JPEG is reduced to 1/2, 1/4 or 1/8 while it is decoded (libjpeg's scaled inverse DCT) where what remains is at least
_LEAST_REDUCED times the target. Against full decode and resize, the mean absolute difference of a photograph stays
under REDUCE_TOLERANCE of 255 grey levels. Measured with Pillow 13.0.0 and libjpeg-turbo 3.2.0 on JPEGs of quality 90,
grey and RGB, worst mean and largest difference: scikit-learn's two sample photos, whole, 224 -> 96: 1.5 and 22, 512 ->
64: 0.9 and 10, 1000 -> 64: 0.8 and 10; 224 pixels of their full detail -> 96: 2.8 and 34; photos of hands tiled to 800
pixels at the least ratios: 1/2 1.3 and 26, 1/4 1.2 and 15, 1/8 1.7 and 14. White noise is no photograph: 224 -> 96
differs by 8 and 42.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.data.decoding.bands import (
    NPY_MAGIC,
    DecodeError,
    Header,
    Pixels,
    Read,
    check_size,
    describe,
    exif_orientation,
    fit,
    open_npy,
    simplified,
    turn,
)
from pipeline.data.decoding.content import check_bytes
from pipeline.data.decoding.tiff import TIFF_MAGICS, count_pages, open_tiff
from pipeline.records import ImageSpec

DECODER_VERSION = 2
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""What Pillow reads; .npy files come on top."""
PILLOW_MEGAPIXELS = 178
"""Pillow refuses larger pictures, whatever its caller allows."""
REDUCE_TOLERANCE = 3.0
_LEAST_REDUCED = {8: 1.5, 4: 1.5, 2: 1.15}
"""By how much a reduced JPEG must exceed the target, by the divisor of its sides; 224 -> 96 may be halved first."""

ERROR_CODES = {
    "missing": "no such file",
    "not_regular": "a folder, pipe, socket or device",
    "unreadable": "the operating system refused to read it",
    "empty": "zero bytes",
    "too_large": "more megabytes or megapixels than allowed",
    "unsupported": f"not one of {', '.join(FORMATS)} or .npy, or a kind of them that the images cannot be made from",
    "corrupt": "the picture is damaged or cut off",
    "killed": "decoding it took too much memory or time, or killed the decoder",
    "refused": "a URL that is not followed, or a private address, which needs --allow-host",
}

_SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": TIFF_MAGICS,
}
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with more JPEGs behind it, as many phones write
_GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_DEPTHS = {"1": 1, "I": 32, "F": 32, "I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16}
_WHITE_IS_ZERO = 0  # TIFF PhotometricInterpretation, tag 262


def open_image(content: bytes, max_megapixels: int = ImageSpec.max_megapixels) -> Image.Image:
    """Open the header of a picture that Pillow reads; the pixels are not decoded yet.

    Raises:
        DecodeError: unsupported, corrupt or too_large.
    """
    try:
        # Pillow's warning about large pictures is left alone: catch_warnings is not safe in threads.
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:  # border: Pillow raises OSError, ValueError, SyntaxError and more on broken headers
        raise _refusal(content, error) from error
    if image.width * image.height > max_megapixels * 10**6:
        limit = max_megapixels * 10**6
        raise DecodeError("too_large", f"{image.width} x {image.height} pixels; at most {limit:,} are decoded")
    return image


def _refusal(content: bytes, error: Exception) -> DecodeError:
    """Return why Pillow could not open a header: no format that it knows, a kind of it that it does not, or damage."""
    known = _signature(content)
    if not known:
        return DecodeError("unsupported", f"begins with {content[:8]!r}; expected {', '.join(FORMATS)}")
    if isinstance(error, UnidentifiedImageError):
        if known == "TIFF":
            return DecodeError("unsupported", "a TIFF whose kind of pixels or packing is not known")
        return DecodeError("corrupt", f"begins like {known}, but its header cannot be read")
    return _as_decode_error(error)


def _signature(content: bytes) -> str:
    """Return the format that the first bytes promise, "" for none."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith(b"BM") and content[6:10] == bytes(4):
        return "BMP"
    for name, beginnings in _SIGNATURES.items():
        if content.startswith(beginnings):
            return name
    return ""


def _as_decode_error(error: Exception) -> DecodeError:
    """Return what an exception of a decoding library means."""
    if isinstance(error, MemoryError):
        return DecodeError("killed", "out of memory")
    if isinstance(error, Image.DecompressionBombWarning):  # where warnings are errors
        return DecodeError("too_large", str(error))
    if isinstance(error, Image.DecompressionBombError):
        return DecodeError("too_large", f"more than {PILLOW_MEGAPIXELS} megapixels, which are never decoded")
    return DecodeError("corrupt", describe(error))


def _open_bands(content: bytes, max_megapixels: int) -> tuple[Header, Read] | None:
    """Return the header of a picture that Pillow does not hold whole, and what reads it; None for any other file.

    Both may raise whatever numpy and tifffile raise on broken files; `decode` turns that into a DecodeError.

    Raises:
        DecodeError: unsupported, corrupt or too_large.
    """
    if content.startswith(NPY_MAGIC):
        return open_npy(content, max_megapixels)
    if content.startswith(TIFF_MAGICS):
        return open_tiff(content, max_megapixels)
    return None


def probe(content: bytes, max_megapixels: int = ImageSpec.max_megapixels) -> Header:
    """Return what the header says; EXIF data behind the pixels of a PNG is not seen.

    Raises:
        DecodeError: empty, unsupported, corrupt or too_large.
    """
    if not content:
        raise DecodeError("empty", "zero bytes")
    try:
        opened = _open_bands(content, max_megapixels)
        if opened is not None:
            return opened[0]
        image = open_image(content, max_megapixels)
        return _header_of(image, _orientation_of(image), _count_frames(image, content))
    except DecodeError:
        raise
    except Exception as error:  # border: a foreign file becomes a recorded outcome, whatever a library raises
        raise _as_decode_error(error) from error


def decode(content: bytes, spec: ImageSpec) -> Pixels:
    """Return pixels of spec.dtype (height, width, channels) as `spec` says.

    Raises:
        DecodeError: empty, unsupported, corrupt, too_large or killed (out of memory).
    """
    return decode_picture(content, spec)[0]


def decode_picture(content: bytes, spec: ImageSpec) -> tuple[Pixels, Header]:
    """Return pixels of spec.dtype (height, width, channels) as `spec` says, and what the file says of itself.

    Raises:
        DecodeError: empty, unsupported, corrupt, too_large or killed (out of memory).
    """
    check_bytes(len(content), spec.max_megabytes)
    try:
        opened = _open_bands(content, spec.max_megapixels)
        if opened is not None:
            header, read = opened
            return fit(read(), spec), header
        image = open_image(content, spec.max_megapixels)
        if image.format == "PNG":
            image.load()  # its EXIF data may lie behind the pixels
        orientation = _orientation_of(image)
        header = _header_of(image, orientation, _count_frames(image, content))
        if image.format == "TIFF":
            orientation = 1  # Pillow turns it while it loads
        if spec.dtype == "uint8" and header.depth <= 8 and spec.channels in (1, 3):
            return np.ascontiguousarray(turn(_bytes_of(image, header, spec, orientation), orientation)), header
        return fit(turn(_pixels_of(image, header, spec), orientation), spec), header
    except DecodeError:
        raise
    except Exception as error:  # border: a foreign file becomes a recorded outcome, whatever a library raises
        raise _as_decode_error(error) from error


def from_array(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Return a raw array (height, width) or (height, width, bands) as `spec` says, by the rules for files.

    Raises:
        DecodeError: unsupported, corrupt or too_large.
    """
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.dtype.kind not in "uif":
        raise DecodeError(
            "unsupported", f"{pixels.dtype} {pixels.shape}; expected numbers (height, width) or (height, width, bands)"
        )
    check_size(pixels.shape[1], pixels.shape[0], pixels[0, 0].size, pixels.itemsize, spec.max_megapixels)
    return fit(simplified(pixels.reshape(*pixels.shape[:2], -1)), spec)


def _header_of(image: Image.Image, orientation: int, num_frames: int) -> Header:
    """Return what an opened picture says of itself."""
    width, height = image.size
    if orientation >= 5 and image.format != "TIFF":  # Pillow gives the sides of a TIFF as they are seen
        width, height = height, width
    mode = image.mode
    return Header(
        "JPEG" if image.format in _JPEG else str(image.format),
        width,
        height,
        1 if mode in _GREY_MODES or (mode in ("P", "PA") and _is_grey_palette(image)) else 3,
        _DEPTHS.get(mode, 8),
        mode == "F",
        mode in _ALPHA_MODES or "transparency" in image.info,
        orientation != 1,
        num_frames,
    )


def _is_grey_palette(image: Image.Image) -> bool:
    """Tell whether all entries of a palette are grey; the pixels are not loaded."""
    if image.palette is None:
        raise DecodeError("corrupt", "a palette picture without a palette")
    small = Image.new("P", (1, 1))
    small.putpalette(image.palette.palette, image.palette.rawmode or image.palette.mode)
    entries = small.getpalette("RGB") or []
    return entries[0::3] == entries[1::3] == entries[2::3]


def _count_frames(image: Image.Image, content: bytes) -> int:
    """Return the number of frames or pages; 1 if those behind the first are damaged."""
    if image.format == "TIFF":
        return count_pages(content)  # Pillow reads all that each page says
    if image.format in _JPEG:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001  border: the first frame may serve nevertheless
        image.seek(0)
        return 1


def _orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; data that cannot be read does not cost the picture."""
    try:
        if image.format == "TIFF":
            return exif_orientation(image.tag_v2.get(274, 1))  # type: ignore[attr-defined]
        info = image.info
        if "exif" in info or "xmp" in info or "XML:com.adobe.xmp" in info or "Raw profile type exif" in info:
            return exif_orientation(Image.Image.getexif(image).get(274, 1))  # that of a PNG would decode the pixels
    except Exception:  # noqa: BLE001  border: Pillow raises ValueError, SyntaxError and more on broken EXIF data
        return 1
    return 1


def _bytes_of(image: Image.Image, header: Header, spec: ImageSpec, orientation: int) -> Pixels:
    """Return uint8 pixels of an 8-bit picture, resized so that they fit `spec` once they are turned."""
    size = (spec.height, spec.width) if orientation >= 5 else (spec.width, spec.height)
    box = _reduce_jpeg(image, size, spec.channels) if image.format in _JPEG else None
    flat = flatten(image, header, "L" if spec.channels == 1 else "RGB", spec.background)
    if flat.size != size:
        flat = flat.resize(size, Image.Resampling.BILINEAR, box)
    return np.frombuffer(flat.tobytes(), np.uint8).reshape(size[1], size[0], spec.channels)


def _reduce_jpeg(image: Image.Image, size: tuple[int, int], channels: int) -> tuple[float, float, float, float] | None:
    """Let libjpeg reduce a JPEG where that is close to a resize; return the part of it that holds the picture."""
    width, height = image.size
    mode = "L" if channels == 1 else image.mode  # libjpeg drops the colour planes; L is the JPEG's own luma
    ratio = min(width / size[0], height / size[1])
    for divisor, least in _LEAST_REDUCED.items():
        if ratio >= divisor * least:
            drafted = image.draft(mode, (width // divisor, height // divisor))
            return drafted[1] if drafted else None
    if channels == 1:
        image.draft(mode, None)
    return None


def flatten(image: Image.Image, header: Header, mode: str, background: str) -> Image.Image:
    """Return an 8-bit picture of mode "L" or "RGB", transparency over `background`."""
    if header.has_alpha:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    elif image.mode == "LAB":
        image = image.convert("RGB")  # Pillow knows no other way out of LAB
    return image if image.mode == mode else image.convert(mode)


def _pixels_of(image: Image.Image, header: Header, spec: ImageSpec) -> Pixels:
    """Return all that Pillow holds: uint8, uint16 or float32 (height, width, 1 or 3)."""
    if header.depth <= 8:
        flat = np.asarray(flatten(image, header, "L" if header.bands == 1 else "RGB", spec.background))
        return flat.reshape(*flat.shape[:2], header.bands)
    values = simplified(np.asarray(image))
    if header.depth == 16:
        if image.format == "TIFF" and image.tag_v2.get(262) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
            values = np.uint16(65535) - values
        if header.has_alpha:
            under = np.asarray(Image.new("RGB", (1, 1), spec.background).convert("L")).astype(np.uint16) * 257
            values = np.where(values == image.info["transparency"], under, values)
    return values[..., None]
