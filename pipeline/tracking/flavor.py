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

FLAVOR_NAME = "keras"
LOADER_MODULE = "pipeline.tracking.pyfunc_loader"
DATA_FOLDER = "data"  # mlflow.keras loads <data>/model.keras
CODE_FOLDER = "code"
REQUIREMENTS_FILE = "requirements.txt"
PYTHON_ENV_FILE = "python_env.yaml"
CONDA_FILE = "conda.yaml"
PACKAGES = ("keras", "numpy", "pandas", "pillow", "tifffile", "mlflow")
BACKEND_PACKAGES = {
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
    copy_code(root / CODE_FOLDER)
    requirements = pinned_requirements()
    write_environment(root, requirements)

    mlflow_model.signature = signature(bundle.card.is_multi_label)
    mlflow_model.metadata = model_metadata(bundle)
    mlflow_model.add_flavor(
        FLAVOR_NAME,
        data=DATA_FOLDER,
        keras_version=metadata.version("keras"),
        keras_backend=backend_name(),
        save_exported_model=False,
    )
    pyfunc.add_to_model(
        mlflow_model,
        loader_module=LOADER_MODULE,
        data=DATA_FOLDER,
        code=CODE_FOLDER,
        conda_env=CONDA_FILE,
        python_env=PYTHON_ENV_FILE,
    )
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    mlflow_model.save(str(root / MLMODEL_FILE_NAME))


def copy_code(folder: Path) -> None:
    """Copy the package's Python files, so that the model loads where the package is not installed."""
    source = Path(pipeline.__file__).parent
    for file in sorted(source.rglob("*.py")):
        target = folder / source.name / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def backend_name() -> str:
    """Return the Keras backend of this process without importing Keras."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def pinned_requirements() -> list[str]:
    """Return what the model needs, pinned to the versions that are installed here."""
    return pins((*PACKAGES, *BACKEND_PACKAGES.get(backend_name(), ())))


def pins(names: Iterable[str]) -> list[str]:
    """Return `name==version` for those of the distributions that are installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def write_environment(root: Path, requirements: list[str]) -> None:
    """Write the three files by which MLflow recreates an environment: for pip, virtualenv and conda."""
    import yaml

    python = platform.python_version()
    write_text(root / REQUIREMENTS_FILE, "\n".join(requirements) + "\n")
    build = pins(("pip", "setuptools", "wheel")) or ["pip"]
    environment = {
        "python": python,
        "build_dependencies": build,
        "dependencies": [f"-r {REQUIREMENTS_FILE}"],
    }
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    write_text(root / PYTHON_ENV_FILE, yaml.safe_dump(environment, sort_keys=False))
    write_text(root / CONDA_FILE, yaml.safe_dump(conda, sort_keys=False))


def signature(has_several: bool = False) -> Any:
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


def model_metadata(bundle: Bundle) -> dict[str, object]:
    """Return what the signature cannot say: the classes in order, and the pixels that the network takes."""
    return {
        "classes": list(bundle.classes),
        "is_multi_label": bundle.card.is_multi_label,
        "image": asdict(bundle.image),
        "sha256": bundle.sha256,
    }
