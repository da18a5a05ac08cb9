"""What a TIFF asks of memory is known before any of it is decoded, whichever library would decode it."""

import lzma
import struct
import zlib

import numpy as np
import pytest

from pipeline.data.decoding import tiff as tiff_module
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.decode import decode, probe
from pipeline.data.decoding.tiff import count_pages
from pipeline.records import ImageSpec
from tests.data.broken import ifd
from tests.data.encoded import saved, tiff

TYPES = {"B": 1, "H": 3, "I": 4, "i": 9}
BANDS = ImageSpec(8, 8, 5, "float32", max_megapixels=1)
LIMIT = 16_000_000  # bytes that a file may take with one megapixel
VALUES = np.random.default_rng(0).integers(0, 256, (8, 8, 5), np.uint8)


def file_of(changes: dict[int, tuple[str, list[int]]], segments: list[bytes], side: int = 8) -> bytes:
    """Return a TIFF of 5 bands of uint8 in strips or tiles, with some tags changed: (kind of number, values)."""
    tags = {256: ("I", [side]), 257: ("I", [side]), 258: ("H", [8] * 5), 259: ("H", [1]), 262: ("H", [1])}
    tags |= {277: ("H", [5]), 278: ("I", [side]), 279: ("I", [len(part) for part in segments]), 284: ("H", [1])}
    tags |= changes
    place = 8
    offsets = []
    for part in segments:
        offsets.append(place)
        place += len(part)
    tags = {273: ("I", offsets)} | tags
    values = b""
    start = place + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, TYPES[kind], len(numbers), start + len(values))
            values += packed
        else:
            entries += struct.pack("<HHI4s", tag, TYPES[kind], len(numbers), packed)
    head = b"II*\0" + struct.pack("<I", place)
    return head + b"".join(segments) + struct.pack("<H", len(tags)) + entries + bytes(4) + values


def refusal_of(content: bytes, spec: ImageSpec = BANDS) -> tuple[str, str]:
    with pytest.raises(DecodeError) as caught:
        decode(content, spec)
    return caught.value.code, caught.value.detail


def test_the_files_of_these_tests_are_pictures_where_nothing_is_changed():
    np.testing.assert_array_equal(decode(file_of({}, [VALUES.tobytes()]), BANDS), VALUES)
    rows = [row.tobytes() for row in VALUES]
    np.testing.assert_array_equal(decode(file_of({278: ("I", [1])}, rows), BANDS), VALUES)


@pytest.mark.parametrize("tag", [32997, 32998])
@pytest.mark.parametrize("bands", [1, 5])
def test_a_volume_is_refused_by_its_header(tag, bands):
    tags = {258: ("H", [8] * bands), 277: ("H", [bands])}
    pixels = [VALUES[..., :bands].tobytes()]
    content = file_of(tags | {tag: ("I", [4])}, pixels)
    for read in (probe, lambda content: decode(content, ImageSpec(8, 8, bands))):
        with pytest.raises(DecodeError, match=r"unsupported.*Depth is 4; expected a picture of one layer"):
            read(content)
        read(file_of(tags | {tag: ("I", [1])}, pixels))


