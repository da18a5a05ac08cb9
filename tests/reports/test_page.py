"""Every value of a page is escaped, and pictures of any depth become PNG data."""

import base64
import io

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from pipeline.reports.page import data_uri, harmless, render


def picture(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_value_that_is_not_given_is_an_error_and_not_an_empty_place():
    with pytest.raises(UndefinedError, match="'found' is undefined"):
        render("check.html")


def test_control_and_bidirectional_characters_become_escapes():
    assert harmless("a\x00b\u202ec\nd\udcff") == "a\\x00b\\u202ec\\nd\\udcff"
    assert harmless("Größe 犬 🐕") == "Größe 犬 🐕"
    assert harmless(3) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_pixels_stay_as_they_are(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, channels), np.uint8)
    assert np.array_equal(picture(data_uri(pixels)), pixels[..., 0] if channels == 1 else pixels)


def test_deep_and_float_pixels_are_stretched_and_bands_become_colours():
    deep = np.array([[100, 200], [300, 400]], np.uint16)[..., None]
    assert picture(data_uri(deep)).tolist() == [[0, 85], [170, 255]]
    values = np.array([[0.0, np.nan], [np.inf, 2.0]], np.float32)
    assert picture(data_uri(values)).tolist() == [[0, 0], [0, 255]]
    assert picture(data_uri(np.full((4, 4, 7), 9, np.uint16))).shape == (4, 4, 3)
    assert picture(data_uri(np.full((4, 4, 2), 9, np.uint8))).tolist() == [[9] * 4] * 4


def test_large_pixels_shrink_to_the_longest_side():
    assert picture(data_uri(np.zeros((200, 100, 3), np.uint8), 50)).shape == (50, 25, 3)
    assert picture(data_uri(np.zeros((20, 10, 3), np.uint8), 50)).shape == (20, 10, 3)
