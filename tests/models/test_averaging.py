"""A flip-averaged model gives the mean of the logits for an image and its mirror image, from a file that loads."""

import json
import zipfile

import numpy as np
import pytest

from pipeline.bundle import load_model, write_bundle
from pipeline.card import ModelCard
from pipeline.models.allowed import foreign_classes
from pipeline.models.predict import predict_logits
from pipeline.records import ImageSpec

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_saved_model_gives_the_mean_of_both(tmp_path, dtype):
    from pipeline.models.averaging import Flipped
    from pipeline.models.build import Pixels, build
    from pipeline.search.worker.final import saved_model

    model = build({"depth": 2, "filters": 8}, Pixels((8, 12, 3), dtype, (0.4,) * 3, (0.2,) * 3), 4)
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 12, 3)).astype(dtype)
    expected = (predict_logits(model, images) + predict_logits(model, images[:, :, ::-1])) / 2
    file = tmp_path / "model" / "model.keras"
    saved = saved_model(model, True, file)
    np.testing.assert_allclose(predict_logits(saved, images), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(predict_logits(saved, Flipped(images)), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(predict_logits(model, images) - expected).max() > 1e-3  # one view says something else
    assert saved.count_params() == model.count_params()
    assert list(foreign_classes(json.loads(zipfile.ZipFile(file).read("config.json")))) == []
    card = ModelCard(tuple("abcd"), ImageSpec(8, 12, 3, dtype))
    loaded = load_model(write_bundle(file.parent, card))  # with all checks of a model from elsewhere
    np.testing.assert_allclose(predict_logits(loaded, images), expected, rtol=1e-4, atol=1e-4)
    alone = saved_model(model, False, file)
    np.testing.assert_allclose(predict_logits(alone, images), predict_logits(model, images), rtol=1e-4, atol=1e-4)
