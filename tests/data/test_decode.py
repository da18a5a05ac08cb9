"""The one decoder: exact pixels for each rule, and an error code for each file that holds no picture."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import MAX_PIXELS, DecodeError, decode, is_colour, open_image, read_file
from pipeline.records import ImageSpec

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(rows: list) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


def test_rgb_pixels_are_unchanged_at_their_own_size():
    content = encoded(picture([[RED, GREEN, BLUE], [WHITE, RED, GREEN]]))
    assert decode(content, ImageSpec(2, 3, 3)).tolist() == [
        [list(RED), list(GREEN), list(BLUE)],
        [list(WHITE), list(RED), list(GREEN)],
    ]


def test_exif_orientation_6_turns_the_picture_clockwise():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(picture([[RED, GREEN]]), exif=exif)
    assert decode(content, ImageSpec(2, 1, 3)).tolist() == [[list(RED)], [list(GREEN)]]
    content = encoded(picture([[RED], [GREEN]]), exif=exif)
    assert decode(content, ImageSpec(1, 2, 3)).tolist() == [[list(GREEN), list(RED)]]


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
def test_broken_exif_does_not_cost_the_picture(exif):
    content = encoded(Image.new("RGB", (8, 8), (100, 100, 100)), "JPEG", exif=exif)
    assert decode(content, ImageSpec(8, 8, 3))[0, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_its_high_byte(kind):
    values = np.array([[0x0000, 0x00FF, 0x0100], [0x7FFF, 0x80FF, 0xFFFF]], np.uint16)
    content = encoded(Image.fromarray(values), kind)
    assert decode(content, ImageSpec(2, 3, 1))[..., 0].tolist() == [[0, 0, 1], [127, 128, 255]]
    assert decode(content, ImageSpec(2, 3, 3))[1, 1].tolist() == [128, 128, 128]


def test_transparency_lies_over_black():
    rgba = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (255, 255, 255, 128)]], np.uint8)
    pixels = decode(encoded(Image.fromarray(rgba)), ImageSpec(1, 3, 3))
    assert pixels.tolist() == [[[255, 0, 0], [0, 0, 0], [128, 128, 128]]]


def test_transparent_palette_entry_becomes_black():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert decode(encoded(image), ImageSpec(1, 2, 3)).tolist() == [[list(RED), list(GREEN)]]
    assert decode(encoded(image, transparency=0), ImageSpec(1, 2, 3)).tolist() == [[[0, 0, 0], list(GREEN)]]


def test_grey_follows_itu_601_luma():
    assert decode(encoded(picture([[RED, GREEN, BLUE]])), ImageSpec(1, 3, 1))[..., 0].tolist() == [[76, 150, 29]]


def test_cmyk_jpeg_becomes_rgb():
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(decode(content, ImageSpec(8, 8, 3))[0, 0], RED, atol=3)


def test_bilevel_is_black_and_white():
    image = Image.new("1", (2, 1))
    image.putdata([0, 1])
    assert decode(encoded(image), ImageSpec(1, 2, 1))[..., 0].tolist() == [[0, 255]]


def test_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, ImageSpec(4, 4, 3))[0, 0].tolist() == list(RED)


def test_resize_is_antialiased_over_the_whole_picture():
    stripes = np.zeros((8, 8), np.uint8)
    stripes[:, ::2] = 200
    pixels = decode(encoded(Image.fromarray(stripes)), ImageSpec(1, 1, 1))
    np.testing.assert_allclose(pixels, 100, atol=15)  # nearest or plain bilinear gives 0 or 200 on some stripes


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"just text", "unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (encoded(Image.new("RGB", (64, 64), RED), "JPEG")[:400], "corrupt"),
        (encoded(Image.effect_noise((64, 64), 90))[:-900], "corrupt"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "corrupt"),
    ],
)
def test_damaged_content_has_a_code(content, code):
    with pytest.raises(DecodeError) as raised:
        decode(content, ImageSpec(8, 8, 3))
    assert raised.value.code == code


@pytest.mark.parametrize("times", [1, 2, 4])  # Pillow itself warns at 1.8 times and refuses at 3.6 times
def test_too_many_pixels_are_refused_before_they_are_decoded(times):
    content = encoded(Image.new("1", (10_000, times * MAX_PIXELS // 10_000 + 1)))
    with pytest.raises(DecodeError) as raised:
        open_image(content)
    assert raised.value.code == "too_large"


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


@pytest.mark.parametrize(("mode", "expected"), [("L", False), ("1", False), ("RGB", True), ("RGBA", True)])
def test_is_colour_reads_the_mode(mode, expected):
    assert is_colour(Image.new(mode, (2, 2))) is expected


def test_grey_palette_is_not_colour():
    image = Image.new("P", (2, 2))
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    assert is_colour(image) is False
