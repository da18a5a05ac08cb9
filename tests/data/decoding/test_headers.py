"""What the decoder says of a file without its pixels: its header, or the code of why it holds no picture."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.data.decoding.bands import DecodeError, Header, array_header
from pipeline.data.decoding.content import read_file
from pipeline.data.decoding.decode import ERROR_CODES, FORMATS, decode, decode_picture, from_array, open_image, probe
from pipeline.records import ImageSpec
from tests.data.broken import png
from tests.data.encoded import BLUE, GREEN, RED, code_of, encoded, exif, random, saved, tiff


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


def test_npy_file_says_what_it_holds():
    values = np.zeros((6, 4, 5), np.uint16)
    expected = Header("NPY", 4, 6, 5, 16, False, False, False, 1)
    assert probe(saved(values)) == array_header(values) == expected
    assert array_header(np.zeros((6, 4), np.float32)) == Header("NPY", 4, 6, 1, 32, True, False, False, 1)
    assert probe(saved(np.zeros((6, 4)))) == Header("NPY", 4, 6, 1, 32, True, False, False, 1)


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
    content = png(10_000, megapixels * 100 + 1, b"", depth=1, colour=0)  # to decode it would say "corrupt"
    for refuse in (open_image, probe, lambda content: decode(content, ImageSpec(8, 8, 1))):
        with pytest.raises(DecodeError) as raised:
            refuse(content)
        assert raised.value.code == "too_large"
        assert megapixels != 50 or "at most 50,000,000 are decoded" in raised.value.detail
        assert megapixels != 200 or "more than 178 megapixels" in raised.value.detail


def test_a_row_of_an_array_with_too_many_pixels_is_refused():
    spec = ImageSpec(8, 8, 1, max_megapixels=1)
    assert from_array(np.zeros((1000, 1000), np.uint8), spec).shape == (8, 8, 1)
    with pytest.raises(DecodeError) as caught:
        from_array(np.zeros((1000, 1001), np.uint8), spec)
    assert caught.value.code == "too_large"


def test_limits_are_those_of_the_specification():
    content = encoded(Image.new("1", (2000, 1000)))
    assert code_of(content, ImageSpec(8, 8, 1, max_megapixels=1)) == "too_large"
    assert decode(content, ImageSpec(8, 8, 1, max_megapixels=2)).shape == (8, 8, 1)
    with pytest.raises(DecodeError, match="too_large"):
        probe(content, max_megapixels=1)
    large = content + bytes(1 << 20)
    assert code_of(large, ImageSpec(8, 8, 1, max_megabytes=1)) == "too_large"
    assert code_of(saved(np.zeros((1000, 1001), np.uint8)), ImageSpec(8, 8, 1, max_megapixels=1)) == "too_large"
    assert code_of(saved(np.zeros((1000, 1000, 5), np.uint8)), ImageSpec(8, 8, 5, max_megapixels=1)) == "too_large"


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
