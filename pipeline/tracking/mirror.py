"""The MLflow mirror of a study: sends what the study holds and MLflow does not; reads no file."""

import dataclasses
import itertools
import json
import math
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records import (
    COMPLETED,
    FINAL_STATES,
    PARENT,
    PAUSED,
    PLANNED,
    PRUNED,
    EpochRow,
    MirrorMark,
    StudyView,
    TrialRow,
)
from pipeline.tracking.store import (
    STUDY_TAG,
    WORKSPACE_TAG,
    experiment_id,
    open_client,
    tracking_errors,
    workspace_tag,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

NUMBER_TAG = "trial.number"
PARENT_TAG = "mlflow.parentRunId"
INACTIVE = "-"  # the parallel-coordinates chart drops runs that lack a column
DIGEST_LENGTH = 36  # MLflow's limit on the digest of a data set
MAX_PARAMS = 100  # MLflow's limit on one log_batch; 1000 for metrics
MAX_EPOCHS = 160  # 160 epochs x 6 metrics < 1000
MAX_VALUE = 6000  # MLflow's limit on the text of a param
# MLflow stores the same value of a metric at the same step and time once. The times here follow from the
# study alone, so a point that is sent again after a kill between sending and marking doubles nothing.
Clock = int  # milliseconds since 1970


class MlflowMirror:
    """Implements records.Mirror: parent run = study, child run = trial.

    A new mirror over the same view (after a resume or a kill -9) repeats no run and no metric point. `run_id`
    is the parent run and `experiment_id` its experiment; both are None before the first push.
    """

    def __init__(self, view: StudyView, workspace: Path) -> None:
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._view = view
        self._workspace = workspace
        self._client: Any = None
        self._facts: dict[str, Any] = {}
        self._children: dict[int, Any] = {}  # mlflow RunInfo by trial number
        self._sent_states: dict[int, str] = {}
        self._parent_start: Clock = 0

    def push(self) -> None:
        """Send everything that the study holds and MLflow does not; a closed run is opened again.

        Raises:
            TrackingError: the store cannot be used; the next push tries again.
        """
        try:
            if self._client is None:
                self._client = self._connect()
            with tracking_errors("sending the study"):
                marks = self._view.marks()
                trials = self._view.trials()
                for trial in trials:
                    mark = marks.get(trial.number)
                    if trial.state != PLANNED and not (mark and mark.is_closed):
                        self._push_trial(trial, mark)
                self._push_progress(trials, marks[PARENT])
        except BaseException:
            self._client = None  # what was sent last is unknown: look again before the next push
            raise

    def close(self, state: str) -> str:
        """Send the rest, end the parent run as `state` (FINISHED, FAILED or KILLED) and return its run id.

        Runs of trials that are not final end as KILLED (also those that wait to start again after a kill), or as
        FINISHED when they wait at a rung of a finished study; a later push opens them again.
        """
        self.push()
        with tracking_errors("ending the runs"):
            trials = self._view.trials()
            states = {trial.number: trial.state for trial in trials}
            for number, info in self._children.items():
                trial_state = states.get(number, PLANNED)
                if trial_state not in FINAL_STATES:
                    is_waiting = trial_state == PAUSED and state != "KILLED"
                    self._client.set_terminated(info.run_id, "FINISHED" if is_waiting else "KILLED")
            self._end_parent(trials, state)
        self._client = None
        return str(self.run_id)

    def _connect(self) -> "MlflowClient":
        """Open the store, find or create the parent run and see which child runs there are."""
        client = open_client(self._workspace)
        self._facts = self._view.facts()
        self._sent_states = {}
        self.experiment_id = experiment_id(client, self._facts["dataset"], self._workspace)
        with tracking_errors("opening the parent run"):
            mark = self._view.marks().get(PARENT)
            run = active_run(client, mark.run_id) if mark else None
            if run is None:
                if mark:  # deleted there, or another store than last time: replay all
                    self._forget()
                run = self._find_parent(client) or self._create_parent(client)
                mark = MirrorMark(run.info.run_id)
                self._view.set_mark(PARENT, mark)
            self.run_id, self._parent_start = run.info.run_id, run.info.start_time
            self._open_parent(client, mark or MirrorMark(run.info.run_id))
            children = search_runs(client, [self.experiment_id], f"tags.`{PARENT_TAG}` = '{self.run_id}'")
            self._children = {int(child.data.tags[NUMBER_TAG]): child.info for child in children}
        return client

    def _forget(self) -> None:
        for number in self._view.marks():
            self._view.set_mark(number, MirrorMark(""))

    def _find_parent(self, client: "MlflowClient") -> Any:
        """Return a parent run whose creation was not marked any more because the process died, or None."""
        query = f"tags.`{WORKSPACE_TAG}` = '{workspace_tag(self._workspace)}' and attributes.status = 'RUNNING'"
        for run in search_runs(client, [str(self.experiment_id)], query):
            tags = run.data.tags
            # The params are sent after the mark: with params it is another study of the same name.
            if tags.get(STUDY_TAG) == self._facts["study"] and PARENT_TAG not in tags and not run.data.params:
                return run
        return None

    def _create_parent(self, client: "MlflowClient") -> Any:
        tags = {**self._common_tags(), "mlflow.note.content": parent_note(self._facts)}
        return client.create_run(str(self.experiment_id), tags=tags, run_name=self._facts["study"])

    def _open_parent(self, client: "MlflowClient", mark: MirrorMark) -> None:
        """Set the parent run to RUNNING under this process; describe it unless that was done for certain."""
        from mlflow.entities import RunTag

        run_id = mark.run_id
        client.update_run(run_id, status="RUNNING")
        client.log_batch(run_id, tags=[RunTag(*item) for item in self._common_tags().items()])
        if mark.last_step == 0:
            log_params(client, run_id, parent_params(self._facts))
            client.log_inputs(run_id, [dataset_input(self._facts)])
            client.log_text(run_id, json.dumps(self._facts["space"], indent=2), "space.json")
            if manifest := self._facts.get("split_manifest"):
                client.log_artifact(run_id, manifest, "data")
        if mark.is_closed:
            self._view.set_mark(PARENT, dataclasses.replace(mark, is_closed=False))

    def _common_tags(self) -> dict[str, str]:
        return {
            STUDY_TAG: self._facts["study"],
            WORKSPACE_TAG: workspace_tag(self._workspace),
            "pipeline.host": socket.gethostname(),
            "pipeline.pid": str(os.getpid()),
            "mlflow.source.name": "pipeline search",
            "mlflow.source.type": "LOCAL",
        }

    def _push_trial(self, trial: TrialRow, mark: MirrorMark | None) -> None:
        from mlflow.entities import RunTag

        info, mark = self._open_child(trial, mark)
        state_tags = [RunTag("trial.state", trial.state)] if self._is_news(trial) else []
        rows = self._view.epochs(trial.number, mark.last_step)
        if rows or state_tags:
            metrics = epoch_metrics(rows, self._rows_start(trial.number, mark, info))
            for start in range(0, max(1, len(rows)), MAX_EPOCHS):
                chunk = rows[start : start + MAX_EPOCHS]
                points = list(itertools.chain(*metrics[start : start + MAX_EPOCHS]))
                self._client.log_batch(info.run_id, metrics=points, tags=state_tags)
                if chunk:
                    mark = dataclasses.replace(mark, last_step=chunk[-1].step)
                    self._view.set_mark(trial.number, mark)
            self._sent_states[trial.number] = trial.state
        if trial.state in FINAL_STATES:
            self._end_child(trial, mark, info)

    def _is_news(self, trial: TrialRow) -> bool:
        return self._sent_states.get(trial.number) != trial.state

    def _rows_start(self, number: int, mark: MirrorMark, info: Any) -> float:
        """Return the time (ms) of the last epoch that was sent: the start plus the seconds of its epochs."""
        sent = self._view.epochs(number) if mark.last_step else []
        return float(info.start_time + sum(duration(row) for row in sent if row.step <= mark.last_step))

    def _open_child(self, trial: TrialRow, mark: MirrorMark | None) -> tuple[Any, MirrorMark]:
        """Return the run of a trial, RUNNING and with its params, and the trial's mark."""
        info = self._children.get(trial.number)
        is_first_look = trial.number not in self._sent_states
        if info is None:
            tags = {**self._common_tags(), PARENT_TAG: str(self.run_id), NUMBER_TAG: str(trial.number)}
            name = f"t{trial.number:03d}"
            info = self._client.create_run(str(self.experiment_id), tags=tags, run_name=name).info
            self._children[trial.number] = info
        elif is_first_look and info.status != "RUNNING":
            self._client.update_run(info.run_id, status="RUNNING")
        if mark is None or mark.run_id != info.run_id:
            mark = MirrorMark(info.run_id)
            self._view.set_mark(trial.number, mark)
        if is_first_look and mark.last_step == 0:
            params = {name: text(trial.params.get(name, INACTIVE)) for name in self._facts["param_names"]}
            costs = {"model/params": trial.num_params, "model/mflops": trial.mflops}
            log_params(self._client, info.run_id, params, points(costs, info.start_time))
        return info, mark

    def _end_child(self, trial: TrialRow, mark: MirrorMark, info: Any) -> None:
        from mlflow.entities import RunTag

        values = {"time/train_s": trial.seconds}
        if trial.score is not None:
            values |= {"best_val_accuracy": trial.score, "best_epoch": trial.best_epoch}
        tags = [RunTag("trial.reason", trial.reason[:MAX_VALUE])] if trial.reason else []
        end = info.start_time + round(1000 * trial.seconds)
        self._client.log_batch(info.run_id, metrics=points(values, end), tags=tags)
        self._client.update_run(info.run_id, name=final_name(trial))
        status = "FINISHED" if trial.state in (COMPLETED, PRUNED) else "FAILED"
        self._client.set_terminated(info.run_id, status)
        self._view.set_mark(trial.number, dataclasses.replace(mark, is_closed=True))

    def _push_progress(self, trials: Sequence[TrialRow], mark: MirrorMark) -> None:
        """Log the best score so far on the parent, one point for each number of trials that have a score."""
        scores = [trial.score for trial in trials if trial.score is not None]
        if len(scores) > mark.last_step:
            self._client.log_batch(mark.run_id, metrics=self._progress(trials, max(scores), len(scores)))
            self._view.set_mark(PARENT, dataclasses.replace(mark, last_step=len(scores)))

    def _progress(self, trials: Sequence[TrialRow], best: float, step: int) -> list[Any]:
        return points({"best_val_accuracy": best}, self._parent_clock(trials), step)

    def _parent_clock(self, trials: Sequence[TrialRow]) -> Clock:
        return self._parent_start + round(1000 * sum(trial.seconds for trial in trials))

    def _end_parent(self, trials: Sequence[TrialRow], state: str) -> None:
        states = [trial.state for trial in trials]
        num_done = sum(state in (COMPLETED, PRUNED) for state in states)
        num_failed = sum(state in FINAL_STATES for state in states) - num_done
        values: dict[str, float] = {"trials_completed": num_done, "trials_failed": num_failed}
        metrics = points(values, self._parent_clock(trials), num_done + num_failed)
        scores = [trial.score for trial in trials if trial.score is not None]
        if scores:  # a promoted trial may have become better after the last point
            metrics += self._progress(trials, max(scores), len(scores))
        mark = self._view.marks()[PARENT]
        self._client.log_batch(mark.run_id, metrics=metrics)
        self._client.set_terminated(mark.run_id, state)
        self._view.set_mark(PARENT, dataclasses.replace(mark, is_closed=True))


def active_run(client: "MlflowClient", run_id: str) -> Any:
    """Return a run that exists and was not deleted, else None."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def search_runs(client: "MlflowClient", experiment_ids: list[str], query: str) -> Iterable[Any]:
    """Yield all active runs that match a filter, page by page."""
    token = None
    while True:
        page = client.search_runs(experiment_ids, query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def points(values: dict[str, float], clock: Clock, step: int = 0) -> list[Any]:
    """Return metrics of one step without NaN and infinities: one of them ruins the axis of a chart."""
    from mlflow.entities import Metric

    return [Metric(key, float(v), clock, step) for key, v in values.items() if math.isfinite(v)]


def duration(row: EpochRow) -> float:
    """Return the milliseconds that an epoch took; 0 when it was not measured."""
    return 1000 * row.seconds if math.isfinite(row.seconds) else 0.0


def epoch_metrics(rows: Sequence[EpochRow], start: float) -> list[list[Any]]:
    """Return the metrics of each epoch; `start` is the time (ms) at which the first of them began."""
    result = []
    for row in rows:
        start += duration(row)
        values = dataclasses.asdict(row)
        step = values.pop("step")
        values["epoch_seconds"] = values.pop("seconds")
        result.append(points(values, round(start), step))
    return result


def log_params(client: "MlflowClient", run_id: str, params: dict[str, str], metrics: Sequence[Any] = ()) -> None:
    """Log params, and metrics with the first of them; the same value again is accepted by MLflow."""
    from mlflow.entities import Param

    entries = [Param(name, value[:MAX_VALUE]) for name, value in params.items()]
    for start in range(0, max(1, len(entries)), MAX_PARAMS):
        client.log_batch(run_id, params=entries[start : start + MAX_PARAMS], metrics=metrics if start == 0 else [])


def parent_params(facts: dict[str, Any]) -> dict[str, str]:
    """Return the params of the parent run, flat."""
    image = facts["image"]
    params = {
        "space": facts["space"].get("name", INACTIVE),
        "oracle": facts["oracle"],
        "seed": facts["seed"],
        "objective": facts["objective"],
        "image": f"{image['height']}x{image['width']}x{image['channels']}",
        "num_classes": len(facts["classes"]),
        **{f"num_images_{split}": number for split, number in facts["num_images"].items()},
    }
    return {name: text(value) for name, value in params.items()}


def parent_note(facts: dict[str, Any]) -> str:
    """Return the description of the parent run, Markdown."""
    return (
        f"Search **{facts['study']}** over **{facts['dataset']}**: {len(facts['classes'])} classes,"
        f" oracle {facts['oracle']}, objective {facts['objective']}, seed {facts['seed']}.\n\n"
        "Its child runs are the trials; a value of `-` is a hyperparameter that the trial does not use."
        " `space.json` is the search space. `best_val_accuracy` here is the best so far, by number of trials."
    )


def dataset_input(facts: dict[str, Any]) -> Any:
    """Return the data set as an MLflow input; MLflow's own digest would look at the first values only."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=facts["dataset"],
        digest=facts["fingerprint"][:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(facts["source"])}),
        profile=json.dumps({"num_images": facts["num_images"], "num_classes": len(facts["classes"])}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def final_name(trial: TrialRow) -> str:
    """Return the name under which a trial is reviewed, such as `t012 d3 f64 max 0.912`."""
    words = [f"t{trial.number:03d}"]
    for name, prefix in (("depth", "d"), ("filters", "f"), ("pooling", "")):
        if name in trial.params:
            words.append(f"{prefix}{trial.params[name]}")
    words.append(trial.state.lower() if trial.score is None else f"{trial.score:.3f}")
    return " ".join(words)


def text(value: Any) -> str:
    """Return a hyperparameter as MLflow keeps it."""
    return str(value)
