"""A model of the registry, a run or a folder, found by what the user calls it and brought to this machine."""

import contextlib
import dataclasses
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline.bundle import FACTS_FILE
from pipeline.errors import ModelRefused
from pipeline.files import sha256_json
from pipeline.tracking import flavor
from pipeline.tracking.store import (
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
from pipeline.tracking.registry import CHAMPION, KIND, KIND_TAG, LOGGED_URI, logged_model_id

_FORMS = (
    "champion, models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-ID, a run's id (32 hexadecimal digits),"
    " or a folder with model.json"
)


@dataclasses.dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine: `folder` holds model.json and model.keras, `uri` names exactly this version.

    `note` is what the user should know about the choice; empty when there was none.
    """

    folder: Path
    uri: str
    note: str = ""


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
            raise ModelRefused(f"model {model!r}: {found}; expected {_FORMS}; `pipeline runs` lists them")
    uri = tracking_uri(workspace)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise ModelRefused(f"model {model!r}: {path} does not exist yet; expected a model; run `pipeline search` first")
    workspace = workspace.absolute()
    client = open_client(workspace)
    with tracking_errors(f"looking for the model {model!r}"):
        if model == CHAMPION:
            return _resolve_champion(client, workspace)
        if model.startswith("models:/"):
            return _resolve_uri(client, workspace, model)
        return _resolve_run(client, workspace, model)


def _resolve_champion(client: "MlflowClient", workspace: Path) -> ResolvedModel:
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
        raise ModelRefused("there is no champion yet; run `pipeline search` first")
    here = workspace_tag(workspace)
    versions.sort(key=lambda version: (version.creation_timestamp, int(version.version)), reverse=True)
    versions.sort(key=lambda version: version.tags.get(WORKSPACE_TAG) != here)  # stable: the newest stay first
    note = ""
    if len(versions) > 1:
        chosen, *others = (f"models:/{version.name}@{CHAMPION}" for version in versions)
        kind = "of this workspace" if versions[0].tags.get(WORKSPACE_TAG) == here else "of the store"
        note = f"champion is the newest one {kind}, {chosen}; others: {', '.join(others)}"
    return _fetch_version(client, workspace, versions[0], note)


def _resolve_uri(client: "MlflowClient", workspace: Path, uri: str) -> ResolvedModel:
    """Return the model of models:/NAME@ALIAS, models:/NAME/VERSION or models:/m-ID."""
    from mlflow.exceptions import MlflowException

    if logged := LOGGED_URI.fullmatch(uri):
        return _resolve_logged(client, workspace, logged[1])
    match = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if match is None:
        raise ModelRefused(f"model {uri!r}: not of a known form; expected {_FORMS}")
    name, alias, number = match["name"], match["alias"], match["version"]
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelRefused(
            f"model {uri!r}: {error.message}; expected a registered model; `pipeline runs` lists them"
        ) from error
    return _fetch_version(client, workspace, version)


def _resolve_run(client: "MlflowClient", workspace: Path, run_id: str) -> ResolvedModel:
    """Return the model that a run logged last."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelRefused(f"model {run_id!r}: no such run; expected {_FORMS}; `pipeline runs` lists them") from error
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise ModelRefused(
            f"model {run_id!r}: this run logged no model; expected the run of a chosen model; use champion"
        )
    models = [client.get_logged_model(output.model_id) for output in outputs]
    return _fetch_logged(client, workspace, max(models, key=lambda logged: logged.creation_timestamp))


def _resolve_logged(client: "MlflowClient", workspace: Path, model_id: str) -> ResolvedModel:
    """Return a logged model, registered or not."""
    from mlflow.exceptions import MlflowException

    try:
        logged = client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelRefused(
            f"model 'models:/{model_id}': no such logged model; expected {_FORMS}; `pipeline runs` lists them"
        ) from error
    return _fetch_logged(client, workspace, logged)


def _fetch_logged(client: "MlflowClient", workspace: Path, logged: Any) -> ResolvedModel:
    """Bring the files of a logged model to this machine."""
    folder = _fetch(workspace, client.tracking_uri, logged.artifact_location, logged.model_id)
    return ResolvedModel(folder, f"models:/{logged.model_id}")


def _fetch_version(client: "MlflowClient", workspace: Path, version: Any, note: str = "") -> ResolvedModel:
    """Bring the files of a model version to this machine."""
    location = client.get_model_version_download_uri(version.name, version.version)
    key = logged_model_id(version) or sha256_json([location, version.creation_timestamp])[:32]
    folder = _fetch(workspace, client.tracking_uri, location, key)
    return ResolvedModel(folder, f"models:/{version.name}/{version.version}", note)


def _fetch(workspace: Path, uri: str, location: str, key: str) -> Path:
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
