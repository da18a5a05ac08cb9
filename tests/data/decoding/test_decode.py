"""The one decoder: exact pixels for each rule."""

import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.data.decoding.bands import DecodeError, Header
from pipeline.data.decoding.decode import DECODER_VERSION, REDUCE_TOLERANCE, decode, decode_picture, from_array, probe
from pipeline.records import ImageSpec
from tests.data.broken import ifd
from tests.data.encoded import BLUE, GREEN, RED, WHITE, code_of, encoded, exif, picture, random, saved, tiff

CASES = Path(__file__).parents[2] / "cases" / "decode"
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
        (saved(stripes / np.float32(200)), "float32", 1 / 200),
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
    for content in (saved(values), tiff(values, photometric="minisblack", planarconfig="contig")):
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
    assert decode(saved(np.array([[0, 1, 1]], np.float32)), ImageSpec(1, 1, 1, "float32")).item() == pytest.approx(
        2 / 3, 0.2
    )


def test_columns_first_in_memory_are_read_as_rows():
    values = random((4, 5))
    np.testing.assert_array_equal(decode(saved(np.asfortranarray(values)), ImageSpec(4, 5, 1))[..., 0], values)


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_an_array_follow_the_rules_for_files(dtype, channels):
    for values in (random((9, 7)), random((9, 7, 3)), random((9, 7), "uint16")):
        spec = ImageSpec(4, 5, channels, dtype)
        content = encoded(Image.fromarray(values))
        np.testing.assert_array_equal(from_array(values, spec), decode(content, spec))
        np.testing.assert_array_equal(decode(saved(values), spec), decode(content, spec))


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
