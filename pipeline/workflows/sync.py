"""A study on its way to MLflow: the steps of `pipeline sync`, and those that `pipeline search` shares with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, PipelineError, StoppedEarly, TrackingError
from pipeline.files import locked
from pipeline.search.mirroring import BackgroundMirror
from pipeline.search.result import SearchResult
from pipeline.search.store import StudyStore
from pipeline.search.studies import is_alive, list_studies, open_study
from pipeline.search.verdict import flaw_of
from pipeline.text import safe_name
from pipeline.tracking.figures import decision_tags, evaluation_metrics, flaw_tags
from pipeline.tracking.mirror import MlflowMirror
from pipeline.tracking.registry import close_stale_runs, log_and_register
from pipeline.tracking.results import log_result
from pipeline.tracking.store import check_settings, open_client
from pipeline.workspace import StudyFolder


def start_mirror(folder: StudyFolder, workspace: Path, warn: Callable[[str], None]) -> BackgroundMirror:
    """Begin to show a study in MLflow, in the background; once that works, end the runs there of searches that died.

    Raises:
        TrackingError: the settings are such that MLflow will never answer; one that is down is warned of later.
    """
    check_settings(workspace)
    store = StudyStore(folder.database)
    background = BackgroundMirror(
        MlflowMirror(store, workspace),
        folder.name,
        warn,
        lambda: close_stale_runs(workspace, lambda study: is_alive(workspace, study)),
        store.close,
    )
    background.start()
    return background


def sync(workspace: Path, study: str | None) -> tuple[list[dict[str, Any]], int, PipelineError | None]:
    """Send one study or all; return what was done about each, how many stale runs were ended, and what failed.

    Raises:
        PipelineError: the one study that was asked for cannot be sent.
    """
    if study is not None:
        return [sync_study(workspace, study)], 0, None
    names = list_studies(workspace)
    if not names:
        raise DataError(
            f"{workspace}: no studies here; expected a folder in which `pipeline search` ran; begin one with: "
            "pipeline search digits --budget 3m"
        )
    done, failure = [], None
    for name in names:
        try:
            done.append(facts_of(name, "searching") if is_alive(workspace, name) else sync_study(workspace, name))
        except PipelineError as error:
            done.append(facts_of(name, "failed"))
            failure = failure or error
            if isinstance(error, TrackingError):  # the others are in the same store
                return done, 0, failure
    return done, close_stale_runs(workspace, lambda name: is_alive(workspace, name)), failure


def sync_study(workspace: Path, name: str) -> dict[str, Any]:
    """Send what MLflow lacks of a study on which no search is at work.

    Raises:
        DataError: there is no such study.
        StoppedEarly: a search is at work on it.
        TrackingError: MLflow does not answer.
    """
    with open_study(workspace, name) as store:
        if is_alive(workspace, name):
            raise StoppedEarly(
                f"study {name}: a search is at work on it, and sends it to MLflow itself; expected one that has "
                "ended; wait for its end"
            )
        with locked(store.folder.lock, f"study {name}"):
            return send(store, workspace, name)


def send(store: StudyStore, workspace: Path, name: str) -> dict[str, Any]:
    """Send what MLflow lacks of a study, and register its model if that was not done."""
    mirror = MlflowMirror(store, workspace)
    result = store.result() if store.get("result") is not None else None
    model_uri = result.model_uri if result is not None else None
    if mirror.is_complete() and (result is None or result.run_id == mirror.run_id):
        return facts_of(name, "complete", run_id=mirror.run_id, model_uri=model_uri)
    num_unsent = len(store.unsent())
    run_id = mirror.close("KILLED" if result is None else "FINISHED")
    if result is None or result.run_id == run_id:
        return facts_of(name, "sent", num_unsent, run_id=run_id, model_uri=model_uri)
    model_uri = register_result(store, workspace, run_id).model_uri
    return facts_of(name, "sent", num_unsent, run_id=run_id, model_uri=model_uri, is_registered=True)


def facts_of(name: str, status: str, trials_sent: int = 0, **changes: Any) -> dict[str, Any]:
    """Return what was done about a study, as `--json` prints it."""
    facts = {"study": name, "status": status, "trials_sent": trials_sent}
    return {**facts, "run_id": None, "model_uri": None, "is_registered": False, **changes}


def register_result(store: StudyStore, workspace: Path, run_id: str) -> SearchResult:
    """Log and register the model of a finished study on its run; return the result, which the study keeps.

    A result whose `run_id` is None waits for this; it may be repeated.

    Raises:
        ModelRefused: the model's folder was damaged.
        TrackingError: MLflow does not answer; the result stays as it was.
    """
    result, spec = store.result(), store.spec()
    winner, evaluation = result.winner, result.evaluation
    flaw, client = flaw_of(evaluation.tested, spec.classes), open_client(workspace)
    metrics = {
        **evaluation_metrics(evaluation),
        result.objective: winner.score,
        "model/params": winner.num_params,
        "model/mflops": winner.mflops,
        "model/dense_params": winner.dense_params,
    }
    registered = log_and_register(
        client,
        workspace,
        run_id,
        store.folder.model,
        safe_name(spec.dataset),
        metrics={name: value for name, value in metrics.items() if value is not None},
        step=winner.epochs,
        tags={
            "pipeline.study": result.study,
            "trial.number": str(winner.trial),
            **decision_tags(evaluation),
            **flaw_tags(flaw),
        },
        is_champion=not flaw,
    )
    log_result(client, run_id, flaw_tags(flaw), {})
    result = replace(result, run_id=run_id, model_uri=registered.model_uri, is_champion=not flaw)
    store.put("result", result.to_json())
    return result
