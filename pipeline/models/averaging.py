"""Flip averaging: the mean of what a network says of an image and of its mirror image; its model is in `build`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Flipped:
    """Images (num_images, height, width, channels), read as slices or rows, with left and right changed."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        return np.asarray(self.images[rows])[:, :, ::-1]


def both_answers(
    predict: Callable[[Any], NDArray[np.float32]], images: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits (num_images, num_classes) for images, and the means of these and those for the mirror images."""
    alone = predict(images)
    return alone, np.asarray((alone + predict(Flipped(images))) / 2, np.float32)
