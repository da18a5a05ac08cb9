"""What mlflow.pyfunc runs for our models: images in, a table of labels out; never opens a path."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Bundle, load_model, read_bundle
from pipeline.classifier import checked_pixels, refuse_shape
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.decode import decode
from pipeline.errors import DataError
from pipeline.models.predict import predict_logits
from pipeline.records import ImageSpec
from pipeline.targets import answers, probabilities

_COLUMN = "image"
_EXPECTED = "expected pixels (num_images, height, width, channels), encoded image files, or these in base64"


class ImageClassifier:
    """A loaded bundle behind the interface of mlflow.pyfunc."""

    def __init__(self, bundle: Bundle, model: Any) -> None:
        self.bundle = bundle
        self.model = model

    def predict(self, model_input: Any, params: object = None) -> Any:
        """Return a DataFrame of label, probability and probabilities (by class), one row an image.

        Of a multi-label model label and probability are lists: the classes of a probability of at least a half.

        Raises:
            DataError: a row holds no image.
        """
        import pandas as pd

        logits = predict_logits(self.model, Images(_images_in(model_input), self.bundle.image))
        has_several, classes = self.bundle.card.is_multi_label, self.bundle.classes
        shares = probabilities(logits, has_several, self.bundle.card.temperature).astype(np.float64).tolist()
        chosen = answers(logits, has_several)
        if has_several:
            numbers = [np.flatnonzero(row).tolist() for row in chosen]
            label: list[Any] = [[classes[number] for number in own] for own in numbers]
            probability: list[Any] = [[row[number] for number in own] for row, own in zip(shares, numbers, strict=True)]
        else:
            label = [classes[number] for number in chosen]
            probability = [row[number] for row, number in zip(shares, chosen, strict=True)]
        return pd.DataFrame({"label": label, "probability": probability, "probabilities": shares})


def _load_pyfunc(path: str) -> ImageClassifier:
    """Load the model for mlflow.pyfunc; the name is MLflow's."""
    bundle = read_bundle(Path(path))
    return ImageClassifier(bundle, load_model(bundle))


def _images_in(model_input: Any) -> Any:
    """Return the images of an array, a list, or the column `image` (or the only one) of a table or dict."""
    if not hasattr(model_input, "keys"):
        return model_input
    names = list(model_input.keys())
    if _COLUMN not in names and len(names) != 1:
        raise DataError(f"the input has the columns {names}; expected {_COLUMN!r}; name the column of the images so")
    column = model_input[_COLUMN if _COLUMN in names else names[0]]
    return column.tolist() if hasattr(column, "to_numpy") else column


class Images:
    """The images of a request; a slice of it is pixels (num_images, height, width, channels).

    What a request decodes to is never held as a whole: a few KB may become gigabytes.
    """

    def __init__(self, images: Any, spec: ImageSpec) -> None:
        self.rows: Any = images.ravel() if isinstance(images, np.ndarray) and images.ndim < 3 else images
        self.spec = spec
        if isinstance(self.rows, np.ndarray) and self.rows.ndim > 1 and len(self.rows):  # before it is cut into batches
            refuse_shape(self.rows.shape, spec)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Return the pixels of rows that are pixels, encoded files or base64 text.

        Raises:
            DataError: a row is none of these, or has another size.
        """
        rows = self.rows[part]
        if not isinstance(self.rows[0], (bytes, str)):
            return checked_pixels(rows, self.spec)
        start = part.indices(len(self))[0]  # bytes never pass through numpy, which cuts zero bytes off their end
        return np.stack([decoded(row, index, self.spec) for index, row in enumerate(rows, start)])


def decoded(row: Any, index: int, spec: ImageSpec) -> NDArray[Any]:
    """Return the pixels of one encoded file, given as bytes or as base64 text.

    Raises:
        DataError: it is neither, or holds no picture.
    """
    if not isinstance(row, (bytes, str)):  # bytes(9**9) would be 9**9 zeros
        raise DataError(f"row {index}: found a value of type {type(row).__name__}; {_EXPECTED}")
    most = spec.max_megabytes << 20
    if isinstance(row, str) and len(row) > 4 * (most // 3 + 1):
        raise DataError(f"row {index}: too_large: {len(row):,} characters of base64; at most {most:,} bytes are read")
    try:
        return decode(base64.b64decode(row, validate=True) if isinstance(row, str) else row, spec)
    except ValueError as error:  # also of base64
        raise DataError(f"row {index}: {error}; {_EXPECTED}; a path is never opened") from error
    except DecodeError as error:
        raise DataError(f"row {index}: {error.code}: {error.detail}; {_EXPECTED}") from error
