"""The images of one training, and the batches that an epoch is made of."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

SHIFT_FRACTION = 0.08  # of the side; airbench shifts 32 px images by 2 px (6 %), Page's recipe by 4 px (12 %)


@dataclass(frozen=True)
class Labelled:
    """Images (num_images, height, width, channels), labels int32 (num_images,), perhaps weights float32 (num_images,).

    The images are an array, or anything that has a shape and reads rows when it is indexed with an array of them.
    """

    images: Any
    labels: NDArray[np.int32]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


class EpochBatches(keras.utils.PyDataset):
    """Shuffled batches of one shape; the remainder of an epoch is left out, a different one each time.

    A set smaller than a batch is repeated to fill one. `augment` is "none" or "shift" (a random translation of each
    image by up to SHIFT_FRACTION of its side, edges repeated).
    """

    def __init__(self, data: Labelled, batch_size: int, augment: str, seed: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.data = data
        self.batch_size = batch_size
        self.reach = shift_reach(data.images.shape[1:3]) if augment == "shift" else 0
        self.rng = np.random.default_rng(seed)
        self.order = self.shuffled()

    def __len__(self) -> int:
        return max(1, len(self.data) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.data.images[rows]
        if self.reach:
            images = shifted(images, self.reach, self.rng)
        labels, weights = self.data.labels[rows], self.data.weights
        return (images, labels) if weights is None else (images, labels, weights[rows])

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self.order = self.shuffled()

    def shuffled(self) -> NDArray[np.int64]:
        """Return the rows of an epoch in a new order, at least one batch of them."""
        order = self.rng.permutation(len(self.data))
        return np.resize(order, max(len(order), self.batch_size))


def shift_reach(sides: tuple[int, ...]) -> int:
    """Return the largest shift in pixels for images (height, width): at least 1."""
    return max(1, round(min(sides) * SHIFT_FRACTION))


def shifted(images: NDArray[Any], reach: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return each image moved by its own random offset in [-reach, reach] pixels, both ways, edges repeated."""
    num_images, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    top, left = rng.integers(0, 2 * reach + 1, (2, num_images))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    return padded[np.arange(num_images)[:, None, None], rows[:, :, None], columns[:, None, :]]
