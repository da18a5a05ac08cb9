"""The one decoder: exact pixels for each rule, and an error code for each file that holds no picture."""

import hashlib
import importlib.util
import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin

from pipeline.data.decode import (
    DECODER_VERSION,
    ERROR_CODES,
    FORMATS,
    REDUCE_TOLERANCE,
    DecodeError,
    Header,
    array_header,
    decode,
    decode_picture,
    from_array,
    open_image,
    probe,
    read_file,
)
from pipeline.records import ImageSpec
from tests.data.broken import ifd

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CASES = Path(__file__).parents[1] / "cases" / "decode"
# Pixels of stored files, as the beginning of the SHA-256 of their little-endian bytes. A change means new rules, and
# so a new DECODER_VERSION. Nothing here is resized in single precision, which may differ in the last bit.
GOLDEN = [
    ("photo.jpg", ImageSpec(72, 96, 3), "7e599c9a63460927"),
    ("photo.jpg", ImageSpec(72, 96, 1), "4e689ec978467a9c"),
    ("photo.jpg", ImageSpec(50, 60, 3), "fc809fb0214f83a1"),  # whole, resized
    ("photo.jpg", ImageSpec(30, 40, 3), "fbd523df68ccd83f"),  # halved by libjpeg, resized
    ("photo.jpg", ImageSpec(10, 14, 1), "db398ff0b665ad08"),  # a quarter
    ("photo_on_its_side.jpg", ImageSpec(96, 72, 3), "3ec202f745731a07"),
    ("photo_on_its_side.jpg", ImageSpec(40, 30, 3), "750d3d702c10f980"),
    ("grey.jpg", ImageSpec(40, 40, 3), "18a030184268c983"),
    ("cmyk.jpg", ImageSpec(72, 96, 3), "3bb7efa352de6851"),
    ("cmyk.jpg", ImageSpec(20, 20, 1), "4e1506cdbadf5e8e"),
    ("palette.gif", ImageSpec(18, 24, 3), "97a1b15c3e2668aa"),
    ("palette.gif", ImageSpec(9, 9, 1), "f0f8b46a562dacaf"),
    ("alpha.png", ImageSpec(18, 24, 3), "096eecfd36804f28"),
    ("alpha.png", ImageSpec(18, 24, 3, background="#ff8000"), "8b73f164d68b742e"),
    ("alpha.webp", ImageSpec(18, 24, 1, background="#ff8000"), "a5e2a1e26a473861"),
    ("deep_grey.png", ImageSpec(18, 24, 1, "uint16"), "ba491aeadcba792d"),
    ("deep_grey.png", ImageSpec(18, 24, 1), "b04344dfd9bffe52"),
    ("deep_colour.tif", ImageSpec(18, 24, 3, "uint16"), "fa49eec68950bb5e"),
    ("deep_colour.tif", ImageSpec(18, 24, 1, "uint16"), "804d4588d218f3a1"),
    ("deep_colour.tif", ImageSpec(18, 24, 3), "34cd6b4e50027fb1"),
    ("five_bands.tif", ImageSpec(18, 24, 5, "uint16"), "5d15d41ce0e8d254"),
    ("five_bands.tif", ImageSpec(9, 12, 5), "81bb3871fe6881d8"),
    ("float.npy", ImageSpec(18, 24, 1, "float32"), "7680aaaa9b451e8c"),
    ("bilevel.bmp", ImageSpec(18, 24, 1), "8f6ac6ef4f45d6b4"),
    ("bilevel.bmp", ImageSpec(7, 9, 3), "b0d7db1cc5f32a37"),
]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def picture(rows: list) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


