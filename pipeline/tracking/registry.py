"""Models in MLflow: log and register a bundle; close the runs of processes that ended."""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle import Bundle, read_bundle
from pipeline.tracking import flavor
from pipeline.tracking.entries import points
from pipeline.tracking.mirror import search_runs
from pipeline.tracking.store import (
    STUDY_TAG,
    WORKSPACE_TAG,
    open_client,
    sqlite_path,
    tracking_errors,
    tracking_uri,
    workspace_tag,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
_MODEL_NAME = "model"
KIND_TAG = "pipeline.kind"
KIND = "image-classifier"
LOGGED_URI = re.compile(r"models:/(m-[0-9a-f]+)")


@dataclasses.dataclass(frozen=True)
class RegisteredModel:
    """A model version in the registry; `model_uri` is models:/NAME/VERSION, `model_id` the logged model's."""

    name: str
    version: str
    model_uri: str
    model_id: str


@dataclasses.dataclass(frozen=True)
class Registration:
    """Under which name a model is registered, perhaps as the champion of that name, and what is said of it.

    `step` is the best epoch, at which the metrics are shown; `tags` go on the version.
    """

    model_name: str
    metrics: Mapping[str, float]
    step: int
    tags: Mapping[str, str]
    is_champion: bool = True


def log_and_register(
    client: "MlflowClient", workspace: Path, run_id: str, bundle_folder: Path, wanted: Registration
) -> RegisteredModel:
    """Log a bundle as the model of a run and register it.

    A second call with the same run and bundle makes no second version and no second model, wherever the first one was
    cut off, and takes the alias from no newer version.

    Raises:
        ModelRefused: the folder holds no sound bundle.
        TrackingError: the store cannot be used.
    """
    bundle, model_name = read_bundle(bundle_folder), wanted.model_name
    with tracking_errors(f"registering the model {model_name!r}"):
        previous = _open_registered_model(client, model_name).aliases.get(CHAMPION)
        version = _find_version(client, model_name, run_id, bundle.sha256)
        if version is None:
            model_id = _log_model(client, run_id, bundle, wanted.metrics, wanted.step)
            all_tags = {**_version_tags(bundle), WORKSPACE_TAG: workspace_tag(workspace), **wanted.tags}
            if previous is not None:
                all_tags["champion.previous_version"] = str(previous)
            with _default_store(client.tracking_uri):
                version = client.create_model_version(
                    model_name, f"models:/{model_id}", run_id, tags=all_tags, model_id=model_id
                )
        if wanted.is_champion and (previous is None or int(previous) < int(version.version)):
            client.set_registered_model_alias(model_name, CHAMPION, version.version)
    number = str(version.version)
    return RegisteredModel(model_name, number, f"models:/{model_name}/{number}", logged_model_id(version) or "")


def _open_registered_model(client: "MlflowClient", name: str) -> Any:
    """Return the registered model of that name, made when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={KIND_TAG: KIND})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_registered_model(name)


@contextlib.contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Name the store in the environment: MLflow's registry asks a client of its own for the logged model."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def logged_model_id(version: Any) -> str | None:
    """Return the id of the logged model that a version was made of; MLflow keeps it in `source` only."""
    match = LOGGED_URI.fullmatch(version.source or "")
    return match[1] if match else None


def _find_version(client: "MlflowClient", name: str, run_id: str, sha256: str) -> Any:
    """Return the version that this very model of this run has already, or None."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    return next((v for v in versions if v.name == name and v.tags.get("sha256") == sha256), None)


def _version_tags(bundle: Bundle) -> dict[str, str]:
    """Return the tags of a version that follow from its bundle."""
    test = bundle.card.evaluation.test
    tags = {"study": bundle.card.study or "", "sha256": bundle.sha256}
    return tags if test is None else {**tags, "test_accuracy": f"{test.accuracy:.4f}"}


def _log_model(client: "MlflowClient", run_id: str, bundle: Bundle, metrics: Mapping[str, float], step: int) -> str:
    """Log a bundle as a model of the run, its metrics on both, and return the model's id.

    What an earlier call began is finished. The client's calls are used, not Model.log: that one works on the global
    tracking URI, exports it to the environment, and reads the whole history of every metric of the run.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

    run = client.get_run(run_id)
    logged = _find_logged(client, run, bundle) or _create_logged(client, run, bundle)
    model_id = str(logged.model_id)
    if logged.status == LoggedModelStatus.READY:
        return model_id
    outputs = run.outputs.model_outputs if run.outputs else []
    if all(output.model_id != model_id for output in outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])
    _upload_model(client, run_id, logged, bundle)
    entries = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id)
        for m in points(dict(metrics), logged.creation_timestamp, step)
    ]
    client.log_batch(run_id, metrics=entries)
    client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    return model_id


def _find_logged(client: "MlflowClient", run: Any, bundle: Bundle) -> Any:
    """Return the logged model that an earlier call made of this bundle, or None."""
    query = f"source_run_id = '{run.info.run_id}' AND tags.sha256 = '{bundle.sha256}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], query)), None)


def _create_logged(client: "MlflowClient", run: Any, bundle: Bundle) -> Any:
    """Create the logged model of a bundle, without its files."""
    params = {name: str(value) for name, value in bundle.card.params.items()}
    tags = {KIND_TAG: KIND, "sha256": bundle.sha256}
    return client.create_logged_model(
        run.info.experiment_id, _MODEL_NAME, source_run_id=run.info.run_id, tags=tags, params=params
    )


def _upload_model(client: "MlflowClient", run_id: str, logged: Any, bundle: Bundle) -> None:
    """Write a bundle in MLflow's format to the place of a logged model."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL_NAME
        model = Model(
            artifact_path=logged.artifact_location,
            run_id=run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        flavor.save_model(str(path), model, bundle.folder)
        client.log_model_artifacts(logged.model_id, str(path))


def close_stale_runs(workspace: Path, is_alive: Callable[[str], bool]) -> int:
    """End the RUNNING runs of this workspace whose study no process works on as KILLED; return how many.

    MLflow itself notices nothing when a process is killed. A resumed study opens its runs again.
    """
    path = sqlite_path(tracking_uri(workspace))
    if path is not None and not path.exists():
        return 0
    client = open_client(workspace)
    with tracking_errors("closing the runs of ended processes"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        query = f"attributes.status = 'RUNNING' and tags.`{WORKSPACE_TAG}` = '{workspace_tag(workspace)}'"
        running = list(search_runs(client, experiments, query)) if experiments else []
        alive = {study: is_alive(study) for study in {run.data.tags[STUDY_TAG] for run in running}}
        stale = [run for run in running if not alive[run.data.tags[STUDY_TAG]]]
        for run in stale:
            client.set_terminated(run.info.run_id, "KILLED")
    return len(stale)
