"""What a served model makes of a request: pixels, a slice at a time and within the limits of its specification."""

import base64

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from pipeline.records import ImageSpec
from pipeline.tracking.pyfunc_loader import Images
from tests.data.encoded import encoded

SPEC = ImageSpec(4, 6, 3, max_megapixels=1, max_megabytes=1)
COLOURS = [(number, 0, 255 - number) for number in range(20)]
FILES = [encoded(Image.new("RGB", (6, 4), colour)) for colour in COLOURS]


def texts(files: list[bytes]) -> list[str]:
    return [base64.b64encode(content).decode() for content in files]


@pytest.mark.parametrize(
    "rows",
    [
        FILES,
        texts(FILES),
        np.array(FILES, object),
        [np.full((4, 6, 3), colour).tolist() for colour in COLOURS],
        np.array([np.full((4, 6, 3), colour, np.uint8) for colour in COLOURS]),
        [np.full((4, 6, 3), colour, np.uint8) for colour in COLOURS],
    ],
    ids=["files", "base64", "array of files", "lists", "array", "list of arrays"],
)
def test_a_slice_is_the_pixels_of_its_rows(rows):
    images = Images(rows, SPEC)
    assert len(images) == 20
    assert images[5:8].dtype == np.uint8
    assert images[5:8].shape == (3, 4, 6, 3)
    assert images[5:8][:, 0, 0].tolist() == [list(colour) for colour in COLOURS[5:8]]


@pytest.mark.parametrize("rows", [[*FILES, b"no picture"], [*texts(FILES), "no base64!"]], ids=["files", "base64"])
def test_only_the_rows_that_are_asked_for_are_decoded(rows):
    images = Images(rows, SPEC)
    assert len(images[0:20]) == 20
    with pytest.raises(DataError, match=r"^row 20: "):
        images[16:21]


@pytest.mark.parametrize("first", [FILES[0], texts(FILES)[0]], ids=["file", "base64"])
@pytest.mark.parametrize("other", [9**9, 1.5, None, [1, 2], bytearray(4)])
def test_what_is_no_file_among_files_is_refused_by_its_kind(first, other):
    with pytest.raises(DataError, match=f"^row 1: found a value of type {type(other).__name__}; expected pixels"):
        Images([first, other], SPEC)[0:2]


def test_base64_of_more_than_the_specification_allows_is_not_unpacked():
    whole = FILES[0] + bytes((1 << 20) - len(FILES[0]))
    assert Images(texts([whole]), SPEC)[0:1].shape == (1, 4, 6, 3)
    longest = 4 * ((1 << 20) // 3 + 1)
    with pytest.raises(DataError, match=r"^row 0: too_large: 1,048,577 bytes; at most 1,048,576 are read"):
        Images(texts([whole + b"\0"]), SPEC)[0:1]
    with pytest.raises(DataError, match=f"^row 0: too_large: {longest + 1:,} characters of base64; at most 1,048,576"):
        Images(["!" * (longest + 1)], SPEC)[0:1]


def test_a_file_of_more_pixels_than_the_specification_allows_is_refused():
    with pytest.raises(DataError, match=r"^row 0: too_large: 2000 x 1000 pixels; at most 1,000,000 are decoded"):
        Images([encoded(Image.new("1", (2000, 1000)))], SPEC)[0:1]


@pytest.mark.parametrize("other", ["x" * 100_000, 10**400, [1]])
def test_what_is_no_number_among_numbers_is_refused_in_little_memory(other):
    rows = np.zeros((2000, 4, 6, 3)).tolist()
    rows[1000][3][5][2] = other
    with pytest.raises(DataError, match="the images cannot be read as numbers"):
        Images(rows, SPEC)[0:2000]


def test_an_array_of_another_shape_is_refused_before_it_is_cut_into_batches():
    spec = ImageSpec(400, 6, 3)
    with pytest.raises(DataError, match=r"shape \(400, 6, 3\); expected \(num_images, 400, 6, 3\); one image needs a"):
        Images(np.zeros((400, 6, 3), np.uint8), spec)