def packbits(num_bytes: int) -> bytes:
    return b"\x81\0" * (num_bytes // 128)


@pytest.mark.parametrize(
    ("compression", "pack", "most"),
    [
        (8, lambda number: zlib.compress(bytes(number)), LIMIT),
        (32946, lambda number: zlib.compress(bytes(number)), LIMIT),
        (34925, lambda number: lzma.compress(bytes(number), preset=0), LIMIT),
        (32773, packbits, LIMIT // 8),  # tifffile unpacks it into a list
    ],
    ids=["deflate", "old deflate", "lzma", "packbits"],
)
def test_strips_that_unpack_to_more_than_a_picture_may_take_are_refused(compression, pack, most):
    packing = {259: ("H", [compression])}
    decode(file_of(packing, [pack(most - most // 50)]), BANDS)
    assert refusal_of(file_of(packing, [pack(most + most // 50)]))[0] == "too_large"
    halves = file_of(packing | {278: ("I", [4])}, [pack(most * 6 // 10)] * 2)
    assert refusal_of(halves)[0] == "too_large"


def test_streams_behind_the_first_are_not_unpacked():
    parts = lzma.compress(VALUES.tobytes()) + lzma.compress(b"") * 1000
    assert refusal_of(file_of({259: ("H", [34925])}, [parts])) == (
        "corrupt", "data after the end of a strip or tile",
    )  # fmt: skip


def test_tiles_that_all_lie_on_the_same_bytes_count_each():
    tiles = {322: ("I", [16]), 323: ("I", [16]), 324: ("I", [8] * 400), 325: ("I", [60_000] * 400)}
    content = file_of(tiles, [bytes(60_000)], side=320)
    assert refusal_of(content)[0] == "too_large"
    np.testing.assert_array_equal(decode(file_of(tiles | {325: ("I", [1280] * 400)}, [bytes(60_000)], 320), BANDS), 0)


def test_a_tile_much_larger_than_the_picture_is_refused():
    content = file_of({322: ("I", [2000]), 323: ("I", [2000]), 324: ("I", [8]), 325: ("I", [64])}, [bytes(64)])
    assert refusal_of(content) == ("too_large", "20,000,000 bytes of pixels; at most 16,000,000 are decoded")


def test_values_of_many_bytes_are_counted_in_bytes():
    spec = ImageSpec(8, 8, 4, "float32", max_megapixels=1)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"] * 3}
    pixels = np.zeros((1000, 1000, 4))
    assert decode(tiff(pixels.astype(np.float32), **options), spec).shape == (8, 8, 4)
    for content in (tiff(pixels, **options), saved(pixels)):
        expected = ("too_large", "32,000,000 bytes of pixels; at most 16,000,000 are decoded")
        assert refusal_of(content, spec) == expected


def test_strips_that_are_not_there_are_not_made_up():
    rows = [row.tobytes() for row in VALUES]
    content = file_of({278: ("I", [1]), 279: ("I", [40] * 5), 273: ("I", [8 + 80 * row for row in range(5)])}, rows)
    assert refusal_of(content) == ("corrupt", "5 strips or tiles inside the file; expected 8")


def test_negative_sizes_are_refused():
    sizes = {278: ("I", [4]), 279: ("i", [-1, -1]), 259: ("H", [8])}
    assert refusal_of(file_of(sizes, [zlib.compress(bytes(160))] * 2))[0] == "corrupt"


def test_tags_that_take_more_than_the_file_are_refused():
    data = bytes(1 << 16)
    tags = tuple((60000 + number, 7, 1 << 16, 8) for number in range(100))
    shared = ifd(*((256, 4, 1, 8), (257, 4, 1, 8)), *tags, data=data)
    assert refusal_of(shared) == ("corrupt", "its tags hold 6,553,608 bytes in 2 values, more than such a file needs")


def test_tags_of_many_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(tiff_module, "MAX_TAG_VALUES", 1000)
    strips = {278: ("I", [1]), 65000: ("H", [1] * 1000)}
    code, detail = refusal_of(file_of(strips, [row.tobytes() for row in VALUES]))
    assert (code, detail) == ("corrupt", "its tags hold 2,094 bytes in 1,028 values, more than such a file needs")


@pytest.mark.parametrize("tag", [(256, 4, 1, 9), (32997, 4, 1, 9), (322, 4, 1, 16)])
def test_a_size_that_is_said_twice_is_refused(tag):
    tags = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1))
    extra = (tag, tag) if tag[0] != 256 else (tag,)
    assert refusal_of(ifd(*tags, *extra, data=bytes(64))) == (
        "corrupt", f"the tag {tag[0]} occurs more than once",
    )  # fmt: skip


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_are_counted(is_big, order):
    pages = np.zeros((3, 16, 16), np.uint8)
    assert count_pages(tiff(pages, bigtiff=is_big, byteorder=order, metadata=None, photometric="minisblack")) == 3


def test_no_more_pages_are_counted_than_anyone_wants_to_know(monkeypatch):
    monkeypatch.setattr(tiff_module, "MAX_PAGES", 2)
    assert probe(tiff(np.zeros((3, 16, 16), np.uint8), metadata=None, photometric="minisblack")).num_frames == 2


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0", b"II+\0\x08\0\0\0" + b"\xff" * 40])
def test_a_file_without_a_page_has_one_as_any_file(content):
    assert count_pages(content) == 1