def random(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def code_of(content: bytes, spec: ImageSpec) -> str:
    with pytest.raises(DecodeError) as raised:
        decode(content, spec)
    return raised.value.code


@pytest.mark.parametrize(("name", "spec", "digest"), GOLDEN, ids=lambda value: str(value)[:40])
def test_stored_files_have_the_pixels_of_this_version_of_the_rules(name, spec, digest):
    pixels = decode((CASES / name).read_bytes(), spec)
    little = pixels.astype(pixels.dtype.newbyteorder("<"))
    assert (DECODER_VERSION, hashlib.sha256(little.tobytes()).hexdigest()[:16]) == (2, digest)


def test_rgb_pixels_are_unchanged_at_their_own_size():
    content = encoded(picture([[RED, GREEN, BLUE], [WHITE, RED, GREEN]]))
    assert decode(content, ImageSpec(2, 3, 3)).tolist() == [
        [list(RED), list(GREEN), list(BLUE)],
        [list(WHITE), list(RED), list(GREEN)],
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied_to_every_kind_of_picture(orientation):
    data, stored = exif(orientation), random((5, 7, 3))
    deep = stored * np.uint16(257)
    png = encoded(Image.fromarray(stored), exif=data)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(png))))
    spec = ImageSpec(*upright.shape)
    for content in (
        png,
        encoded(Image.fromarray(stored), "WEBP", lossless=True, exif=data),
        encoded(Image.fromarray(stored), "TIFF", exif=data),
        tiff(deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]),
    ):
        pixels, header = decode_picture(content, spec)
        np.testing.assert_array_equal(pixels, upright)
        assert probe(content) == header
        assert (header.height, header.width, header.is_oriented) == (*upright.shape[:2], orientation != 1)
    grey = encoded(Image.fromarray(deep[..., 0]), exif=data)
    pixels = decode(grey, ImageSpec(spec.height, spec.width, 1, "uint16"))
    np.testing.assert_array_equal(pixels[..., 0] >> 8, upright[..., 0])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_and_reduction_of_a_jpeg_go_together(orientation):
    smooth = Image.effect_noise((9, 7), 90).convert("RGB").resize((333, 207), Image.Resampling.BICUBIC)
    stored = encoded(smooth, "JPEG", quality=95, exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    expected = upright.resize((40, 30), Image.Resampling.BILINEAR)
    pixels, header = decode_picture(stored, ImageSpec(30, 40, 3))
    assert (header.width, header.height) == upright.size
    np.testing.assert_allclose(pixels, np.asarray(expected), atol=6)


@pytest.mark.parametrize("data", [b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
def test_broken_exif_does_not_cost_the_picture(data):
    content = encoded(Image.new("RGB", (8, 8), (100, 100, 100)), "JPEG", exif=data)
    assert decode(content, ImageSpec(8, 8, 3))[0, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_kept_whole_or_by_its_high_byte(kind):
    values = np.array([[0x0000, 0x00FF, 0x0100], [0x7FFF, 0x80FF, 0xFFFF]], np.uint16)
    content = encoded(Image.fromarray(values), kind)
    assert decode(content, ImageSpec(2, 3, 1))[..., 0].tolist() == [[0, 0, 1], [127, 128, 255]]
    assert decode(content, ImageSpec(2, 3, 3))[1, 1].tolist() == [128, 128, 128]
    assert decode(content, ImageSpec(2, 3, 1, "uint16"))[..., 0].tolist() == values.tolist()
    assert decode(content, ImageSpec(2, 3, 1, "float32"))[..., 0].tolist() == values.tolist()


def test_white_stays_white_when_bytes_are_widened():
    content = encoded(picture([[0, 1, 255]]))
    assert decode(content, ImageSpec(1, 3, 1, "uint16"))[..., 0].tolist() == [[0, 257, 65535]]
    assert decode(content, ImageSpec(1, 3, 1, "float32"))[..., 0].tolist() == [[0.0, 1.0, 255.0]]


def test_sixteen_bit_grey_whose_white_is_zero_is_inverted():
    content = tiff(np.array([[0, 1, 65535]], np.uint16), photometric="miniswhite")
    assert decode(content, ImageSpec(1, 3, 1, "uint16"))[..., 0].tolist() == [[65535, 65534, 0]]


def test_sixteen_bit_colour_of_a_tiff_is_kept_whole():
    values = random((4, 5, 3), "uint16")
    content = tiff(values, photometric="rgb")
    np.testing.assert_array_equal(decode(content, ImageSpec(4, 5, 3, "uint16")), values)
    np.testing.assert_array_equal(decode(content, ImageSpec(4, 5, 3)), values >> 8)
    luma = values @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(decode(content, ImageSpec(4, 5, 1, "uint16"))[..., 0], luma, atol=1)


@pytest.mark.parametrize("background", ["#000000", "#ffffff", "#102030"])
def test_transparency_lies_over_the_background(background):
    rgba = picture([[(255, 0, 0, 255), (255, 0, 0, 0), (200, 100, 50, 128)]])
    under = [int(background[place : place + 2], 16) for place in (1, 3, 5)]
    half = [round(value * 128 / 255 + low * 127 / 255) for value, low in zip((200, 100, 50), under, strict=True)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        pixels = decode(encoded(rgba, kind, **options), ImageSpec(1, 3, 3, background=background))
        np.testing.assert_allclose(pixels[0], [RED, under, half], atol=1)


def test_transparent_palette_entry_becomes_the_background():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert decode(encoded(image), ImageSpec(1, 2, 3)).tolist() == [[list(RED), list(GREEN)]]
    content = encoded(image, transparency=0)
    assert decode(content, ImageSpec(1, 2, 3)).tolist() == [[[0, 0, 0], list(GREEN)]]
    assert decode(content, ImageSpec(1, 2, 3, background="#0000ff")).tolist() == [[list(BLUE), list(GREEN)]]


@pytest.mark.parametrize(
    ("image", "transparent"),
    [(picture([[7, 9]]), 7), (picture([[(7, 7, 7), (9, 9, 9)]]), (7, 7, 7)), (picture([[7, 9]]).convert("LA"), None)],
    ids=["grey key", "colour key", "grey and alpha"],
)
def test_transparent_grey_becomes_the_luma_of_the_background(image, transparent):
    options = {"transparency": transparent} if transparent is not None else {}
    if image.mode == "LA":
        image.putalpha(picture([[0, 255]]))
    content = encoded(image, **options)
    assert probe(content).has_alpha
    assert decode(content, ImageSpec(1, 2, 1, background="#00ff00"))[..., 0].tolist() == [[150, 9]]


def test_transparent_value_of_sixteen_bit_grey_becomes_the_background():
    content = encoded(Image.fromarray(np.array([[7, 9]], np.uint16)), transparency=7)
    pixels = decode(content, ImageSpec(1, 2, 1, "uint16", background="#ffffff"))
    assert pixels[..., 0].tolist() == [[65535, 9]]


def test_grey_follows_itu_601_luma_in_files_and_arrays():
    row = picture([[RED, GREEN, BLUE]])
    assert decode(encoded(row), ImageSpec(1, 3, 1))[..., 0].tolist() == [[76, 150, 29]]
    assert from_array(np.asarray(row), ImageSpec(1, 3, 1))[..., 0].tolist() == [[76, 150, 29]]
    deep = from_array(np.asarray(row).astype(np.uint16) * 257, ImageSpec(1, 3, 1, "uint16"))
    assert deep[..., 0].tolist() == [[19595, 38469, 7471]]


def test_cmyk_jpeg_becomes_rgb():
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(decode(content, ImageSpec(8, 8, 3))[0, 0], RED, atol=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_lab_tiff_becomes_grey_or_colour(channels):
    colours = picture([[(150, 90, 80), (80, 140, 90), (90, 100, 160), (90, 90, 90)]])
    content = encoded(colours.convert("LAB"), "TIFF")
    expected = decode(encoded(colours), ImageSpec(1, 4, channels))
    np.testing.assert_allclose(decode(content, ImageSpec(1, 4, channels)), expected, atol=8)


def test_bilevel_is_black_and_white():
    image = Image.new("1", (2, 1))
    image.putdata([0, 1])
    assert decode(encoded(image), ImageSpec(1, 2, 1))[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_of_several_frames_is_used_and_they_are_counted(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    pixels, header = decode_picture(content, ImageSpec(4, 4, 3))
    assert pixels[0, 0].tolist() == list(RED)
    assert (header.format, header.num_frames) == (kind, 3)


def test_resize_is_antialiased_over_the_whole_picture():
    stripes = np.zeros((8, 8), np.uint8)
    stripes[:, ::2] = 200
    for content, dtype, scale in (
        (encoded(Image.fromarray(stripes)), "uint8", 1),
        (encoded(Image.fromarray(stripes)), "uint16", 257),
        (npy(stripes / np.float32(200)), "float32", 1 / 200),
    ):
        pixels = decode(content, ImageSpec(1, 1, 1, dtype))
        np.testing.assert_allclose(pixels, 100 * scale, atol=15 * scale)  # without: 0 or 200 on some stripes


def test_resize_in_single_precision_agrees_with_that_of_bytes():
    values = random((31, 23, 3))
    small = decode(encoded(Image.fromarray(values)), ImageSpec(9, 12, 3))
    wide = decode(encoded(Image.fromarray(values)), ImageSpec(9, 12, 3, "uint16"))
    floats = decode(encoded(Image.fromarray(values)), ImageSpec(9, 12, 3, "float32"))
    np.testing.assert_allclose(wide / 257, small, atol=1.01)
    np.testing.assert_allclose(floats, wide / 257, atol=0.01)
    five = np.concatenate([values, values[..., :2]], axis=2)
    bands = decode(tiff(five, photometric="minisblack", planarconfig="contig"), ImageSpec(9, 12, 5))
    np.testing.assert_array_equal(bands[..., :3], small)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": 2}, {"bigtiff": True, "byteorder": ">"}])
def test_bands_of_a_tiff_are_kept_in_their_order(layout, dtype, options):
    values = random((6, 4, 5), dtype)
    stored = values if layout == "contig" else values.transpose(2, 0, 1)
    content = tiff(stored, photometric="minisblack", planarconfig=layout, **options)
    pixels, header = decode_picture(content, ImageSpec(6, 4, 5, dtype))
    np.testing.assert_array_equal(pixels, values)
    assert header == Header("TIFF", 4, 6, 5, values.itemsize * 8, False, False, False, 1)


def test_four_bands_without_a_meaning_are_no_transparency():
    values = random((6, 4, 4))
    content = tiff(values, photometric="rgb", extrasamples=["unspecified"])
    assert (probe(content).bands, probe(content).has_alpha) == (4, False)
    np.testing.assert_array_equal(decode(content, ImageSpec(6, 4, 4)), values)
    assert probe(tiff(values, photometric="rgb")).has_alpha


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "uint32"])
def test_values_without_a_fixed_white_are_kept_as_float_or_refused(dtype):
    values = np.array([[0, 1, 100], [7, 8, 9]], dtype) - np.array(50, dtype) * (dtype != "uint32")
    content = tiff(values)
    np.testing.assert_array_equal(decode(content, ImageSpec(2, 3, 1, "float32"))[..., 0], values)
    assert (probe(content).depth, probe(content).is_float) == (32, dtype.startswith("float"))
    assert code_of(content, ImageSpec(2, 3, 1)) == code_of(content, ImageSpec(2, 3, 1, "uint16")) == "unsupported"


def test_pixels_that_are_not_finite_are_counted():
    values = np.zeros((4, 5, 2), np.float32)
    values[0, 0], values[1, 2, 1] = np.nan, np.inf
    for content in (npy(values), tiff(values, photometric="minisblack", planarconfig="contig")):
        with pytest.raises(DecodeError) as raised:
            decode(content, ImageSpec(4, 5, 2, "float32"))
        assert (raised.value.code, raised.value.detail) == ("corrupt", "2 pixels are not finite")


@pytest.mark.parametrize(("bands", "channels"), [(3, 5), (5, 3), (1, 5), (5, 1), (4, 5), (2, 1)])
def test_other_numbers_of_bands_are_refused(bands, channels):
    with pytest.raises(DecodeError) as raised:
        from_array(random((4, 4, bands)), ImageSpec(4, 4, channels))
    assert raised.value.code == "unsupported"
    assert raised.value.detail.startswith(f"{bands} bands; expected {channels}")


def test_values_too_large_for_single_precision_are_not_finite():
    with pytest.raises(DecodeError) as raised:
        decode(tiff(np.array([[1.0, 1e300]])), ImageSpec(1, 2, 1, "float32"))
    assert raised.value.detail == "1 pixels are not finite"


def test_integers_are_rounded_after_a_resize():
    assert decode(encoded(Image.fromarray(np.array([[0, 1, 1]], np.uint16))), ImageSpec(1, 1, 1, "uint16")).item() == 1
    assert decode(npy(np.array([[0, 1, 1]], np.float32)), ImageSpec(1, 1, 1, "float32")).item() == pytest.approx(
        2 / 3, 0.2
    )


def test_columns_first_in_memory_are_read_as_rows():
    values = random((4, 5))
    np.testing.assert_array_equal(decode(npy(np.asfortranarray(values)), ImageSpec(4, 5, 1))[..., 0], values)


def test_alpha_of_a_tiff_is_seen_also_where_it_is_not_named_or_is_multiplied_in():
    named_by_nobody = ifd(
        (256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 2), (273, 4, 1, 98), (277, 3, 1, 4), (279, 4, 1, 4),
        data=bytes([200, 100, 50, 0]),
    )  # fmt: skip
    assert decode(named_by_nobody, ImageSpec(1, 1, 3, background="#010203")).tolist() == [[[1, 2, 3]]]
    multiplied = tiff(
        np.array([[[100, 255], [0, 0]]], np.uint8), photometric="minisblack", planarconfig="contig",
        extrasamples=["assocalpha"],
    )  # fmt: skip
    assert decode(multiplied, ImageSpec(1, 2, 1, background="#ffffff"))[..., 0].tolist() == [[100, 255]]


def said_to_be_lzw(content: bytes) -> bytes:
    """Return an unpacked TIFF of tifffile whose header says that it is packed by LZW (tag 259 is 5)."""
    place = content.index(b"\x03\x01\x03\0\x01\0\0\0\x01\0") + 8
    return content[:place] + b"\5" + content[place + 1 :]


def test_sixteen_bit_colour_in_a_packing_that_only_pillow_knows_is_its_high_byte():
    content = tiff(random((4, 5, 3), "uint16"), photometric="rgb")
    assert probe(content).depth == 16
    assert probe(said_to_be_lzw(content)) == Header("TIFF", 5, 4, 3, 8, False, False, False, 1)


def test_packed_bands_that_cannot_be_unpacked_say_so():
    with pytest.raises(DecodeError) as raised:
        probe(said_to_be_lzw(tiff(random((6, 4, 5)), photometric="minisblack", planarconfig="contig")))
    assert raised.value.code == "unsupported"
    assert "LZW" in raised.value.detail


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_an_array_follow_the_rules_for_files(dtype, channels):
    for values in (random((9, 7)), random((9, 7, 3)), random((9, 7), "uint16")):
        spec = ImageSpec(4, 5, channels, dtype)
        content = encoded(Image.fromarray(values))
        np.testing.assert_array_equal(from_array(values, spec), decode(content, spec))
        np.testing.assert_array_equal(decode(npy(values), spec), decode(content, spec))


def test_npy_file_says_what_it_holds():
    values = np.zeros((6, 4, 5), np.uint16)
    expected = Header("NPY", 4, 6, 5, 16, False, False, False, 1)
    assert probe(npy(values)) == array_header(values) == expected
    assert array_header(np.zeros((6, 4), np.float32)) == Header("NPY", 4, 6, 1, 32, True, False, False, 1)
    assert probe(npy(np.zeros((6, 4)))) == Header("NPY", 4, 6, 1, 32, True, False, False, 1)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U1"])
def test_raw_arrays_of_other_types_are_refused(dtype):
    with pytest.raises(DecodeError) as raised:
        from_array(np.zeros((4, 4), dtype), ImageSpec(4, 4, 1))
    assert raised.value.code == "unsupported"


def grey_palette() -> Image.Image:
    image = Image.new("P", (3, 2))
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    return image


def colour_palette() -> Image.Image:
    image = Image.new("P", (3, 2))
    image.putpalette([*RED, *GREEN])
    return image


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("L", (3, 2)), "JPEG"), Header("JPEG", 3, 2, 1, 8, False, False, False, 1)),
        (encoded(Image.new("RGB", (3, 2)), "JPEG"), Header("JPEG", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(Image.new("CMYK", (3, 2)), "JPEG"), Header("JPEG", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(Image.new("RGB", (3, 2)), "JPEG", exif=exif(6)), Header("JPEG", 2, 3, 3, 8, False, False, True, 1)),
        (encoded(Image.new("RGB", (3, 2)), "JPEG", exif=exif(9)), Header("JPEG", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(Image.new("RGB", (3, 2)), "TIFF", exif=exif(6)), Header("TIFF", 2, 3, 3, 8, False, False, True, 1)),
        (encoded(Image.new("1", (3, 2))), Header("PNG", 3, 2, 1, 1, False, False, False, 1)),
        (encoded(Image.new("LA", (3, 2))), Header("PNG", 3, 2, 1, 8, False, True, False, 1)),
        (encoded(Image.new("RGBA", (3, 2))), Header("PNG", 3, 2, 3, 8, False, True, False, 1)),
        (encoded(Image.new("I;16", (3, 2))), Header("PNG", 3, 2, 1, 16, False, False, False, 1)),
        (encoded(Image.new("F", (3, 2)), "TIFF"), Header("TIFF", 3, 2, 1, 32, True, False, False, 1)),
        (encoded(Image.new("LAB", (3, 2)), "TIFF"), Header("TIFF", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(grey_palette()), Header("PNG", 3, 2, 1, 8, False, False, False, 1)),
        (encoded(colour_palette()), Header("PNG", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(colour_palette(), "TIFF"), Header("TIFF", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(grey_palette(), "TIFF"), Header("TIFF", 3, 2, 1, 8, False, False, False, 1)),
        (encoded(colour_palette(), "BMP"), Header("BMP", 3, 2, 3, 8, False, False, False, 1)),
        (encoded(colour_palette(), transparency=0), Header("PNG", 3, 2, 3, 8, False, True, False, 1)),
        (encoded(Image.new("RGB", (3, 2)), "MPO", save_all=True, append_images=[Image.new("RGB", (3, 2))]),
         Header("JPEG", 3, 2, 3, 8, False, False, False, 1)),
        (tiff(np.zeros((2, 3, 3), np.uint16), photometric="rgb"), Header("TIFF", 3, 2, 3, 16, False, False, False, 1)),
    ],
)  # fmt: skip
def test_probe_reads_the_header(content, expected):
    assert probe(content) == expected


def test_probe_needs_no_pixels():
    for content in (encoded(colour_palette()), encoded(Image.effect_noise((99, 99), 50), "JPEG")):
        cut = content[: content.index(b"IDAT") + 8 if b"IDAT" in content else 650]
        assert probe(cut) == probe(content)
        assert code_of(cut, ImageSpec(8, 8, 3)) == "corrupt"


def test_probe_reads_an_orientation_that_stands_in_xmp_data_and_needs_no_pixels():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    content = encoded(Image.new("RGB", (3, 2)), pnginfo=text)
    header = probe(content[: content.index(b"IDAT") + 8])
    assert (header.width, header.height, header.is_oriented) == (2, 3, True)


def sample_photo(name: str) -> Image.Image:
    folder = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    return Image.open(f"{folder}/datasets/images/{name}").convert("RGB")


def whole_then_resized(content: bytes, spec: ImageSpec) -> np.ndarray:
    image = Image.open(io.BytesIO(content)).convert("RGB" if spec.channels == 3 else "L")
    return np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)).reshape(spec.shape)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "target", "tolerance"),
    [(224, 96, REDUCE_TOLERANCE), (227, 96, REDUCE_TOLERANCE), (512, 64, 1), (1000, 64, 1)],
)
def test_reduced_jpeg_is_close_to_full_decode_and_resize(name, channels, size, target, tolerance):
    photo, spec = sample_photo(name), ImageSpec(target, target, channels)
    pictures = [photo.resize((size, size), Image.Resampling.BILINEAR)]
    if size < 400:
        pictures.append(photo.crop((200, 100, 200 + size, 100 + size)))  # all the detail of the camera
    for image in pictures:
        content = encoded(image, "JPEG", quality=90)
        difference = np.abs(decode(content, spec).astype(int) - whole_then_resized(content, spec))
        assert 0 < difference.mean() <= tolerance  # 0 if it was not reduced


@pytest.mark.parametrize("target", [100, 112, 150])
def test_jpeg_less_than_what_the_tolerance_needs_is_decoded_whole(target):
    content = encoded(sample_photo("china.jpg").resize((224, 224)), "JPEG", quality=90)
    spec = ImageSpec(target, target, 3)
    np.testing.assert_array_equal(decode(content, spec), whole_then_resized(content, spec))


def test_mean_grey_of_a_reduced_jpeg_of_odd_sides_is_kept():
    gradient = Image.linear_gradient("L").resize((203, 205))
    content = encoded(gradient, "JPEG", quality=95)
    spec = ImageSpec(16, 16, 1)
    np.testing.assert_allclose(decode(content, spec), whole_then_resized(content, spec), atol=2)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"just text", "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (encoded(Image.new("RGB", (64, 64), RED), "JPEG")[:400], "corrupt"),
        (encoded(Image.effect_noise((64, 64), 90))[:-900], "corrupt"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "unsupported"),
    ],
)
def test_damaged_content_has_a_code(content, code):
    assert code_of(content, ImageSpec(8, 8, 3)) == code
    assert code in ERROR_CODES


@pytest.mark.parametrize("megapixels", [50, 100, 200])  # Pillow itself warns at 89 and refuses at 179
def test_too_many_pixels_are_refused_before_they_are_decoded(megapixels):
    content = encoded(Image.new("1", (10_000, megapixels * 100 + 1)))
    for refuse in (open_image, probe, lambda content: decode(content, ImageSpec(8, 8, 1))):
        with pytest.raises(DecodeError) as raised:
            refuse(content)
        assert raised.value.code == "too_large"


def test_limits_are_those_of_the_specification():
    content = encoded(Image.new("1", (2000, 1000)))
    assert code_of(content, ImageSpec(8, 8, 1, max_megapixels=1)) == "too_large"
    assert decode(content, ImageSpec(8, 8, 1, max_megapixels=2)).shape == (8, 8, 1)
    with pytest.raises(DecodeError, match="too_large"):
        probe(content, max_megapixels=1)
    large = content + bytes(1 << 20)
    assert code_of(large, ImageSpec(8, 8, 1, max_megabytes=1)) == "too_large"
    assert code_of(npy(np.zeros((1000, 1001), np.uint8)), ImageSpec(8, 8, 1, max_megapixels=1)) == "too_large"
    assert code_of(npy(np.zeros((1000, 1000, 5), np.uint8)), ImageSpec(8, 8, 5, max_megapixels=1)) == "too_large"


def test_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(DecodeError) as raised:
        read_file(f"{tmp_path}/a.png", max_megabytes=1)
    assert raised.value.code == "too_large"
    assert len(read_file(f"{tmp_path}/a.png", max_megabytes=2)) == (1 << 20) + 1


def test_formats_are_told_by_content():
    image = Image.new("RGB", (9, 9), BLUE)
    for kind in FORMATS:
        pixels, header = decode_picture(encoded(image, kind), ImageSpec(9, 9, 3))
        assert header.format == kind
        np.testing.assert_allclose(pixels[4, 4], BLUE, atol=3)


def test_files_that_are_no_regular_files_have_a_code_and_never_block(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "zero.png").touch()
    expected = {
        "fifo.png": "not_regular",
        "folder.png": "not_regular",
        "dangling.png": "missing",
        "loop.png": "unreadable",
        "zero.png": "empty",
        "zero.png/inside.png": "missing",
        "nul\0.png": "missing",
        "x" * 300: "unreadable",
    }
    found = {}
    for name in expected:
        with pytest.raises(DecodeError) as raised:
            read_file(f"{tmp_path}/{name}")
        found[name] = raised.value.code
    assert found == expected


def test_socket_is_not_regular(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket takes at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.png")
        with pytest.raises(DecodeError) as raised:
            read_file("s.png")
    assert raised.value.code == "not_regular"


def test_reading_a_folder_leaks_no_descriptor(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(DecodeError):
            read_file(str(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
