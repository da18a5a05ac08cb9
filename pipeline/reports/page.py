"""How a page is made: templates that escape every value, and pictures as data; what a page shows is not here."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pipeline.text import one_line, printable


def render(template: str, **values: Any) -> str:
    """Return a page: a template of this package with values, of which every text is foreign and escaped.

    The page needs no other file, runs no script and loads nothing: its Content-Security-Policy says so too.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = one_line
    return environment.get_template(template).render(**values)


def harmless(value: Any) -> Any:
    """Return a text without characters that a browser would obey; other values, and markup of a template, stay."""
    return printable(value, kept="") if isinstance(value, str) and not isinstance(value, Markup) else value


def data_uri(pixels: NDArray[Any], longest_side: int | None = None) -> str:
    """Return a PNG as data: URI of pixels (height, width[, channels]) of any depth, shrunk to the longest side given.

    Deep and float pixels are stretched from their darkest to their brightest; of two bands the first is shown, of more
    the first three.
    """
    image = Image.fromarray(_displayable(pixels))
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _displayable(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return uint8 pixels (height, width) or (height, width, 3)."""
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    values = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    stretched = (values - low) * (255 / (high - low) if high > low else 0)
    return np.ascontiguousarray(stretched.round().astype(np.uint8))
