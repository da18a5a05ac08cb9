"""A model that is the mean of several gives the mean of their logits, from a file that loads."""

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


@pytest.mark.parametrize("is_flip_averaged", [False, True])
def test_the_saved_model_gives_the_mean_of_all(tmp_path, is_flip_averaged):
    import keras

    from pipeline.models.averaging import both_answers
    from pipeline.models.build import Pixels, averaged, build
    from pipeline.search.worker.final import saved_model

    pixels, models = Pixels((8, 12, 3), "uint8", (0.4,) * 3, (0.2,) * 3), []
    for filters in (8, 8, 16):
        keras.utils.clear_session()  # as the next training does: layers of all have the same names
        models.append(build({"depth": 2, "filters": filters}, pixels, 4))
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 12, 3)).astype("uint8")
    said = [both_answers(lambda some, model=model: predict_logits(model, some), images) for model in models]
    expected = np.mean([each[is_flip_averaged] for each in said], axis=0)
    file = tmp_path / "model" / "model.keras"
    saved = saved_model(averaged(models), is_flip_averaged, file)
    np.testing.assert_allclose(predict_logits(saved, images), expected, rtol=1e-4, atol=1e-4)
    assert saved.count_params() == sum(model.count_params() for model in models)
    assert list(foreign_classes(json.loads(zipfile.ZipFile(file).read("config.json")))) == []
    card = ModelCard(tuple("abcd"), ImageSpec(8, 12, 3, "uint8"))
    loaded = load_model(write_bundle(file.parent, card))  # with all checks of a model from elsewhere
    np.testing.assert_allclose(predict_logits(loaded, images), expected, rtol=1e-4, atol=1e-4)
