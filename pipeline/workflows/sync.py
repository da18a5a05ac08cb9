"""A study on its way to MLflow: what it missed is sent later, and what a search shares with that."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StoppedEarly, TrackingError
from pipeline.files import locked
from pipeline.search.mirroring import BackgroundMirror
from pipeline.search.result import SearchResult
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import is_alive, open_study
from pipeline.search.worker.evaluation import champion_blocker_of
from pipeline.text import safe_name
from pipeline.tracking.figures import decision_tags, evaluation_metrics, flaw_tags
from pipeline.tracking.mirror import MlflowMirror
from pipeline.tracking.registry import Registration, close_stale_runs, log_and_register
from pipeline.tracking.results import log_result
from pipeline.tracking.store import check_settings, open_client
from pipeline.workflows.progress import Progress
from pipeline.workflows.studies import some_studies
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


@dataclass(frozen=True)
class StudySync:
    """What was done about a study. `status` is complete, sent, searching (it sends all itself) or failed."""

    study: str
    status: str
    trials_sent: int = 0
    run_id: str | None = None
    model_uri: str | None = None
    is_registered: bool = False


@dataclass(frozen=True)
class SyncResult:
    """What was done about each study, how many runs of searches that died were ended, and the first failure."""

    studies: tuple[StudySync, ...]
    num_closed: int = 0
    error: PipelineError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"studies": [asdict(each) for each in self.studies], "closed_runs": self.num_closed}


def run(study: str | None = None, workspace: Path | None = None) -> SyncResult:
    """Send one study or all to MLflow, as far as it lacks them; what fails for one of all is in the result.

    Raises:
        PipelineError: the one study that was asked for cannot be sent.
    """
    workspace = workspace or Path.cwd()
    if study is not None:
        return SyncResult((_sync_study(workspace, study),))
    names = some_studies(workspace)
    done: list[StudySync] = []
    failure: PipelineError | None = None
    for name in names:
        try:
            done.append(StudySync(name, "searching") if is_alive(workspace, name) else _sync_study(workspace, name))
        except PipelineError as error:
            done.append(StudySync(name, "failed"))
            failure = failure or error
            if isinstance(error, TrackingError):  # the others are in the same store
                return SyncResult(tuple(done), error=failure)
    return SyncResult(tuple(done), close_stale_runs(workspace, lambda name: is_alive(workspace, name)), failure)


def _sync_study(workspace: Path, name: str) -> StudySync:
    """Send what MLflow lacks of a study on which no search is at work.

    Raises:
        DataError: there is no such study.
        StoppedEarly: a search is at work on it.
        TrackingError: MLflow does not answer.
    """
    with open_study(workspace, name) as store:
        if is_alive(workspace, name):
            raise StoppedEarly(
                f"study {name}: a search is running on it, and sends its results to MLflow itself; "
                "wait until it has ended"
            )
        with locked(store.folder.lock, f"study {name}"):
            return _send(store, workspace, name)


def _send(store: StudyStore, workspace: Path, name: str) -> StudySync:
    """Send what MLflow lacks of a study, and register its model if that was not done."""
    mirror = MlflowMirror(store, workspace)
    result = store.result() if store.get("result") is not None else None
    model_uri = result.model_uri if result is not None else None
    if mirror.is_complete() and (result is None or result.run_id == mirror.run_id):
        return StudySync(name, "complete", run_id=mirror.run_id, model_uri=model_uri)
    num_unsent = len(store.unsent())
    run_id = mirror.close("KILLED" if result is None else "FINISHED")
    if result is None or result.run_id == run_id:
        return StudySync(name, "sent", num_unsent, run_id, model_uri)
    model_uri = _register_result(store, workspace, run_id).model_uri
    return StudySync(name, "sent", num_unsent, run_id, model_uri, is_registered=True)


def publish(
    store: StudyStore, workspace: Path, run_id: str | None, result: SearchResult, progress: Progress
) -> SearchResult:
    """Keep a result in the study, then register the model; without MLflow (no `run_id`) `sync` does that later."""
    store.put("result", result.to_json())
    if run_id is not None:
        progress.say("writing the model to MLflow")
        try:
            return _register_result(store, workspace, run_id)
        except TrackingError as error:
            progress.say(f"the model is not registered yet: {error}")
    return result


def _register_result(store: StudyStore, workspace: Path, run_id: str) -> SearchResult:
    """Log and register the model of a finished study on its run; return the result, which the study keeps.

    A result whose `run_id` is None waits for this; it may be repeated.

    Raises:
        ModelRefused: the model's folder was damaged.
        TrackingError: MLflow does not answer; the result stays as it was.
    """
    result, spec = store.result(), store.spec()
    winner, evaluation = result.winner, result.evaluation
    champion_blocker, client = champion_blocker_of(evaluation.tested, spec.classes), open_client(workspace)
    metrics = {
        **evaluation_metrics(evaluation),
        result.objective: winner.score,
        "model/params": winner.num_params,
        "model/mflops": winner.mflops,
        "model/dense_params": winner.dense_params,
    }
    study_tags = {"pipeline.study": result.study, "trial.number": str(winner.trial)}
    wanted = Registration(
        safe_name(spec.dataset),
        metrics={name: value for name, value in metrics.items() if value is not None},
        step=winner.epochs,
        tags={**study_tags, **decision_tags(evaluation), **flaw_tags(champion_blocker)},
        is_champion=not champion_blocker,
    )
    registered = log_and_register(client, workspace, run_id, store.folder.model, wanted)
    log_result(client, run_id, flaw_tags(champion_blocker), {})
    result = replace(result, run_id=run_id, model_uri=registered.model_uri, is_champion=not champion_blocker)
    store.put("result", result.to_json())
    return result
