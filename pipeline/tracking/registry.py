"""Models in MLflow: log and register a bundle, find one again by name, alias, version, run or folder."""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline.bundle import FACTS_FILE, Bundle, read_bundle
from pipeline.errors import ModelRefused
from pipeline.files import sha256_json
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
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
MODEL_NAME = "model"
KIND_TAG = "pipeline.kind"
KIND = "image-classifier"
LOGGED_URI = re.compile(r"models:/(m-[0-9a-f]+)")
FORMS = (
    "champion, models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-ID, a run's id (32 hexadecimal digits),"
    " or a folder with model.json"
)


@dataclasses.dataclass(frozen=True)
class RegisteredModel:
    """A model version in the registry; `model_uri` is models:/NAME/VERSION, `model_id` the logged model's."""

    name: str
    version: str
    model_uri: str
    model_id: str


@dataclasses.dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine: `folder` holds model.json and model.keras, `uri` names exactly this version.

    `note` is what the user should know about the choice; empty when there was none.
    """

    folder: Path
    uri: str
    note: str = ""


def log_and_register(
    client: "MlflowClient",
    workspace: Path,
    run_id: str,
    bundle_folder: Path,
    model_name: str,
    metrics: Mapping[str, float],
    step: int,
    tags: Mapping[str, str],
    is_champion: bool = True,
) -> RegisteredModel:
    """Log a bundle as the model of a run and register it under `model_name`, perhaps as the champion of that name.

    `step` is the best epoch; `tags` go on the version. A second call with the same run and bundle makes no
    second version and no second model, wherever the first one was cut off, and takes the alias from no newer version.

    Raises:
        ModelRefused: the folder holds no sound bundle.
        TrackingError: the store cannot be used.
    """
    bundle = read_bundle(bundle_folder)
    with tracking_errors(f"registering the model {model_name!r}"):
        previous = open_registered_model(client, model_name).aliases.get(CHAMPION)
        version = find_version(client, model_name, run_id, bundle.sha256)
        if version is None:
            model_id = log_model(client, run_id, bundle, metrics, step)
            all_tags = {**version_tags(bundle), WORKSPACE_TAG: workspace_tag(workspace), **tags}
            if previous is not None:
                all_tags["champion.previous_version"] = str(previous)
            with default_store(client.tracking_uri):
                version = client.create_model_version(
                    model_name, f"models:/{model_id}", run_id, tags=all_tags, model_id=model_id
                )
        if is_champion and (previous is None or int(previous) < int(version.version)):
            client.set_registered_model_alias(model_name, CHAMPION, version.version)
    number = str(version.version)
    return RegisteredModel(model_name, number, f"models:/{model_name}/{number}", logged_model_id(version) or "")


def open_registered_model(client: "MlflowClient", name: str) -> Any:
    """Return the registered model of that name, made when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={KIND_TAG: KIND})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_registered_model(name)


@contextlib.contextmanager
def default_store(uri: str) -> Iterator[None]:
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


def find_version(client: "MlflowClient", name: str, run_id: str, sha256: str) -> Any:
    """Return the version that this very model of this run has already, or None."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    return next((v for v in versions if v.name == name and v.tags.get("sha256") == sha256), None)


def version_tags(bundle: Bundle) -> dict[str, str]:
    """Return the tags of a version that follow from its bundle."""
    test = bundle.card.evaluation.test
    tags = {"study": bundle.card.study or "", "sha256": bundle.sha256}
    return tags if test is None else {**tags, "test_accuracy": f"{test.accuracy:.4f}"}


def log_model(client: "MlflowClient", run_id: str, bundle: Bundle, metrics: Mapping[str, float], step: int) -> str:
    """Log a bundle as a model of the run, its metrics on both, and return the model's id.

    What an earlier call began is finished. The client's calls are used, not Model.log: that one works on the global
    tracking URI, exports it to the environment, and reads the whole history of every metric of the run.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

    run = client.get_run(run_id)
    logged = find_logged(client, run, bundle) or create_logged(client, run, bundle)
    model_id = str(logged.model_id)
    if logged.status == LoggedModelStatus.READY:
        return model_id
    outputs = run.outputs.model_outputs if run.outputs else []
    if all(output.model_id != model_id for output in outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])
    upload_model(client, run_id, logged, bundle)
    entries = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id)
        for m in points(dict(metrics), logged.creation_timestamp, step)
    ]
    client.log_batch(run_id, metrics=entries)
    client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    return model_id


def find_logged(client: "MlflowClient", run: Any, bundle: Bundle) -> Any:
    """Return the logged model that an earlier call made of this bundle, or None."""
    query = f"source_run_id = '{run.info.run_id}' AND tags.sha256 = '{bundle.sha256}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], query)), None)


def create_logged(client: "MlflowClient", run: Any, bundle: Bundle) -> Any:
    """Create the logged model of a bundle, without its files."""
    params = {name: str(value) for name, value in bundle.card.params.items()}
    tags = {KIND_TAG: KIND, "sha256": bundle.sha256}
    return client.create_logged_model(
        run.info.experiment_id, MODEL_NAME, source_run_id=run.info.run_id, tags=tags, params=params
    )


