"""TIFF files: the memory that they take is checked first; tifffile reads those that Pillow does not hold whole.

Both libraries believe what a page says: tags of any number and length, tiles of any size around a small picture, strips
that unpack to gigabytes.
"""

import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipeline.data.decoding.bands import (
    DecodeError,
    Header,
    Pixels,
    Read,
    check_bytes_of_pixels,
    check_size,
    exif_orientation,
    most_bytes,
    simplified,
    turn,
)

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The offset of the first page, the number of its tags, each of these (tag, type, number of values, their offset), and
# the offset of the next page, of TIFF and of BigTIFF.
_LAYOUT = ("4xI", "H", "HHII", "I")
_BIG_LAYOUT = ("8xQ", "Q", "HHQQ", "Q")
_VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # by type: no texts
WIDTH, LENGTH = 256, 257
_DEPTHS = {32997: "ImageDepth", 32998: "TileDepth"}  # of volumes
_SIZES = (WIDTH, LENGTH, 258, 277, 278, 284, 322, 323, *_DEPTHS)
_PLANAR = 2  # one band after the other
_PREDICTORS = (1, 2)
DEFLATE, PACKBITS, LZMA = (8, 32946), 32773, 34925
_COMPRESSIONS = (1, *DEFLATE, PACKBITS, LZMA)  # without imagecodecs
_MOST_UNPACKED = {1: 1} | dict.fromkeys(DEFLATE, 1032) | {PACKBITS: 64}  # bytes that a packed byte can become
MAX_PAGES = 1000
_MAX_TAGS = 4096  # as in tifffile
MAX_TAG_VALUES = 1 << 22  # that are no text: tifffile makes each a Python number of 36 bytes
_TAGS_PER_FILE = 4  # by how much all tags may exceed the file: some share their values
_SLACK_BYTES = 1 << 20
_LIST_CELL = 8  # bytes that tifffile takes for each unpacked byte of PackBits
_PACKBITS_LITERAL = 128  # a byte below says how many follow as they are, one above how often the next is repeated
_LZMA_BYTES = 1 << 28  # of memory: the strongest preset takes 65 MiB
_PACKED_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20


def open_tiff(content: bytes, max_megapixels: int) -> tuple[Header, Read] | None:
    """Return the header of the first page of a TIFF and what reads it; None if Pillow holds it whole, or as well.

    Raises:
        DecodeError: unsupported, corrupt or too_large, also where Pillow would read it.
    """
    _check_tags(content)
    page = _first_page(content)
    _check_page(page, max_megapixels)
    if _is_whole_in_pillow(page):
        return None
    bands = page.samplesperpixel
    if page.dtype.kind not in "uif":
        raise DecodeError("unsupported", f"a TIFF of {page.dtype}; expected integers or floats")
    if page.compression not in _COMPRESSIONS or page.predictor not in _PREDICTORS:
        if page.dtype.name == "uint16" and bands == 3:
            return None  # Pillow reads it, by the high byte
        packing = f"{getattr(page.compression, 'name', page.compression)}, predictor {int(page.predictor)}"
        raise DecodeError(
            "unsupported", f"{bands} bands of {page.dtype} in a TIFF packed by {packing}; expected none or deflate"
        )
    orientation = exif_orientation(page.tags.valueof(274, 1))

    def read() -> Pixels:
        _check_segments(page, content, max_megapixels)
        pixels = page.asarray(maxworkers=1)
        if pixels.ndim == 3 and page.planarconfig == _PLANAR:
            pixels = pixels.transpose(1, 2, 0)
        return turn(simplified(pixels.reshape(page.imagelength, page.imagewidth, bands)), orientation)

    width, height = page.imagewidth, page.imagelength
    if orientation >= 5:
        width, height = height, width
    depth = {"uint8": 8, "uint16": 16}.get(page.dtype.name, 32)
    is_float = page.dtype.kind == "f"
    return Header("TIFF", width, height, bands, depth, is_float, False, orientation != 1, count_pages(content)), read


def _check_tags(content: bytes) -> None:
    """Refuse a TIFF whose first page has tags that take much more memory than the file, or that repeat a size."""
    tags = next(_directories(content), [])
    sizes = [tag for tag, *_ in tags if tag in _SIZES]
    if len(set(sizes)) < len(sizes):
        raise DecodeError("corrupt", f"the tag {max(sizes, key=sizes.count)} occurs more than once")
    num_bytes = num_values = 0
    for _, kind, count, offset in tags:
        value_bytes = _VALUE_BYTES.get(kind, 1)
        size = min(count * value_bytes, max(8, len(content) - offset))
        num_bytes += size
        num_values += size // value_bytes if kind in _VALUE_BYTES else 0
    if num_bytes > _TAGS_PER_FILE * len(content) + _SLACK_BYTES or num_values > MAX_TAG_VALUES:
        raise DecodeError(
            "corrupt", f"its tags hold {num_bytes:,} bytes in {num_values:,} values, more than such a file needs"
        )


def count_pages(content: bytes) -> int:
    """Return the number of pages of a TIFF, at most MAX_PAGES; 1 if those after the first are damaged."""
    number = 0
    for tags in islice(_directories(content), MAX_PAGES):
        if not {WIDTH, LENGTH} <= {tag for tag, *_ in tags}:
            return 1
        number += 1
    return max(1, number)


