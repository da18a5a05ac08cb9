"""Broken and odd files: one table of what each is, and what becomes of it; `write_broken` writes them all."""

import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.records import ImageSpec
from tests.data.encoded import encoded, exif, saved, tiff

SPEC = ImageSpec(8, 8, 3)
"""What the outcomes in the table are for."""
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3), np.uint8))
GREY = RGB.convert("L")


@dataclass(frozen=True)
class Case:
    """A file: "ok" or the code of the DecodeError, a note, and its bytes or what makes it at a path."""

    expected: str
    note: str
    make: bytes | Callable[[Path], None]


def animated(kind: str) -> bytes:
    """Return two frames or pages as a file."""
    return encoded(RGB, kind, save_all=True, append_images=[Image.new("RGB", RGB.size, (0, 0, 255))])


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """Return a PNG with any header and any compressed data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(width: int, height: int, bits: int, data: bytes, packing: int = 0, palette: bytes = b"") -> bytes:
    """Return a BMP with any header."""
    offset = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + palette + data


def gif(width: int, height: int, body: bytes) -> bytes:
    """Return a GIF with any screen and a palette of black and white."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3 + body + b";"


def ifd(*tags: tuple[int, int, int, int], following: int = 0, data: bytes = b"") -> bytes:
    """Return a little-endian TIFF with any tags (number, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + data


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """Return a .npy file with any header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text + data


def changed(content: bytes, place: int, new: bytes) -> bytes:
    """Return bytes with some of them replaced."""
    return content[:place] + new + content[place + len(new) :]


def rotten(content: bytes, start: int) -> bytes:
    """Return bytes of which every 50th behind `start` has a flipped bit."""
    damaged = bytearray(content)
    for place in range(start, len(content) - 2, 50):
        damaged[place] ^= 16
    return bytes(damaged)


def lying_jpeg(place: int, new: bytes) -> bytes:
    """Return a JPEG whose frame header is changed: 0 is the precision, 1 the height, 3 the width."""
    return changed(WHOLE["jpg"], WHOLE["jpg"].index(b"\xff\xc0") + 4 + place, new)


def adobe(transform: int) -> bytes:
    """Return a four-channel JPEG of Adobe's colour transform 0 (CMYK) or 2 (YCCK)."""
    content = encoded(RGB.convert("CMYK"), "JPEG")
    return changed(content, content.index(b"Adobe") + 11, bytes([transform]))


def late_exif() -> bytes:
    """Return a PNG whose EXIF data lies behind its pixels."""
    return WHOLE["png"][:-12] + chunk(b"eXIf", exif(6).tobytes()[6:]) + WHOLE["png"][-12:]


def link_to(target: str) -> Callable[[Path], None]:
    """Return what makes a symbolic link."""
    return lambda path: path.symlink_to(path.with_name(target))


def make_socket(path: Path) -> None:
    """Make a socket; a bound one would limit the path to 107 bytes."""
    os.mknod(path, stat.S_IFSOCK | 0o600)


def make_sparse(path: Path) -> None:
    """Make a file that is over the limit of bytes and takes none."""
    path.touch()
    os.truncate(path, (SPEC.max_megabytes << 20) + 1)