def upload_model(client: "MlflowClient", run_id: str, logged: Any, bundle: Bundle) -> None:
    """Write a bundle in MLflow's format to the place of a logged model."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_NAME
        model = Model(
            artifact_path=logged.artifact_location,
            run_id=run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        flavor.save_model(str(path), model, bundle.folder)
        client.log_model_artifacts(logged.model_id, str(path))


def resolve_model(workspace: Path, model: str) -> ResolvedModel:
    """Find a model and bring it to this machine; an alias is resolved to its version once, here.

    Raises:
        ModelRefused: there is no such model; the message lists the accepted forms.
        TrackingError: the store cannot be used.
    """
    if model != CHAMPION and not model.startswith("models:/"):
        folder = Path(model)
        home = next((f for f in (folder, folder / "data") if (f / FACTS_FILE).is_file()), None)
        if home is not None:
            return ResolvedModel(home, str(folder.absolute()))
        if not re.fullmatch("[0-9a-f]{32}", model):
            found = "a folder without model.json" if folder.is_dir() else "none of the accepted forms"
            raise ModelRefused(f"model {model!r}: {found}; expected {FORMS}; `pipeline runs` lists them")
    uri = tracking_uri(workspace)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise ModelRefused(f"model {model!r}: {path} does not exist yet; expected a model; run `pipeline search` first")
    workspace = workspace.absolute()
    client = open_client(workspace)
    with tracking_errors(f"looking for the model {model!r}"):
        if model == CHAMPION:
            return resolve_champion(client, workspace)
        if model.startswith("models:/"):
            return resolve_uri(client, workspace, model)
        return resolve_run(client, workspace, model)


def resolve_champion(client: "MlflowClient", workspace: Path) -> ResolvedModel:
    """Return the newest champion of all registered models; those made in this workspace come first."""
    versions = []
    token = None
    while True:
        page = client.search_registered_models(f"tags.`{KIND_TAG}` = '{KIND}'", page_token=token)
        for found in page:
            if CHAMPION in found.aliases:
                versions.append(client.get_model_version(found.name, str(found.aliases[CHAMPION])))
        token = page.token
        if not token:
            break
    if not versions:
        raise ModelRefused("there is no champion yet; expected a registered model; run `pipeline search` first")
    here = workspace_tag(workspace)
    versions.sort(key=lambda version: (version.creation_timestamp, int(version.version)), reverse=True)
    versions.sort(key=lambda version: version.tags.get(WORKSPACE_TAG) != here)  # stable: the newest stay first
    note = ""
    if len(versions) > 1:
        chosen, *others = (f"models:/{version.name}@{CHAMPION}" for version in versions)
        kind = "of this workspace" if versions[0].tags.get(WORKSPACE_TAG) == here else "of the store"
        note = f"champion is the newest one {kind}, {chosen}; others: {', '.join(others)}"
    return fetch_version(client, workspace, versions[0], note)


def resolve_uri(client: "MlflowClient", workspace: Path, uri: str) -> ResolvedModel:
    """Return the model of models:/NAME@ALIAS, models:/NAME/VERSION or models:/m-ID."""
    from mlflow.exceptions import MlflowException

    if logged := LOGGED_URI.fullmatch(uri):
        return resolve_logged(client, workspace, logged[1])
    match = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if match is None:
        raise ModelRefused(f"model {uri!r}: not of a known form; expected {FORMS}")
    name, alias, number = match["name"], match["alias"], match["version"]
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelRefused(
            f"model {uri!r}: {error.message}; expected a registered model; `pipeline runs` lists them"
        ) from error
    return fetch_version(client, workspace, version)


def resolve_run(client: "MlflowClient", workspace: Path, run_id: str) -> ResolvedModel:
    """Return the model that a run logged last."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelRefused(f"model {run_id!r}: no such run; expected {FORMS}; `pipeline runs` lists them") from error
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise ModelRefused(
            f"model {run_id!r}: this run logged no model; expected the run of a chosen model; use champion"
        )
    models = [client.get_logged_model(output.model_id) for output in outputs]
    return fetch_logged(client, workspace, max(models, key=lambda logged: logged.creation_timestamp))


def resolve_logged(client: "MlflowClient", workspace: Path, model_id: str) -> ResolvedModel:
    """Return a logged model, registered or not."""
    from mlflow.exceptions import MlflowException

    try:
        logged = client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelRefused(
            f"model 'models:/{model_id}': no such logged model; expected {FORMS}; `pipeline runs` lists them"
        ) from error
    return fetch_logged(client, workspace, logged)


def fetch_logged(client: "MlflowClient", workspace: Path, logged: Any) -> ResolvedModel:
    """Bring the files of a logged model to this machine."""
    folder = fetch(workspace, client.tracking_uri, logged.artifact_location, logged.model_id)
    return ResolvedModel(folder, f"models:/{logged.model_id}")


def fetch_version(client: "MlflowClient", workspace: Path, version: Any, note: str = "") -> ResolvedModel:
    """Bring the files of a model version to this machine."""
    location = client.get_model_version_download_uri(version.name, version.version)
    key = logged_model_id(version) or sha256_json([location, version.creation_timestamp])[:32]
    folder = fetch(workspace, client.tracking_uri, location, key)
    return ResolvedModel(folder, f"models:/{version.name}/{version.version}", note)


def fetch(workspace: Path, uri: str, location: str, key: str) -> Path:
    """Return the folder of model.json: in place when it is on this machine, else downloaded once.

    Only data/ is fetched: the code that travels with the model is for other programs and is never run here.

    Raises:
        ModelRefused: there is no model.json.
    """
    from mlflow.artifacts import download_artifacts

    parts = urlsplit(location)
    if parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path) if parts.scheme else location) / flavor.DATA_FOLDER
    else:
        cache = Workspace(workspace).models
        folder = cache / key
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                got = download_artifacts(f"{location}/{flavor.DATA_FOLDER}", dst_path=temporary, tracking_uri=uri)
                with contextlib.suppress(OSError):  # another process was quicker
                    Path(got).rename(folder)
    if not (folder / FACTS_FILE).is_file():
        raise ModelRefused(
            f"{folder}: no {FACTS_FILE}; expected a model that `pipeline search` made;"
            " it was moved, deleted or made by another program"
        )
    return folder


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
