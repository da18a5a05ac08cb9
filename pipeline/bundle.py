"""What a finished model is: a folder with model.keras and model.json; no scoring here."""

import contextlib
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeGuard

from pipeline.card import ModelCard
from pipeline.data.decoding.decode import DECODER_VERSION
from pipeline.data.readers.arrays import ARCHIVE_ERRORS
from pipeline.data.source import encodable
from pipeline.errors import ModelRefused
from pipeline.files import sha256_file, write_json
from pipeline.machine import check_backend
from pipeline.models.allowed import ALLOWED_LAYERS, foreign_classes
from pipeline.records import ImageSpec

_SCHEMA = 1
MODEL_FILE = "model.keras"
FACTS_FILE = "model.json"
# Written before TF_CPP_MIN_LOG_LEVEL is obeyed (tensorflow 2.21, port.cc).
_NATIVE_CHATTER = re.compile(rb"WARNING: All log messages before absl|[IW]\d{4} \d\d:\d\d|[IW]0000 00:00:")
COLOUR = re.compile("#[0-9a-fA-F]{6}")
_MAX_JSON_BYTES = 16 << 20  # an honest config takes ~1 KB a layer, a model.json ~1 KB a class
_MAX_IMAGE_BYTES = 1 << 30  # as the model takes it: 8192 x 8192 RGB pixels of float32 take 768 MiB
_JSON_ERRORS = (OSError, ValueError, RecursionError)  # RecursionError: deep brackets


@dataclass(frozen=True)
class Bundle:
    """A model that was checked: `folder` holds it, `card` is what model.json says of it."""

    folder: Path
    card: ModelCard

    @property
    def keras_path(self) -> Path:
        """The file that Keras loads."""
        return self.folder / MODEL_FILE

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def image(self) -> ImageSpec:
        """The pixels that the model takes."""
        return self.card.image

    @property
    def sha256(self) -> str:
        """That of model.keras."""
        return self.card.sha256


def write_bundle(folder: Path, card: ModelCard) -> Bundle:
    """Write model.json beside the model.keras that lies in `folder`; the card gets the SHA-256 of that.

    Raises:
        ModelRefused: there is no model.keras, or the card describes no model.
    """
    keras_path = folder / MODEL_FILE
    if not keras_path.is_file():
        raise ModelRefused(f"{keras_path}: no such file; expected the saved model; save it there first")
    facts = {"schema": _SCHEMA, **replace(card, sha256=sha256_file(keras_path)).to_json()}
    bundle = _parse_facts(folder, facts)
    write_json(folder / FACTS_FILE, facts)
    return bundle


def read_bundle(folder: Path) -> Bundle:
    """Read and check the bundle in `folder` or in `folder`/data, where MLflow keeps it.

    Raises:
        ModelRefused: a file is missing, damaged, changed or of another version.
    """
    home = next((place for place in (folder, folder / "data") if os.path.isfile(place / FACTS_FILE)), None)  # noqa: PTH113
    if home is None:
        raise ModelRefused(
            f"{folder}: no {FACTS_FILE} in it or in its data/ folder; expected a model that"
            " `pipeline search` made; `pipeline runs` lists them"
        )
    bundle = _parse_facts(home, _read_facts(home / FACTS_FILE))
    try:
        found = sha256_file(bundle.keras_path)
    except OSError as error:
        reason = str(error.strerror).lower()
        raise ModelRefused(f"{bundle.keras_path}: {reason}; expected the model; restore it from a copy") from error
    if found != bundle.sha256:
        raise ModelRefused(
            f"{bundle.keras_path}: its SHA-256 is {found}; expected {bundle.sha256} as {FACTS_FILE} says;"
            " the model was damaged or changed after it was saved; restore it from a copy"
        )
    return bundle


