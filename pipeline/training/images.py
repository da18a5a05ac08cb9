"""The images of one training, and the batches that an epoch is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.space.augmentation import Augmentation
from pipeline.targets import Labels
from pipeline.training.distillation import beside


@dataclass(frozen=True)
class Labelled:
    """Images (num_images, height, width, channels), labels as in `targets`, perhaps weights float32 (num_images,).

    The images are an array, or anything that has a shape and reads rows when it is indexed with an array of them.
    `taught` is what a better network says of them, as `distillation.lesson` returns it.
    """

    images: Any
    labels: Labels
    weights: NDArray[np.float32] | None = None
    taught: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Steps:
    """How a training is cut: `num_batches` an epoch, each fed in `num_parts` parts of `part_size` images.

    A step takes one part; the weights change after the last part of a batch.
    """

    num_epochs: int
    num_batches: int
    num_parts: int
    part_size: int

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.num_batches * self.num_parts

    @property
    def num_updates(self) -> int:
        """Changes of the weights in the whole training."""
        return self.num_epochs * self.num_batches


def plan_steps(samples: int, num_images: int, batch_size: int, num_micro_batches: int = 1) -> Steps:
    """Return the steps in which `samples` images are seen, out of a set of `num_images`.

    A batch is cut into at least `num_micro_batches` equal parts: into the next number that divides it.
    """
    num_epochs = max(1, round(samples / num_images))
    num_batches = max(1, round(samples / (num_epochs * batch_size)))
    wanted = min(num_micro_batches, batch_size)
    num_parts = next(number for number in range(wanted, batch_size + 1) if batch_size % number == 0)
    return Steps(num_epochs, num_batches, num_parts, batch_size // num_parts)


class EpochBatches(keras.utils.PyDataset):
    """Shuffled batches of one shape, or the parts of them.

    What is random in epoch `epoch` (from 0) follows from the seed and the epoch alone. A set that is smaller than the
    images of an epoch is repeated; what an epoch has no room for is left out, something different each time. Shifts are
    translations of each image, edges repeated. Half of the images are flipped in
    the first epoch, the others in the next, and so on.
    `on_step(epoch, step)` is called before a step is fetched, perhaps in another thread and some steps ahead of the
    training. `start` is (first epoch, steps that each epoch leaves out at its start).
    """

    def __init__(
        self,
        data: Labelled,
        steps: Steps,
        augmentation: Augmentation,
        seed: int,
        on_step: Callable[[int, int], None] = lambda epoch, step: None,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.data = data
        self.steps = steps
        self.augmentation = augmentation
        self.reach = shift_reach(data.images.shape[1:3], augmentation.shift) if augmentation.shift else 0
        self.hole = round(min(data.images.shape[1:3]) * augmentation.cutout)
        self.seed = seed
        self.on_step = on_step
        self.next_epoch, self.skip = start
        self.draw(self.next_epoch)  # Keras looks at some batches before the first epoch begins

    def on_epoch_begin(self) -> None:
        """Go to the next epoch."""
        self.draw(self.next_epoch)
        self.next_epoch += 1

    def draw(self, epoch: int) -> None:
        """Draw the order of an epoch, and what is done to its images."""
        rng = np.random.default_rng((self.seed, epoch))
        num_rows = self.steps.per_epoch * self.steps.part_size
        self.epoch = epoch
        self.order = np.resize(rng.permutation(len(self.data)), num_rows)
        self.offsets = rng.integers(0, 2 * self.reach + 1, (2, num_rows), np.int16)
        self.is_flipped = (_first_flips(self.seed, len(self.data))[self.order] + epoch) % 2 == 1
        self.holes = rng.random((2, num_rows))

    def __len__(self) -> int:
        return self.steps.per_epoch - self.skip

    def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
        step, size = index + self.skip, self.steps.part_size
        self.on_step(self.epoch, step)
        place = slice(step * size, (step + 1) * size)
        rows = self.order[place]
        images = self.data.images[rows]
        if self.reach:
            images = shifted(images, self.reach, self.offsets[:, place])
        if self.augmentation.flips:
            flip(images, self.is_flipped[place])
        if self.hole:
            cut_out(images, self.hole, self.holes[:, place])
        weights, taught = self.data.weights, self.data.taught
        given = self.data.labels[rows]
        labels = given if taught is None else beside(given, taught[rows])
        return (images, labels) if weights is None else (images, labels, weights[rows])


def shift_reach(sides: tuple[int, ...], part: float) -> int:
    """Return the largest shift in pixels for images (height, width), a part of their side: at least 1."""
    return max(1, round(min(sides) * part))


def shifted(images: NDArray[Any], reach: int, offsets: NDArray[np.int16]) -> NDArray[Any]:
    """Return each image moved by its own offset, edges repeated.

    `offsets` (2, num_images) are down and right from -reach, so `reach` leaves an image where it is.
    """
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved = np.empty_like(images)
    for target, source, top, left in zip(moved, padded, *offsets.tolist(), strict=True):
        target[...] = source[top : top + height, left : left + width]
    return moved


def _first_flips(seed: int, num_images: int) -> NDArray[np.int64]:
    """Return which images begin flipped, 0 or 1 (num_images,)."""
    return np.random.default_rng((seed, num_images)).integers(0, 2, num_images)


def flip(images: NDArray[Any], is_flipped: NDArray[np.bool_]) -> None:
    """Turn some images left to right, in place."""
    images[is_flipped] = images[is_flipped, :, ::-1]


def cut_out(images: NDArray[Any], side: int, places: NDArray[np.float64]) -> None:
    """Set a square of each image to about its mean, in place; the middle is at `places` (2, num_images), in [0, 1)."""
    _, height, width, _ = images.shape
    tops, lefts = (places * [[height], [width]]).astype(int) - side // 2
    means = images[:, ::2, ::2].mean(axis=(1, 2), dtype=np.float32, keepdims=True).astype(images.dtype)
    for image, mean, top, left in zip(images, means, tops.tolist(), lefts.tolist(), strict=True):
        image[max(0, top) : top + side, max(0, left) : left + side] = mean
