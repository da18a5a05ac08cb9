"""Logits come in the order of the images, in batches of one shape."""

import numpy as np
import pytest

from pipeline.models.predict import predict_logits


class Sums:
    """A model whose one logit is the sum of the pixels."""

    output_shape = (None, 1)

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, images):
        self.shapes.append(images.shape)
        return images.sum(axis=(1, 2, 3))[:, None]


@pytest.mark.parametrize(("num_images", "num_batches"), [(0, 0), (1, 1), (4, 1), (10, 3)])
def test_each_batch_is_told_and_has_one_shape(num_images, num_batches):
    model, told = Sums(), []
    images = np.arange(num_images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    logits = predict_logits(model, images, batch_size=4, on_batch=lambda: told.append(len(model.shapes)))
    assert logits.tolist() == [[float(number)] for number in range(num_images)]
    assert told == list(range(num_batches))
    assert len(set(model.shapes)) == min(num_batches, 1)
