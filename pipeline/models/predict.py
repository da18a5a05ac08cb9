"""Logits of many images in batches of one fixed shape; nothing here trains."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def predict_logits(
    model: Any, images: Any, batch_size: int = 256, on_batch: Callable[[], None] = lambda: None
) -> NDArray[np.float32]:
    """Return class logits, float32 (num_images, num_classes), for images (num_images, height, width, channels).

    Every batch has the same shape (the last one is padded with its own first image), so that one program is compiled.
    `on_batch` is called before each.
    """
    if len(images) == 0:
        return np.zeros((0, model.output_shape[-1]), np.float32)
    batch_size = min(batch_size, len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        on_batch()
        batch = np.asarray(images[start : start + batch_size])
        num_real = len(batch)
        if num_real < batch_size:
            padding = np.repeat(batch[:1], batch_size - num_real, axis=0)
            batch = np.concatenate([batch, padding])
        parts.append(np.asarray(model.predict_on_batch(batch), np.float32)[:num_real])
    return np.concatenate(parts)
