"""A study on its way to MLflow: the steps of `pipeline sync`, and those that `pipeline search` shares with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, PipelineError, StoppedEarly, TrackingError
from pipeline.files import locked
from pipeline.records import num_networks
from pipeline.search.mirroring import BackgroundMirror
from pipeline.search.store import StudyStore, is_alive, list_studies, open_study
from pipeline.search.verdict import flaw_of
from pipeline.text import safe_name
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
    result = store.get("result")
    if mirror.is_complete() and (result is None or result["run_id"] == mirror.run_id):
        return facts_of(name, "complete", run_id=mirror.run_id, model_uri=result and result["model_uri"])
    num_unsent = len(store.unsent())
    run_id = mirror.close("KILLED" if result is None else "FINISHED")
    if result is None or result["run_id"] == run_id:
        return facts_of(name, "sent", num_unsent, run_id=run_id, model_uri=result and result["model_uri"])
    result = register_result(store, workspace, run_id)
    return facts_of(name, "sent", num_unsent, run_id=run_id, model_uri=result["model_uri"], is_registered=True)


def facts_of(name: str, status: str, trials_sent: int = 0, **changes: Any) -> dict[str, Any]:
    """Return what was done about a study, as `--json` prints it."""
    facts = {"study": name, "status": status, "trials_sent": trials_sent}
    return {**facts, "run_id": None, "model_uri": None, "is_registered": False, **changes}


def register_result(store: StudyStore, workspace: Path, run_id: str) -> dict[str, Any]:
    """Log and register the model of a finished study on its run; return the result, which the study keeps.

    A result whose `run_id` is None waits for this; it may be repeated.

    Raises:
        ModelRefused: the model's folder was damaged.
        TrackingError: MLflow does not answer; the result stays as it was.
    """
    result, objective = store.get("result"), store.get("objective")
    winner, test = result["winner"], result["test"]
    flaw, client = flaw_of(test, store.get("classes")), open_client(workspace)
    registered = log_and_register(
        client,
        workspace,
        run_id,
        store.folder.model,
        safe_name(store.get("dataset")),
        metrics={
            **test_metrics(test),
            **temperature_metrics(result.get("temperature")),
            **gain_metrics(result.get("search_gain")),
            **robustness_metrics(result.get("robustness")),
            **latency_metrics(result.get("latency")),
            objective: winner[objective],
            "model/params": winner["num_params"],
            "model/mflops": winner["mflops"],
            **({"model/dense_params": winner["dense_params"]} if "dense_params" in winner else {}),
        },
        step=winner["epochs"],
        tags={
            "pipeline.study": result["study"],
            "trial.number": str(winner["trial"]),
            **taught_tags(result.get("distillation")),
            **ensemble_tags(result),
            **flaw_tags(flaw),
        },
        is_champion=not flaw,
    )
    log_result(client, run_id, flaw_tags(flaw), {})
    result |= {"run_id": run_id, "model_uri": registered.model_uri, "is_champion": not flaw}
    store.put("result", result)
    return result


def taught_tags(distillation: dict[str, Any] | None) -> dict[str, str]:
    """Return the tag that names the trial from which the winner learnt; none if it did not."""
    if distillation is None or not distillation["is_kept"]:
        return {}
    return {"pipeline.taught_by_trial": str(distillation["teacher"])}


def ensemble_tags(result: dict[str, Any]) -> dict[str, str]:
    """Return the tag that says of how many networks a model is the mean; none if it is one."""
    number = num_networks(result)
    return {"pipeline.num_networks": str(number)} if number > 1 else {}


def flaw_tags(flaw: str) -> dict[str, str]:
    """Return the tags by which MLflow shows that a model is not worth to be the champion."""
    return {"pipeline.beats_majority": "false", "pipeline.flaw": flaw} if flaw else {}


def test_metrics(test: dict[str, Any]) -> dict[str, float]:
    """Return what was measured on the test images, and what a leaking split would add, as metrics."""
    low, high = test["ci95"]
    metrics = {"test/accuracy": test["accuracy"], "test/ci95_low": low, "test/ci95_high": high}
    for name, figure in test.get("metrics", {}).items():
        if figure["value"] is not None:
            metrics[f"test/{name}"] = figure["value"]
        if figure["ci95"] is not None:
            low, high = figure["ci95"]
            metrics |= {f"test/{name}_ci95_low": low, f"test/{name}_ci95_high": high}
    if (majority := test.get("majority")) and majority["value"] is not None:
        metrics[f"test/majority_{majority['metric']}"] = majority["value"]
    if found := test.get("not_finite"):
        metrics["test/num_not_finite"] = found["num_images"]
    leaked = test.get("leaked")
    if leaked is None:
        return metrics
    return {**metrics, "test/accuracy_with_leaked": leaked["accuracy_with"], "test/num_leaked": leaked["num_images"]}


def temperature_metrics(temperature: dict[str, Any] | None) -> dict[str, float]:
    """Return a temperature and what it does to the test images as metrics; none for a model of an earlier version."""
    if temperature is None:
        return {}
    test = {f"test/{name}": value for name, value in temperature["test"].items()}
    return {"model/temperature": temperature["value"], **test}


def gain_metrics(gain: dict[str, Any] | None) -> dict[str, float]:
    """Return what a search gained over the default network as metrics; none where there is no such network."""
    if gain is None or gain["reason"]:
        return {}
    low, high = gain["ci95"]
    names = {"search_gain": gain["gain"], "search_gain_ci95_low": low, "search_gain_ci95_high": high}
    return {**{f"test/{name}": value for name, value in names.items()}, f"test/default_{gain['metric']}": gain["value"]}


def robustness_metrics(robustness: dict[str, Any] | None) -> dict[str, float]:
    """Return the accuracy on changed test images as metrics; none for a model of an earlier version."""
    if robustness is None:
        return {}
    shifts = {f"shift_{pixels}": value for pixels, value in robustness["shifts"].items()}
    named = {"unchanged": robustness["accuracy"], **shifts, **robustness["changes"]}
    return {f"robustness/{name}": value for name, value in named.items()}


def latency_metrics(latency: dict[str, Any] | None) -> dict[str, float]:
    """Return the milliseconds for one image as metrics; none if a model has none, or no core could be chosen."""
    names = {
        "default_ms": "model/latency_ms_b1_default",
        "one_core_ms": "model/latency_ms_b1",
    }  # the second as of trials
    return {names[name]: value for name, value in (latency or {}).items() if value is not None}