def make_bomb(path: Path) -> None:
    """Make a small whole PNG of 1-bit zeros, 20000 x 20000; here, as packing it takes time."""
    packer, row = zlib.compressobj(9), bytes(1 + 20000 // 8)
    data = b"".join(packer.compress(row * 100) for _ in range(200)) + packer.flush()
    path.write_bytes(png(20000, 20000, data, depth=1, colour=0))


def make_unreadable(path: Path) -> None:
    """Make a picture that nobody may read."""
    path.write_bytes(WHOLE["png"])
    path.chmod(0)


WHOLE = {
    "jpg": encoded(RGB, "JPEG", quality=90),
    "png": encoded(RGB, "PNG"),
    "gif": encoded(RGB, "GIF"),
    "bmp": encoded(RGB, "BMP"),
    "webp": encoded(RGB, "WEBP"),
    "tif": encoded(RGB, "TIFF"),
    "npy": saved(np.asarray(RGB)),
}
"""A sound picture of each format, (40, 32, 3)."""
NOISE = np.random.default_rng(1).bytes(3000)
FRAME = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\2\3\x04\0\5\0"
OTHER_FRAME = FRAME[:-4] + b"\x0c\x10\5\0"
"""Pictures of 2 x 2 pixels for a GIF: black, and of black and white."""
NPY_HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }"
TAGS = ((256, 4, 1, 32), (257, 4, 1, 40), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1))
MORE_PAGES = ifd((256, 4, 1, 16), (257, 4, 1, 16), *TAGS[2:], following=1444)[8:] + struct.pack(
    "<HHHII", 1, 254, 4, 1, 0
)
"""Two directories for a TIFF, at bytes 1366 and 1444; the second of them says no sides."""
BANDS = np.random.default_rng(2).integers(0, 256, (40, 32, 5), np.uint8)
NAN = np.full((40, 32), np.nan, np.float32)

