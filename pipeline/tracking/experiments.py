"""The experiments of a store: found by name or made, checked before hours of search, and described."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import TrackingError
from pipeline.records import OBJECTIVES
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
from pipeline.tracking.store import is_loopback, is_remote, public_uri, tracking_errors

# Folders in ./mlruns/ that are not an experiment's.
_RESERVED_FOLDERS = ("studies", "cache", "splits", "openings")


def experiment_id(client: "MlflowClient", name: str, workspace: Path, objective: str) -> str:
    """Return the id of the experiment of that name, made when there is none; it shows `objective` first.

    Raises:
        TrackingError: it was deleted, or its artifacts cannot be written through this store.
    """
    uri = client.tracking_uri
    with tracking_errors(f"opening the experiment {name!r}"):
        experiment = client.get_experiment_by_name(name) or _create_experiment(client, name, workspace)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name!r} in {public_uri(uri)} was deleted; expected an active one; run"
            f" `MLFLOW_TRACKING_URI={public_uri(uri)} mlflow experiments restore -x {experiment.experiment_id}`"
        )
    check_artifact_location(experiment.artifact_location, uri, name)
    with tracking_errors(f"describing the experiment {name!r}"):
        for key, value in _experiment_tags(name, objective).items():
            if key not in experiment.tags:  # a note that the user wrote stays
                client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def _create_experiment(client: "MlflowClient", name: str, workspace: Path) -> Any:
    """Create an experiment; a server chooses where its artifacts are, a database needs an absolute place."""
    from mlflow.exceptions import MlflowException

    location = None
    if not is_remote(client.tracking_uri):
        location = (Workspace(workspace.absolute()).mlruns / slug(name)).as_uri()
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)  # another search was quicker


def slug(name: str) -> str:
    """Return a name as a folder of ./mlruns/, none of ours and none that looks like MLflow's old store."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "experiment"
    return f"experiment-{folder}" if folder in _RESERVED_FOLDERS or folder.isdigit() else folder


def check_artifact_location(location: str, uri: str, name: str) -> None:
    """Refuse an experiment whose artifacts this process could not write, before hours of search.

    Raises:
        TrackingError: it was made through a server but is used without one, or the other way round.
    """
    scheme = urlsplit(location).scheme
    if not is_remote(uri) and scheme in ("mlflow-artifacts", "http", "https"):
        raise TrackingError(
            f"experiment {name!r} in {public_uri(uri)} keeps its artifacts at {public_uri(location)}, which only"
            " a server can write; expected a folder or a bucket; it was made in the user interface: rename it"
            " there, or set MLFLOW_TRACKING_URI to the server's address"
        )
    if is_remote(uri) and scheme in ("", "file") and not is_loopback(urlsplit(uri).hostname or ""):
        raise TrackingError(
            f"experiment {name!r} on {public_uri(uri)} keeps its artifacts at {public_uri(location)}, a folder of"
            " the server's machine; expected mlflow-artifacts:/ or a bucket; rename the experiment, and start"
            " the server with --serve-artifacts"
        )


def _experiment_tags(name: str, objective: str) -> dict[str, str]:
    """Return the tags by which the user interface shows an experiment as we mean it."""
    return {
        "mlflow.note.content": (
            f"Searches over the data set **{name}**, one parent run a search and one child run a trial.\n\n"
            f"Sort by `best_{objective}`; `model/params` and `model/mflops` say what a model costs."
            " `test/...` is on the chosen model only: the test images are looked at once."
        ),
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": f"best_{objective}",
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(OBJECTIVES[objective] == "max"),
    }
