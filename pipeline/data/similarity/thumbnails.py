"""Grey thumbnails, by which pictures are compared."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMB_SIDE = 16


def thumbnails(images: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return grey thumbnails, uint8 (num_images, 16, 16), of images (num_images, height, width, channels) of one size.

    Grey is the mean of the channels; each cell averages what lies around it, so that a slight shift changes little.
    uint16 is scaled from its whole range, float32 from the range of each picture.
    """
    num_images, height, width, channels = images.shape
    is_float = images.dtype.kind == "f"
    stack: NDArray[Any] = images.reshape(num_images, height, width * channels).astype(
        np.float64 if is_float else np.float32
    )
    if is_float:
        stack = stack - stack.min(axis=(1, 2), keepdims=True)
        stack = stack * (255 / np.maximum(stack.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny))
    rows, columns = _averaging(height), np.repeat(_averaging(width), channels, axis=1).T / np.float32(channels)
    cells = np.matmul(rows, stack).reshape(-1, width * channels) @ columns
    grey = cells.reshape(num_images, THUMB_SIDE, THUMB_SIDE)
    if images.dtype == np.uint16:
        grey /= 257
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


@cache
def _averaging(size: int) -> NDArray[np.float32]:
    """Return weights (16, size) of the pixels of a row in each cell: a tent over it, at least as wide as a pixel."""
    scale = size / THUMB_SIDE
    centres = (np.arange(THUMB_SIDE) + 0.5) * scale
    weights = np.maximum(1 - np.abs(centres[:, None] - np.arange(size) - 0.5) / max(scale, 1), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
