"""How a model's accuracy falls when its test images are moved, noisy, blurred, darker, brighter or compressed; NumPy.

The changes are mild, of the size of severity 1 and 2 of CIFAR-10-C (Hendrycks & Dietterich 2019): what a slightly other
camera does. They say nothing of images of another kind.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.card import Robustness
from pipeline.targets import Labels, is_right

Pixels = NDArray[Any]
Predict = Callable[[Pixels], NDArray[np.float32]]

_SHIFTS = (1, 2, 3, 4)  # pixels
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_NOISE = 0.04  # standard deviation, as a share of the range; CIFAR-10-C, severity 1
_BRIGHTNESS = 0.1  # of the range; CIFAR-10-C, severity 2
_JPEG_QUALITY = 50
NUM_IMAGES = 1000  # at most: the standard error of an accuracy is then 1.6 points or less
FEWEST = 100
_TOTAL_FLOPS = 2e11  # for all passes together: some two seconds on two cores
_NUM_PASSES = 1 + len(_SHIFTS) * len(_DIRECTIONS) + 5


def num_examined(num_images: int, flops: int) -> int:
    """Return how many images are examined, for a network of so many FLOPs an image."""
    affordable = int(_TOTAL_FLOPS / (_NUM_PASSES * max(flops, 1)))
    return min(num_images, NUM_IMAGES, max(affordable, FEWEST))


def examine(predict: Predict, images: Pixels, labels: Labels, scale: float) -> Robustness:
    """Return the accuracy on images (num_images, height, width, channels) as they are and after each change.

    `scale` is the range of the pixels, `pixel_range` of their dtype. Accuracies after a shift are means over four
    directions; a change that the images do not bear (JPEG of deep pixels) is left out.
    """

    def accuracy(changed: Pixels) -> float:
        return float(is_right(predict(changed), labels).mean())

    shifts = {
        str(pixels): float(
            np.mean([accuracy(shifted(images, pixels * down, pixels * right)) for down, right in _DIRECTIONS])
        )
        for pixels in _SHIFTS
        if pixels < min(images.shape[1:3])
    }
    unchanged = accuracy(images)
    return Robustness(
        len(labels), unchanged, shifts, {name: accuracy(changed) for name, changed in changes(images, scale)}
    )


def changes(images: Pixels, scale: float) -> Iterator[tuple[str, Pixels]]:
    """Yield each change of the images, with its name."""
    noise = np.random.default_rng(0).normal(0.0, _NOISE * scale, images.shape)
    yield "noise", like(images + noise, images.dtype)
    yield "blur", like(blurred(images), images.dtype)
    yield "darker", like(images - _BRIGHTNESS * scale, images.dtype)
    yield "brighter", like(images + _BRIGHTNESS * scale, images.dtype)
    if images.dtype == np.uint8 and images.shape[-1] in (1, 3):
        yield "jpeg", np.stack([compressed(image) for image in images])


def pixel_range(dtype: str, std: Sequence[float]) -> float:
    """Return the range of pixels: 255 for 8 bits, else four standard deviations of the training images."""
    return 255.0 if dtype == "uint8" else 4.0 * float(np.mean(std))


def like(values: NDArray[np.float64], dtype: Any) -> Pixels:
    """Return values as pixels of a dtype, rounded and cut to what it holds."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    return values.astype(dtype)


def shifted(images: Pixels, down: int, right: int) -> Pixels:
    """Return images moved by whole pixels; what comes in repeats the edge."""
    rows, columns = (np.arange(side) for side in images.shape[1:3])
    rows, columns = (rows - down).clip(0, len(rows) - 1), (columns - right).clip(0, len(columns) - 1)
    return np.asarray(images[:, rows][:, :, columns])


def blurred(images: Pixels) -> NDArray[np.float64]:
    """Return images after a blur of 1 2 1 in both directions, edges repeated: a Gaussian of 0.7 pixels."""
    values = images.astype(np.float64)
    for axis in (1, 2):
        padded = np.pad(values, [(1, 1) if each == axis else (0, 0) for each in range(4)], mode="edge")
        size = values.shape[axis]
        before, here, after = (padded.take(range(start, start + size), axis) for start in range(3))
        values = (before + 2 * here + after) / 4
    return values


def compressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (height, width, 1 or 3) after JPEG compression."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[:, :, 0]).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    with Image.open(buffer) as opened:
        return np.asarray(opened).reshape(image.shape)