def _directories(content: bytes) -> Iterator[list[tuple[int, int, int, int]]]:
    """Yield (tag, type, number of values, offset of the values) of each page; nothing for one that is unreadable."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = b"+" in content[2:4]
    head, number, entry, following = (struct.Struct(order + kind) for kind in (_BIG_LAYOUT if is_big else _LAYOUT))
    offset = head.unpack_from(content.ljust(16, b"\0"))[0]
    seen = {0}
    while offset not in seen:
        seen.add(offset)
        start = offset + number.size
        num_tags = number.unpack_from(content, offset)[0] if start <= len(content) else 0
        end = start + num_tags * entry.size
        if not 0 < num_tags <= _MAX_TAGS or end + following.size > len(content):
            yield []
            return
        yield list(entry.iter_unpack(content[start:end]))
        offset = following.unpack_from(content, end)[0]


def _first_page(content: bytes) -> Any:
    """Return the first page of a TIFF as tifffile describes it; its pixels are not read yet."""
    import tifffile

    tifffile.logger().setLevel(logging.CRITICAL)  # a broken file gets its code, and no lines on stderr
    page: Any = tifffile.TiffFile(io.BytesIO(content)).pages.first
    if page.dtype is None or 0 in page.shape or page.shape == ():
        raise DecodeError("corrupt", f"the first page has the shape {page.shape} of {page.dtype}")
    if not page.dataoffsets:
        raise DecodeError("corrupt", "the first page has no pixels")
    return page


def _is_whole_in_pillow(page: Any) -> bool:
    """Tell whether Pillow reads a page of a TIFF with all its bands and depth, or alone knows what they mean."""
    bands, dtype, extra = page.samplesperpixel, page.dtype.name, page.extrasamples
    if page.photometric not in (0, 1, 2):  # a palette, CMYK, YCbCr, LAB
        return True
    if bands == 1:
        return dtype in ("bool", "uint8", "uint16", "int16", "int32", "float32")
    if bands in (2, 4) and extra and extra[0] in (1, 2):  # alpha
        return True
    return dtype == "uint8" and page.photometric == 2 and (bands == 3 or (bands == 4 and not extra))


def _check_page(page: Any, max_megapixels: int) -> None:
    """Refuse a volume, and a page that takes too much memory, also in the strips or tiles that it is cut into."""
    for tag, name in _DEPTHS.items():
        if (depth := page.tags.valueof(tag, 1)) != 1:
            raise DecodeError("unsupported", f"{name} is {depth}; expected a picture of one layer")
    value_bytes = page.dtype.itemsize
    check_size(page.imagewidth, page.imagelength, page.samplesperpixel, value_bytes, max_megapixels)
    check_bytes_of_pixels(math.prod(page.chunked) * math.prod(page.chunks) * value_bytes, max_megapixels)


def _check_segments(page: Any, content: bytes, max_megapixels: int) -> None:
    """Refuse a page whose strips or tiles unpack to more than its pixels may take; none of them is decoded yet."""
    num_segments = math.prod(page.chunked)
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:num_segments]
    if (len(spans) < num_segments and not page.is_contiguous) or any(min(span) < 0 for span in spans):
        raise DecodeError("corrupt", f"{len(spans)} strips or tiles inside the file; expected {num_segments}")
    num_packed = sum(min(size, max(0, len(content) - start)) for start, size in spans)
    check_bytes_of_pixels(num_packed, max_megapixels)  # tiles may share their bytes
    cell = _LIST_CELL if page.compression == PACKBITS else 1
    if num_packed * cell * _MOST_UNPACKED.get(page.compression, math.inf) <= most_bytes(max_megapixels):
        return
    num_bytes = num_packed
    for start, size in spans:
        for piece in _unpacked_pieces(content[start : start + size], page.compression):
            num_bytes += cell * piece
            check_bytes_of_pixels(num_bytes, max_megapixels)


def _unpacked_pieces(packed: bytes, compression: int) -> Iterator[int]:
    """Yield the lengths of the pieces that a strip or tile unpacks to; little of it is held at once."""
    if compression in DEFLATE:
        unpacker = zlib.decompressobj()
        for start in range(0, len(packed), _PACKED_BYTES):
            left = packed[start : start + _PACKED_BYTES]
            while left and not unpacker.eof:
                yield len(unpacker.decompress(left, _PIECE_BYTES))
                left = unpacker.unconsumed_tail
    elif compression == LZMA:
        import lzma  # which not every Python has

        decompressor = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
        yield len(decompressor.decompress(packed, _PIECE_BYTES))
        while not decompressor.eof and not decompressor.needs_input:
            yield len(decompressor.decompress(b"", _PIECE_BYTES))
        if decompressor.unused_data:  # further streams, each of which lzma.decompress copies the rest for
            raise DecodeError("corrupt", "data after the end of a strip or tile")
    elif compression == PACKBITS:
        place = 0
        while place < len(packed):
            head = packed[place]
            is_literal = head < _PACKBITS_LITERAL
            yield head + 1 if is_literal else 257 - head  # 128 is a no-op; counting 129 for it is more than enough
            place += head + 2 if is_literal else 2 - (head == _PACKBITS_LITERAL)
