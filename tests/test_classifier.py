"""Images that a model refuses, in words, and those that it takes."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.bundle import Bundle
from pipeline.card import Calibration, Evaluation, ModelCard
from pipeline.classifier import Classifier, checked_pixels
from pipeline.errors import DataError
from pipeline.records import ImageSpec

GREY, COLOUR = ImageSpec(4, 6, 1), ImageSpec(4, 6, 3)
FLOATS = ImageSpec(4, 6, 1, dtype="float32")
PIXELS = np.arange(48, dtype=np.uint8).reshape(2, 4, 6, 1)
BY_IMAGE = "expected \\(num_images, 4, 6, 1\\)"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS[0], rf"shape \(4, 6, 1\); {BY_IMAGE}; one image needs a batch axis too: images\[np.newaxis\]"),
        (PIXELS[..., 0], rf"shape \(2, 4, 6\); {BY_IMAGE}; grey images need an axis of channels too"),
        (PIXELS[0, ..., 0], rf"shape \(4, 6\); {BY_IMAGE}"),
        (PIXELS[:, :3], rf"shape \(2, 3, 6, 1\); {BY_IMAGE}; resize them before"),
        (PIXELS.reshape(2, 1, 4, 6), rf"shape \(2, 1, 4, 6\); {BY_IMAGE}; the channels come last"),
        (PIXELS / 255, "the pixels are float64 from 0 to 0.184314; expected whole numbers from 0 to 255"),
        (PIXELS.astype(int) + 250, "the pixels are int64 from 250 to 297; expected whole numbers from 0 to 255"),
        (PIXELS.astype(np.int8) - 1, "the pixels are int8 from -1 to 46"),
        (np.where(PIXELS == 3, np.nan, PIXELS), "the pixels are float64 from nan to nan"),
        (PIXELS > 9, "found the type bool"),
        (PIXELS.astype(str), "found the type <U"),
        (PIXELS.astype(complex), "found the type complex128"),
        ([PIXELS[0].tolist(), PIXELS[1, :2].tolist()], "cannot be read as numbers"),
        (7, "cannot be read as numbers"),
        ("photo.png", "cannot be read as numbers"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_was_found_and_what_is_expected(images, message):
    with pytest.raises(DataError, match=message):
        checked_pixels(images, GREY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused_for_a_model_of_floats(bad):
    images = PIXELS.astype(np.float64)
    images[0, 0, 0, 0] = bad
    with pytest.raises(DataError, match="NaN, infinity or numbers beyond float32; expected finite numbers"):
        checked_pixels(images, FLOATS)
    assert checked_pixels(PIXELS / 255, FLOATS).dtype == np.float32


@pytest.mark.parametrize(
    "images", [PIXELS, PIXELS.astype(np.float32), PIXELS.astype(int), PIXELS.astype(object), PIXELS.tolist()]
)
def test_whole_numbers_of_any_type_are_taken(images):
    found = checked_pixels(images, GREY)
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS)


def classifier(is_multi_label=False):
    """Return a classifier whose logits of an image are its first pixel and 0."""
    evaluation = Evaluation(temperature=Calibration(2.0))
    card = ModelCard(("cat", "dog"), GREY, is_multi_label=is_multi_label, evaluation=evaluation)

    def predict(batch):
        return np.stack([batch[:, 0, 0, 0].astype(np.float32) - 9, np.zeros(len(batch))], axis=1)

    return Classifier(Bundle(None, card), SimpleNamespace(predict_on_batch=predict, output_shape=(None, 2)))


def test_a_classifier_gives_labels_and_calibrated_probabilities():
    found = classifier()
    assert found.classes == ("cat", "dog")
    assert found.logits(PIXELS).tolist() == [[-9.0, 0.0], [15.0, 0.0]]
    assert found.labels(PIXELS) == ["dog", "cat"]
    assert found.probabilities(PIXELS)[:, 0] == pytest.approx(1 / (1 + np.exp([4.5, -7.5])))


def test_a_classifier_of_several_labels_gives_all_of_an_image():
    found = classifier(is_multi_label=True)
    assert found.labels(PIXELS) == [("dog",), ("cat", "dog")]


@pytest.mark.parametrize("method", ["logits", "probabilities", "labels"])
def test_a_classifier_refuses_what_does_not_fit(method):
    with pytest.raises(DataError, match="one image needs a batch axis too"):
        getattr(classifier(), method)(PIXELS[0])