NOT_PICTURES = {
    "zero_bytes.jpg": Case("empty", "zero bytes", b""),
    "one_byte.jpg": Case("unsupported", "a single byte", b"\xff"),
    "html.jpg": Case("unsupported", "an error page, saved under the name of a picture", b"<!doctype html><p>404"),
    "text.png": Case("unsupported", "text", b"just text\n"),
    "bm_text.bmp": Case("unsupported", "text that begins like a BMP", b"BMW builds cars, not pictures"),
    "utf16.jpg": Case("unsupported", "text in UTF-16", "not a picture".encode("utf-16")),
    "random.jpg": Case("unsupported", "random bytes", NOISE),
    "nulls.jpg": Case("unsupported", "a file of zeros, as a power cut leaves it", bytes(3000)),
    "svg.jpg": Case("unsupported", "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "eps.jpg": Case("unsupported", "EPS, which Pillow would hand to Ghostscript", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "pdf.jpg": Case("unsupported", "PDF", b"%PDF-1.7\n"),
    "psd.jpg": Case("unsupported", "Photoshop", b"8BPS\0\x01" + bytes(100)),
    "heic.jpg": Case("unsupported", "HEIC, as phones write it", b"\0\0\0\x18ftypheic" + bytes(100)),
    "avif.jpg": Case("unsupported", "AVIF", encoded(RGB, "AVIF")),
    "jp2.jpg": Case("unsupported", "JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)),
    "ico.png": Case("unsupported", "an icon", encoded(RGB, "ICO")),
    "ppm.jpg": Case("unsupported", "PPM", encoded(RGB, "PPM")),
    "zip.jpg": Case("unsupported", "a zip", b"PK\x03\x04" + bytes(100)),
    "gzip.png": Case("unsupported", "a PNG, packed again", zlib.compress(WHOLE["png"], wbits=31)),
    "pickle.npy": Case("unsupported", "a pickle without the header of a .npy file", b"\x80\x04N."),
    "over_64_mib.jpg": Case("too_large", "one byte over the limit, sparse", make_sparse),
}

CUT = {
    f"cut_{percent}.{kind}": Case("corrupt", f"the first {percent} %", content[: len(content) * percent // 100])
    for kind, content in WHOLE.items()
    for percent in (10, 50, 95)
} | {
    f"magic_only.{kind}": Case("corrupt", "the bytes that tell the format, and no more", content[:length])
    for (kind, content), length in zip(WHOLE.items(), (3, 8, 6, 26, 12, 4, 6), strict=True)
}

JPEGS = {
    "no_eoi.jpg": Case("corrupt", "without the end marker", WHOLE["jpg"][:-2]),
    "huge_header.jpg": Case("too_large", "65500 x 65500 in the header", lying_jpeg(1, b"\xff\xdc\xff\xdc")),
    "taller_header.jpg": Case("ok", "80 rows in the header, data for 40", lying_jpeg(1, b"\0\x50")),
    "zero_height.jpg": Case("corrupt", "height 0 in the header", lying_jpeg(1, b"\0\0")),
    "twelve_bit.jpg": Case("corrupt", "12 bits in the header", lying_jpeg(0, b"\x0c")),
    "bit_rot.jpg": Case("ok", "flipped bits in the data: nothing in a JPEG tells", rotten(WHOLE["jpg"], 700)),
    "no_tables.jpg": Case("corrupt", "without quantisation tables", WHOLE["jpg"].replace(b"\xff\xdb", b"\xff\xfe")),
    "garbage_first.jpg": Case("unsupported", "bytes before the picture", b"junk" + WHOLE["jpg"]),
    "zip_appended.jpg": Case("ok", "a picture and a zip in one", WHOLE["jpg"] + b"PK\x03\x04" + NOISE),
    "exif_garbage.jpg": Case("ok", "EXIF data that mean nothing", encoded(RGB, "JPEG", exif=b"Exif\0\0" + NOISE)),
    "exif_cut.jpg": Case("ok", "EXIF data cut off", encoded(RGB, "JPEG", exif=exif(6).tobytes()[:20])),
    "orientation_9.jpg": Case("ok", "an EXIF orientation that does not exist", encoded(RGB, "JPEG", exif=exif(9))),
    "orientation_6.jpg": Case("ok", "lies on its side", encoded(RGB, "JPEG", exif=exif(6))),
    "icc_garbage.jpg": Case("ok", "a colour profile of noise", encoded(RGB, "JPEG", icc_profile=NOISE)),
    "cmyk.jpg": Case("ok", "CMYK", adobe(0)),
    "ycck.jpg": Case("ok", "YCCK", adobe(2)),
    "progressive.jpg": Case("ok", "progressive", encoded(RGB, "JPEG", progressive=True)),
    "mpo.jpg": Case("ok", "two pictures, as stereo cameras and phones write them",
                    animated("MPO")),
}  # fmt: skip

PNGS = {
    "bad_crc_header.png": Case("corrupt", "a wrong checksum of the header", changed(WHOLE["png"], 29, b"\0\0\0\0")),
    "bad_crc_data.png": Case("corrupt", "a flipped bit in the data", changed(WHOLE["png"], 300, b"\0\xff\0")),
    "no_iend.png": Case("ok", "without the end marker; the pixels are whole", WHOLE["png"][:-12]),
    "zero_size.png": Case("corrupt", "0 x 0 pixels", png(0, 0, zlib.compress(b""))),
    "huge_header.png": Case("too_large", "30000 x 30000 in the header, no data", png(30000, 30000, b"")),
    "over_limit.png": Case("too_large", "just over 50 megapixels", png(10000, 5001, b"")),
    "bomb.png": Case("too_large", "400 megapixels in 50 kB", make_bomb),
    "text_bomb.png": Case("corrupt", "a comment of 8 MB, packed", png(1, 1, zlib.compress(bytes(4)),
                          extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(8 << 20))))),
    "bad_filter.png": Case("corrupt", "a filter that does not exist", png(1, 1, zlib.compress(b"\x09\0\0\0"))),
    "bad_colour.png": Case("corrupt", "a colour type that does not exist",
                           png(1, 1, zlib.compress(bytes(4)), colour=5)),
    "short_data.png": Case("ok", "half of the rows, packed as a whole: Pillow leaves the rest black",
                           png(2, 2, zlib.compress(bytes(7)))),
    "no_data.png": Case("corrupt", "no pixels", png(2, 2, b"")),
    "no_palette.png": Case("corrupt", "a palette picture without a palette",
                           png(2, 2, zlib.compress(bytes(6)), colour=3)),
    "icc_garbage.png": Case("ok", "a colour profile of noise", encoded(RGB, "PNG", icc_profile=NOISE)),
    "deep_grey.png": Case("ok", "16-bit grey", encoded(Image.fromarray(BANDS[..., 0] * np.uint16(257)), "PNG")),
    "animated.png": Case("ok", "APNG", animated("PNG")),
    "late_exif.png": Case("ok", "EXIF data behind the pixels", late_exif()),
    "transparent.png": Case("ok", "nothing but transparency",
                            encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG")),
}  # fmt: skip

BMPS_AND_GIFS = {
    "top_down.bmp": Case("ok", "a negative height: the rows begin at the top", bmp(2, -2, 24, bytes(16))),
    "huge_header.bmp": Case("too_large", "100000 x 100000 in the header", bmp(100_000, 100_000, 24, bytes(16))),
    "absurd_header.bmp": Case("too_large", "2**31 - 1 squared", bmp(2**31 - 1, 2**31 - 1, 24, bytes(16))),
    "negative_width.bmp": Case("too_large", "a negative width, read without its sign", bmp(-2, 2, 24, bytes(16))),
    "zero_size.bmp": Case("corrupt", "0 x 0 pixels", bmp(0, 0, 24, b"")),
    "rle.bmp": Case("ok", "run lengths", bmp(4, 2, 8, b"\x04\1\0\0\x04\0\0\1", 1, bytes(4) + b"\xff\xff\xff\0")),
    "rle_outside.bmp": Case("corrupt", "runs that end too early", bmp(99, 99, 8, b"\x04\1\0\1", 1, bytes(8))),
    "one_bit.bmp": Case("ok", "1 bit a pixel", encoded(RGB.convert("1"), "BMP")),
    "offset_outside.bmp": Case("corrupt", "the pixels would lie behind the end",
                               changed(WHOLE["bmp"], 10, b"\xff\xff\xff\x7f")),
    "bad_bits.bmp": Case("corrupt", "17 bits a pixel", bmp(2, 2, 17, bytes(16))),
    "huge_screen.gif": Case("too_large", "a screen of 65535 x 65535", gif(65535, 65535, FRAME)),
    "no_frame.gif": Case("corrupt", "a screen and no picture", gif(8, 8, b"")),
    "no_data.gif": Case("corrupt", "a frame without pixels", gif(8, 8, b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0))),
    "frame_outside.gif": Case("ok", "a frame larger than the screen", changed(WHOLE["gif"], 6, b"\2\0\2\0")),
    "huge_frame.gif": Case("too_large", "a frame of 65535 x 65535 on a small screen",
                           gif(2, 2, b"," + b"\0\0\0\0\xff\xff\xff\xff" + FRAME[9:])),
    "animated.gif": Case("ok", "two frames", animated("GIF")),
    "one_frame.gif": Case("ok", "2 x 2 pixels", gif(2, 2, FRAME)),
    "third_frame_broken.gif": Case("ok", "a third frame whose description is too short",
                                   gif(2, 2, FRAME + OTHER_FRAME + b"!\xf9\1\0\0" + FRAME)),
    "second_frame_cut.gif": Case("ok", "the second of two frames is cut off",
                                 animated("GIF")[:-60]),
}  # fmt: skip

TIFFS_AND_WEBPS = {
    "multi_page.tif": Case("ok", "two pages", animated("TIFF")),
    "third_page_broken.tif": Case("ok", "a third page without sides, behind one of 16 x 16 pixels",
                                  ifd(*TAGS, following=1366, data=bytes(1280) + MORE_PAGES)),
    "loop.tif": Case("ok", "a directory that is its own successor", ifd(*TAGS, following=8, data=bytes(1280))),
    "empty_loop.tif": Case("corrupt", "an empty directory that is its own successor", ifd(following=8)),
    "no_directory.tif": Case("corrupt", "the directory would lie behind the end", b"II*\0\xff\xff\xff\x7f"),
    "zero_size.tif": Case("corrupt", "0 x 0 pixels", ifd((256, 4, 1, 0), (257, 4, 1, 0), *TAGS[2:])),
    "huge_header.tif": Case("too_large", "10**6 x 10**6 pixels",
                            ifd((256, 4, 1, 10**6), (257, 4, 1, 10**6), *TAGS[2:])),
    "huge_bands.tif": Case("too_large", "40 x 10**6 x 99 values in a few bytes",
                           ifd((256, 4, 1, 40), (257, 4, 1, 10**6), *TAGS[2:5], (277, 3, 1, 99))),
    "huge_count.tif": Case("corrupt", "2**31 strip offsets in a few bytes",
                           ifd(*TAGS[:4], (273, 4, 2**31, 8), TAGS[5])),
    "huge_tile.tif": Case("too_large", "one tile of 2**20 x 2**20 for 32 x 40 pixels",
                          ifd(*TAGS[:4], (277, 3, 1, 1), (322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20),
                              (324, 4, 1, 8), (325, 4, 1, 1280), data=bytes(1280))),
    "huge_tile_bands.tif": Case("too_large", "the same, of 5 bands",
                                ifd(*TAGS[:4], (277, 3, 1, 5), (322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20),
                                    (324, 4, 1, 8), (325, 4, 1, 1280), data=bytes(1280))),
    "strip_outside.tif": Case("corrupt", "the pixels would lie behind the end",
                              ifd(*TAGS[:4], (273, 4, 1, 10**9), TAGS[5], (279, 4, 1, 1280))),
    "bad_compression.tif": Case("unsupported", "packed in an unknown way",
                                ifd(*TAGS[:3], (259, 3, 1, 4711), *TAGS[3:], data=bytes(1280))),
    "deep_grey.tif": Case("ok", "16-bit grey", encoded(Image.fromarray(BANDS[..., 0] * np.uint16(257)), "TIFF")),
    "deep_colour.tif": Case("ok", "16-bit colour", tiff(BANDS[..., :3] * np.uint16(257), photometric="rgb")),
    "five_bands.tif": Case("unsupported", "5 bands where 3 are expected", tiff(BANDS, photometric="minisblack",
                           planarconfig="contig")),
    "five_bands_cut.tif": Case("corrupt", "5 bands, cut off", tiff(BANDS, photometric="minisblack",
                               planarconfig="contig")[:3000]),
    "nan.tif": Case("unsupported", "float values, not even numbers", tiff(NAN)),
    "double.tif": Case("unsupported", "64-bit float values", tiff(NAN.astype(np.float64))),
    "complex.tif": Case("unsupported", "complex values", tiff(NAN.astype(np.complex64))),
    "lab.tif": Case("ok", "CIELAB", encoded(RGB.convert("LAB"), "TIFF")),
    "big.tif": Case("ok", "BigTIFF", tiff(np.asarray(RGB), photometric="rgb", bigtiff=True)),
    "orientation_8.tif": Case("ok", "lies on its side", encoded(RGB, "TIFF", exif=exif(8))),
    "animated.webp": Case("ok", "two frames", animated("WEBP")),
    "huge_canvas.webp": Case("too_large", "a canvas of 2**24 x 2**24",
                             b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6),
    "exif_garbage.webp": Case("ok", "EXIF data that mean nothing", encoded(RGB, "WEBP", exif=b"Exif\0\0" + NOISE)),
    "bit_rot.webp": Case("corrupt", "flipped bits", rotten(WHOLE["webp"], 20)),
}  # fmt: skip

ARRAYS = {
    "objects.npy": Case("unsupported", "pickled objects", saved(np.array([[{}]], object), allow_pickle=True)),
    "lying_shape.npy": Case("corrupt", "more pixels in the header than in the file",
                            npy(NPY_HEADER % "(9, 9)", bytes(9))),
    "huge_shape.npy": Case("too_large", "10**9 x 10**9 in the header", npy(NPY_HEADER % "(1000000000, 1000000000)")),
    "negative_shape.npy": Case("corrupt", "a negative height", npy(NPY_HEADER % "(-8, 8)", bytes(64))),
    "zero_size.npy": Case("corrupt", "0 x 8 pixels", saved(np.zeros((0, 8), np.uint8))),
    "one_axis.npy": Case("unsupported", "a list of numbers", saved(np.zeros(8, np.uint8))),
    "four_axes.npy": Case("unsupported", "several pictures in one", saved(np.zeros((2, 8, 8, 3), np.uint8))),
    "code_in_header.npy": Case("corrupt", "a call where the shape should be", npy(NPY_HEADER % "exit(1)", bytes(64))),
    "record.npy": Case("unsupported", "records", saved(np.zeros((8, 8), [("a", "u1"), ("b", "u1")]))),
    "version_9.npy": Case("unsupported", "a version that does not exist", npy(NPY_HEADER % "(8, 8)", bytes(64), 9)),
    "nan.npy": Case("unsupported", "float values, not even numbers", saved(NAN)),
    "fortran.npy": Case("ok", "columns first in memory", saved(np.asfortranarray(BANDS[..., 0]))),
    "many_bands.npy": Case("unsupported", "70000 bands", saved(np.zeros((1, 1, 70_000), np.uint8))),
    "five_bands.npy": Case("unsupported", "5 bands where 3 are expected", saved(BANDS)),
}  # fmt: skip

NAMES = {
    "jpeg_inside.png": Case("ok", "the wrong ending", WHOLE["jpg"]),
    "png_inside.jpg": Case("ok", "the wrong ending", WHOLE["png"]),
    "gif_inside.jpg": Case("ok", "the wrong ending", WHOLE["gif"]),
    "webp_inside.jpeg": Case("ok", "the wrong ending", WHOLE["webp"]),
    "no_ending": Case("ok", "no ending", WHOLE["png"]),
    "new\nline.png": Case("ok", "a line feed in the name", WHOLE["png"]),
    "\x1b[31mred.png": Case("ok", "an escape sequence in the name", WHOLE["png"]),
    "\u202egnp.exe.png": Case("ok", "right-to-left writing in the name", WHOLE["png"]),
    "caf\udce9.png": Case("ok", "a name in Latin-1", WHOLE["png"]),
    "=cmd|x!A0.png": Case("ok", "a name that a spreadsheet would run", WHOLE["png"]),
    "<script>.png": Case("ok", "a name that a browser would run", WHOLE["png"]),
    "x" * 251 + ".png": Case("ok", "the longest name that Linux takes", WHOLE["png"]),
}

SPECIAL = {
    "folder.jpg": Case("not_regular", "a folder", Path.mkdir),
    "fifo.jpg": Case("not_regular", "a pipe that nobody writes into", os.mkfifo),
    "socket.jpg": Case("not_regular", "a socket", make_socket),
    "dangling.jpg": Case("missing", "a link to nothing", link_to("nothing")),
    "itself.jpg": Case("unreadable", "a link to itself", link_to("itself.jpg")),
    "device.jpg": Case("not_regular", "a link to a device", lambda path: path.symlink_to("/dev/zero")),
    "unreadable.png": Case("unreadable", "without permission (root may)", make_unreadable),
}

CASES = NOT_PICTURES | CUT | JPEGS | PNGS | BMPS_AND_GIFS | TIFFS_AND_WEBPS | ARRAYS | NAMES | SPECIAL


def write_broken(folder: Path) -> dict[str, str]:
    """Write all files into a folder and return what becomes of each under SPEC: "ok" or the code of the DecodeError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: case for name, case in CASES.items() if name != "unreadable.png" or os.geteuid() != 0}
    for name, case in written.items():
        if isinstance(case.make, bytes):
            (folder / name).write_bytes(case.make)
        else:
            case.make(folder / name)
    return {name: case.expected for name, case in written.items()}
