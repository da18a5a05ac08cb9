"""An MLflow flavour module: writes a bundle as a model that mlflow.keras and mlflow.pyfunc load."""

import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pipeline
from pipeline.bundle import FACTS_FILE, MODEL_FILE, Bundle, read_bundle
from pipeline.files import write_text

_FLAVOR_NAME = "keras"
_LOADER_MODULE = "pipeline.tracking.pyfunc_loader"
DATA_FOLDER = "data"  # mlflow.keras loads <data>/model.keras
_CODE_FOLDER = "code"
_REQUIREMENTS_FILE = "requirements.txt"
_PYTHON_ENV_FILE = "python_env.yaml"
_CONDA_FILE = "conda.yaml"
_PACKAGES = ("keras", "numpy", "pandas", "pillow", "tifffile", "mlflow")
_BACKEND_PACKAGES = {
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "jax": ("jax", "jaxlib"),
    "torch": ("torch",),
}


def save_model(path: str, mlflow_model: Any, bundle_folder: Path) -> None:
    """Write the bundle to `path` as an MLflow model; nothing is inferred, loaded or pickled.

    Raises:
        ModelRefused: the folder holds no sound bundle.
    """
    from mlflow import pyfunc
    from mlflow.models.model import MLMODEL_FILE_NAME

    bundle = read_bundle(bundle_folder)
    root = Path(path)
    data = root / DATA_FOLDER
    data.mkdir(parents=True)
    for name in (MODEL_FILE, FACTS_FILE):
        shutil.copyfile(bundle.folder / name, data / name)
    _copy_code(root / _CODE_FOLDER)
    requirements = _pinned_requirements()
    _write_environment(root, requirements)

    mlflow_model.signature = _signature(bundle.card.is_multi_label)
    mlflow_model.metadata = _model_metadata(bundle)
    mlflow_model.add_flavor(
        _FLAVOR_NAME,
        data=DATA_FOLDER,
        keras_version=metadata.version("keras"),
        keras_backend=_backend_name(),
        save_exported_model=False,
    )
    pyfunc.add_to_model(
        mlflow_model,
        loader_module=_LOADER_MODULE,
        data=DATA_FOLDER,
        code=_CODE_FOLDER,
        conda_env=_CONDA_FILE,
        python_env=_PYTHON_ENV_FILE,
    )
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    mlflow_model.save(str(root / MLMODEL_FILE_NAME))


def _copy_code(folder: Path) -> None:
    """Copy the package's Python files, so that the model loads where the package is not installed."""
    source = Path(pipeline.__file__).parent
    for file in sorted(source.rglob("*.py")):
        target = folder / source.name / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _backend_name() -> str:
    """Return the Keras backend of this process without importing Keras."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def _pinned_requirements() -> list[str]:
    """Return what the model needs, pinned to the versions that are installed here."""
    return _pins((*_PACKAGES, *_BACKEND_PACKAGES.get(_backend_name(), ())))


def _pins(names: Iterable[str]) -> list[str]:
    """Return `name==version` for those of the distributions that are installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _write_environment(root: Path, requirements: list[str]) -> None:
    """Write the three files by which MLflow recreates an environment: for pip, virtualenv and conda."""
    import yaml

    python = platform.python_version()
    write_text(root / _REQUIREMENTS_FILE, "\n".join(requirements) + "\n")
    build = _pins(("pip", "setuptools", "wheel")) or ["pip"]
    environment = {
        "python": python,
        "build_dependencies": build,
        "dependencies": [f"-r {_REQUIREMENTS_FILE}"],
    }
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    write_text(root / _PYTHON_ENV_FILE, yaml.safe_dump(environment, sort_keys=False))
    write_text(root / _CONDA_FILE, yaml.safe_dump(conda, sort_keys=False))


def _signature(has_several: bool = False) -> Any:
    """Return the one signature that lets pixels, encoded files and base64 text all through unchanged.

    Where images may have several labels, label and probability are lists.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Array

    inputs = Schema([TensorSpec(np.dtype("object"), (-1,), "image")])
    outputs = Schema(
        [
            ColSpec(Array(DataType.string) if has_several else DataType.string, "label"),
            ColSpec(Array(DataType.double) if has_several else DataType.double, "probability"),
            ColSpec(Array(DataType.double), "probabilities"),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=outputs)


def _model_metadata(bundle: Bundle) -> dict[str, object]:
    """Return what the signature cannot say: the classes in order, and the pixels that the network takes."""
    return {
        "classes": list(bundle.classes),
        "is_multi_label": bundle.card.is_multi_label,
        "image": asdict(bundle.image),
        "sha256": bundle.sha256,
    }
