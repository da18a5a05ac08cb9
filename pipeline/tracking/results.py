"""What a finished search adds to its parent run in MLflow: tags and files; the model and its metrics are not here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.tracking.entries import tag_entries
from pipeline.tracking.store import tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_result(client: "MlflowClient", run_id: str, tags: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Set tags of a run and write texts as its artifacts, by their names; a second call leaves it as it is.

    Raises:
        TrackingError: the store cannot be used.
    """
    with tracking_errors("sending the result"):
        if tags:
            client.log_batch(run_id, tags=tag_entries(dict(tags)))
        for name, text in texts.items():
            client.log_text(run_id, text, name)
