"""A finished model for Python: pixels in, logits, probabilities and labels out; images that do not fit are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Bundle, load_model, read_bundle
from pipeline.errors import DataError
from pipeline.models.predict import predict_logits
from pipeline.records import ImageSpec
from pipeline.targets import answers, probabilities


class Classifier:
    """A loaded model. `images` are pixels (num_images, height, width, channels), as they stand in files: not scaled."""

    def __init__(self, bundle: Bundle, model: Any) -> None:
        self.bundle = bundle
        self.model = model

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of logits and probabilities."""
        return self.bundle.classes

    def logits(self, images: Any) -> NDArray[np.float32]:
        """Return class logits, float32 (num_images, num_classes).

        Raises:
            DataError: the images do not fit the model; the message says what was found and what is expected.
        """
        return predict_logits(self.model, checked_pixels(images, self.bundle.image))

    def probabilities(self, images: Any) -> NDArray[np.float32]:
        """Return the probability of each class, calibrated as in `pipeline score`, float32 (num_images, num_classes).

        Raises:
            DataError: the images do not fit the model.
        """
        card = self.bundle.card
        return probabilities(self.logits(images), card.is_multi_label, card.temperature)

    def labels(self, images: Any) -> list[str] | list[tuple[str, ...]]:
        """Return a class for each image; of a multi-label model a tuple of those of a probability of at least a half.

        Raises:
            DataError: the images do not fit the model.
        """
        chosen = answers(self.logits(images), self.bundle.card.is_multi_label)
        if self.bundle.card.is_multi_label:
            return [tuple(self.classes[number] for number in np.flatnonzero(row)) for row in chosen]
        return [self.classes[number] for number in chosen]


def load_classifier(folder: Path) -> Classifier:
    """Return the model in a folder with model.json, such as the `model` folder of a study.

    Raises:
        ModelRefused: there is no sound model.
    """
    bundle = read_bundle(folder)
    return Classifier(bundle, load_model(bundle))


def checked_pixels(images: Any, spec: ImageSpec) -> NDArray[Any]:
    """Return images as the network takes them: (num_images, height, width, channels) of the specification's dtype.

    Numbers of another type will do if they are values of that dtype: JSON knows one kind of number.

    Raises:
        DataError: they are not numbers, or have another shape or range; the message says what was found.
    """
    numbers = _numbers(images)
    refuse_shape(numbers.shape, spec)
    if spec.dtype == "float32":
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32, copy=False)
        if not np.isfinite(numbers).all():
            raise DataError("the pixels hold NaN, infinity or numbers beyond float32; expected finite numbers")
        return numbers
    if numbers.dtype != spec.dtype:
        highest = np.iinfo(spec.dtype).max
        is_right = (numbers >= 0) & (numbers <= highest) & (numbers == np.floor(numbers))
        if not is_right.all():
            raise DataError(
                f"the pixels are {numbers.dtype} from {numbers.min():g} to {numbers.max():g}; expected whole numbers "
                f"from 0 to {highest} ({spec.dtype}), as they stand in files; do not scale them before"
            )
    return numbers.astype(spec.dtype, copy=False)


def refuse_shape(shape: Sequence[int], spec: ImageSpec) -> None:
    """Check the shape of all images, or of a batch.

    Raises:
        DataError: it is not (num_images, height, width, channels) of the specification; the message says what to do.
    """
    found = tuple(shape)
    if found[1:] == spec.shape:
        return
    advice = "resize them before"
    if found == spec.shape:
        advice = "one image needs a batch axis too: images[np.newaxis]"
    elif spec.channels == 1 and found[1:] == spec.shape[:2]:
        advice = "grey images need an axis of channels too: images[..., np.newaxis]"
    elif found[1:] == (spec.channels, *spec.shape[:2]):
        advice = "the channels come last: np.moveaxis(images, 1, -1)"
    expected = ", ".join(map(str, ("num_images", *spec.shape)))
    raise DataError(f"the images have the shape {found}; expected ({expected}); {advice}")


def _numbers(images: Any) -> NDArray[Any]:
    expected = "expected pixels (num_images, height, width, channels)"
    try:
        # If NumPy may choose the type, one text among the numbers turns all into texts as long as it.
        values = np.asarray(images) if hasattr(images, "__array__") else np.asarray(list(images), np.float64)
        numbers = values.astype(np.float64) if values.dtype.kind == "O" else values
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the images cannot be read as numbers ({error}); {expected}") from error
    if numbers.dtype.kind not in "uif":
        raise DataError(f"the images cannot be read as numbers: found the type {numbers.dtype}; {expected}")
    return numbers
