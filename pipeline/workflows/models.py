"""A model by its name, ready to label images in Python."""

from pathlib import Path

from pipeline.classifier import Classifier, load_classifier
from pipeline.tracking.resolve import resolve_model


def load(model: str = "champion", workspace: Path | None = None) -> Classifier:
    """Return a model; it is named as in `pipeline score`: champion, models:/NAME/VERSION, a run, or a folder.

    Raises:
        ModelRefused: there is no such model, or it is not sound.
        TrackingError: MLflow does not answer.
    """
    return load_classifier(resolve_model(workspace or Path(), model).folder)