def _read_facts(path: Path) -> Any:
    """Return what model.json holds.

    Raises:
        ModelRefused: it cannot be read, or is not JSON.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise ValueError(f"more than {_MAX_JSON_BYTES >> 20} MiB")
        return json.loads(content)
    except _JSON_ERRORS as error:
        raise ModelRefused(f"{path}: {error}; expected a JSON object; restore the file from a copy") from error


def _parse_facts(folder: Path, facts: Any) -> Bundle:
    """Return the bundle that the facts describe, once they are well-formed.

    Raises:
        ModelRefused: a field is missing or of the wrong kind, or the versions differ.
    """
    path = folder / FACTS_FILE
    if not isinstance(facts, dict):
        raise ModelRefused(f"{path}: {type(facts).__name__}; expected a JSON object; restore the file from a copy")
    if facts.get("schema") != _SCHEMA:
        raise ModelRefused(
            f"{path}: schema is {facts.get('schema')!r:.80}; expected {_SCHEMA};"
            " use the version of this program that wrote it"
        )
    classes = facts.get("classes")
    if not isinstance(classes, list) or not classes or not all(map(_is_name, classes)):
        raise ModelRefused(
            f"{path}: classes is {classes!r:.80}; expected a list of names; restore the file from a copy"
        )
    if len(set(classes)) != len(classes):
        raise ModelRefused(f"{path}: classes holds a name twice; expected each once; restore the file from a copy")
    sha256 = facts.get("sha256")
    if not isinstance(sha256, str) or len(sha256) != 64:
        raise ModelRefused(f"{path}: sha256 is {sha256!r:.80}; expected 64 digits; restore the file from a copy")
    if not isinstance(facts.get("is_multi_label", False), bool):
        raise ModelRefused(
            f"{path}: is_multi_label is {facts['is_multi_label']!r:.80}; expected true or false; restore the file from "
            "a copy"
        )
    _refuse_temperature(path, facts.get("temperature", {}))
    _refuse_image(path, facts.get("image"))
    try:
        return Bundle(folder, ModelCard.from_json(facts))
    except ValueError as error:
        raise ModelRefused(f"{path}: {error}; restore the file from a copy") from error


def _is_name(value: Any) -> bool:
    """Tell whether a value is valid Unicode text: JSON can hold half of a surrogate pair."""
    return isinstance(value, str) and encodable(value) == value


def _refuse_temperature(path: Path, temperature: Any) -> None:
    """Raise ModelRefused unless a temperature is absent, or an object whose value is a number above 0."""
    value = temperature.get("value", 1.0) if isinstance(temperature, dict) else None
    if not _is_number(value) or not 0 < value <= sys.float_info.max:
        raise ModelRefused(
            f"{path}: temperature is {temperature!r:.80}; expected a value above 0; restore the file from a copy"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value of JSON is a number; to Python true and false are numbers too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_image(path: Path, image: Any) -> None:
    """Raise ModelRefused if a field is missing or no positive integer, or if the model needs another decoder."""
    names = [field.name for field in fields(ImageSpec)]
    values: dict[str, Any] = {name: image.get(name) if isinstance(image, dict) else None for name in names}
    numbers = [value for name, value in values.items() if name not in ("dtype", "background")]
    is_right = (
        all(_is_number(value) and isinstance(value, int) and value > 0 for value in numbers)
        and values["dtype"] in ("uint8", "uint16", "float32")
        and COLOUR.fullmatch(str(values["background"]))
    )
    if not is_right and values["decoder_version"] in (None, DECODER_VERSION):
        raise ModelRefused(
            f"{path}: image is {image!r:.200}; expected {', '.join(names)}; restore the file from a copy"
        )
    if values["decoder_version"] != DECODER_VERSION:
        raise ModelRefused(
            f"{path}: image.decoder_version is {values['decoder_version']!r:.80}; expected {DECODER_VERSION}, the "
            "rules of this program; use the version of this program that trained the model, or train it again"
        )
    if (spec := ImageSpec(**values)).num_bytes > _MAX_IMAGE_BYTES:
        raise ModelRefused(
            f"{path}: an image of {spec.shape} {spec.dtype} values takes {spec.num_bytes:,} bytes; expected at most "
            f"{_MAX_IMAGE_BYTES:,}; restore the file from a copy"
        )


def load_model(bundle: Bundle) -> Any:
    """Return the keras.Model: pixels (batch, height, width, channels) to float32 logits (batch, num_classes).

    Raises:
        InvalidUsage: the Keras backend of this process is not installed.
        ModelRefused: no Keras model, or it holds a layer outside ALLOWED_LAYERS, or does not fit model.json.
    """
    check_layers(bundle.keras_path)
    check_backend()
    with native_chatter_hidden():
        import keras
    try:
        model = keras.saving.load_model(bundle.keras_path, custom_objects=None, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelRefused(
            f"{bundle.keras_path}: Keras {keras.__version__} cannot load it: {str(error).strip()[:300]};"
            f" it was saved with {bundle.card.versions}; install those versions, or train it again"
        ) from error
    found = (model.input_shape, model.output_shape)
    expected = ((None, *bundle.image.shape), (None, len(bundle.classes)))
    if found != expected:
        raise ModelRefused(
            f"{bundle.keras_path}: its input and output are {found}; expected {expected} as {FACTS_FILE}"
            " says; the two files do not belong together; restore them from a copy"
        )
    return model


@contextlib.contextmanager
def native_chatter_hidden() -> Iterator[None]:
    """Drop what TensorFlow's C++ writes to stderr for information while it is imported; keep the rest."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    real_stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real_stderr, 2)
            os.close(real_stderr)
            captured.seek(0)
            for line in captured:
                if not _NATIVE_CHATTER.match(line):
                    os.write(2, line)


def check_layers(keras_path: Path) -> None:
    """Refuse a .keras file whose config names a class that could run code, before Keras reads it.

    Raises:
        ModelRefused: no .keras archive, or a class outside the allow-lists.
    """
    try:
        with zipfile.ZipFile(keras_path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _MAX_JSON_BYTES:
                raise ValueError(f"config.json takes {entry.file_size} bytes")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without limit
                raise ValueError(f"config.json uses zip compression method {entry.compress_type}")
            config = json.loads(archive.read(entry))
    except (*ARCHIVE_ERRORS, KeyError, RecursionError) as error:
        raise ModelRefused(
            f"{keras_path}: {error}; expected a .keras archive with a config.json; restore the file from a copy"
        ) from error
    if isinstance(config, dict):
        config = {
            **config,
            "compile_config": None,
        }  # load_model(compile=False) drops the outermost one unread
    for found in foreign_classes(config):
        raise ModelRefused(
            f"{keras_path}: holds {found}; expected built-in layers only ({', '.join(ALLOWED_LAYERS)}); the model may"
            " run foreign code; do not load it"
        )
