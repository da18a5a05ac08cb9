"""The MLflow mirror of a study: sends what the study holds and MLflow does not; reads no file."""

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records import TrialRow
from pipeline.spec import StudySpec
from pipeline.states import FINAL_STATES, TrialState
from pipeline.study_view import PARENT, MirrorMark, StudyView
from pipeline.tracking import entries
from pipeline.tracking.entries import Clock
from pipeline.tracking.experiments import experiment_id
from pipeline.tracking.store import STUDY_TAG, WORKSPACE_TAG, open_client, tracking_errors, workspace_tag
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NUMBER_TAG = "trial.number"
_PARENT_TAG = "mlflow.parentRunId"
_RESTING_STATES = (*FINAL_STATES, TrialState.PAUSED)  # nothing trains, so the run has ended; a promotion opens it again


@dataclass
class _Child:
    """The run of a trial as MLflow holds it: what need not be sent again.

    `clock` is the time of the last epoch sent, `last_step` its step, `last_rung` the last rung with a score.
    """

    run_id: str
    clock: float
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    last_step: int = 0
    last_rung: int = -1
    is_described: bool = False


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
        self._spec: StudySpec
        self._marks: dict[int | None, MirrorMark] = {}
        self._trials: dict[int, TrialRow] = {}
        self._children: dict[int, _Child] = {}
        self._doubtful: set[int | None] = set()  # trials whose run may have been made twice
        self._parent_start: Clock = 0
        self._parent_steps: dict[str, int] = {}

    def push(self) -> None:
        """Send everything that the study holds and MLflow does not; a closed run is opened again.

        Raises:
            TrackingError: the store cannot be used; the next push tries again.
        """
        try:
            if self._client is None:
                self._client = self._connect()
            with tracking_errors("sending the study"):
                for version, trial in self._view.unsent():
                    self._trials[trial.number] = trial
                    self._push_trial(version, trial)
                self._push_progress()
        except BaseException:
            self._client = None  # what was sent last is unknown: look again before the next push
            raise

    def close(self, state: str) -> str:
        """Send the rest, end the parent run as `state` (FINISHED, FAILED or KILLED) and return its run id.

        Runs of trials that still train, or wait to start again, end as KILLED; a later push opens them again.
        """
        self.push()
        with tracking_errors("ending the runs"):
            for number, mark in list(self._marks.items()):
                if number is not PARENT and mark.run_id and not mark.is_closed:
                    self._client.set_terminated(mark.run_id, "KILLED")
                    self._children.pop(number, None)
                    self._mark(number, MirrorMark(mark.run_id, mark.version, is_closed=True))
            self._delete_doubles()
            self._end_parent(state)
        self._client = None
        return str(self.run_id)

    def _delete_doubles(self) -> None:
        """Delete what a server that hung made later than it was asked for again."""
        for number in self._doubtful:
            if number is not PARENT:
                self._find_child(number)
        if PARENT in self._doubtful:
            for run in self._unmarked_parents(self._client):
                self._client.delete_run(run.info.run_id)

    def is_complete(self) -> bool:
        """Tell whether MLflow holds the whole study and the parent run was ended; nothing is sent.

        Raises:
            TrackingError: the store cannot be used.
        """
        mark = self._view.marks().get(PARENT)
        if mark is None or not mark.is_closed or self._view.unsent():
            return False
        client = open_client(self._workspace)
        with tracking_errors("looking for the parent run"):
            self.run_id = mark.run_id
            return _active_run(client, mark.run_id) is not None

    def _connect(self) -> "MlflowClient":
        """Open the store and find or create the parent run; its trials are looked at when they have news."""
        client = open_client(self._workspace)
        self._spec = self._view.spec()
        self._marks = self._view.marks()
        if not self._trials:
            self._trials = {trial.number: trial for trial in self._view.trials()}
        name = self._spec.dataset
        self.experiment_id = experiment_id(client, name, self._workspace, self._spec.objective)
        with tracking_errors("opening the parent run"):
            run = self._find_parent(client) or self._create_parent(client)
            self.run_id, self._parent_start = run.info.run_id, run.info.start_time
            self._parent_steps = entries.last_steps(run)
            self._open_parent(client, run)
        return client

    def _mark(self, number: int | None, mark: MirrorMark) -> None:
        self._view.set_mark(number, mark)
        self._marks[number] = mark

    def _find_parent(self, client: "MlflowClient") -> Any:
        """Return the parent run, even if the process died before its creation was marked; None if there is none."""
        mark = self._marks.get(PARENT)
        if mark is None:
            return None
        if mark.run_id:
            run = _active_run(client, mark.run_id)
            if run is None:  # deleted there, or another store than last time: replay all
                self._children.clear()
                for number in sorted(
                    self._marks, key=lambda number: number is PARENT
                ):  # last: half done, it begins again
                    self._mark(number, MirrorMark(""))
            return run
        self._doubtful.add(PARENT)
        return _keep_first(client, self._unmarked_parents(client))

    def _unmarked_parents(self, client: "MlflowClient") -> list[Any]:
        """Return the parent runs that were made for this study and are not described, hence not marked."""
        tags = f"tags.`{WORKSPACE_TAG}` = '{workspace_tag(self._workspace)}' and tags.`{STUDY_TAG}` = "
        found = search_runs(client, [str(self.experiment_id)], f"{tags}'{self._spec.study}'")
        return [run for run in found if _PARENT_TAG not in run.data.tags and not run.data.params]

    def _create_parent(self, client: "MlflowClient") -> Any:
        if PARENT not in self._marks:
            self._mark(PARENT, MirrorMark(""))  # before the run: if this is the last that works, it is looked for
        tags = {**self._common_tags(), "mlflow.note.content": entries.parent_note(self._spec)}
        return client.create_run(str(self.experiment_id), tags=tags, run_name=self._spec.study)

    def _open_parent(self, client: "MlflowClient", run: Any) -> None:
        """Set the parent run to RUNNING under this process; describe it unless that was done for certain."""
        mark, run_id = self._marks[PARENT], run.info.run_id
        if not mark.run_id or mark.is_closed:
            self._mark(PARENT, MirrorMark(run_id, mark.version))
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        tags = {**self._common_tags(), **entries.origin_tags(self._spec)}
        client.log_batch(run_id, tags=entries.tag_entries(tags))
        if mark.version == 0:
            client.log_batch(run_id, params=entries.param_entries(entries.parent_params(self._spec)))
            client.log_inputs(run_id, [entries.dataset_input(self._spec)])
            client.log_text(run_id, json.dumps(self._spec.space, indent=2), "space.json")
            split_table = Workspace(self._workspace).study(self._spec.study).split_table
            if split_table.is_file():
                client.log_artifact(run_id, str(split_table), "data")
            self._mark(PARENT, MirrorMark(run_id, 1))

    def _common_tags(self) -> dict[str, str]:
        return {
            STUDY_TAG: self._spec.study,
            WORKSPACE_TAG: workspace_tag(self._workspace),
            "pipeline.host": socket.gethostname(),
            "pipeline.pid": str(os.getpid()),
            "mlflow.source.name": "pipeline search",
            "mlflow.source.type": "LOCAL",
        }

    def _push_trial(self, version: int, trial: TrialRow) -> None:
        """Send what is new of one trial, then mark it; whatever fails in between is found out by the next push."""
        number = trial.number
        mark = self._marks.get(number)
        if (
            trial.state == TrialState.PLANNED
        ):  # it waits to start again after a kill; `close` ends its run if it never does
            run_id, is_closed = (mark.run_id, mark.is_closed) if mark else ("", True)
            self._mark(number, MirrorMark(run_id, version, is_closed))
            return
        child = self._children.pop(number, None) or self._open_child(trial, mark)
        self._send_news(trial, child)
        is_resting = trial.state in _RESTING_STATES
        if is_resting and child.status != entries.run_status(trial):
            self._client.set_terminated(child.run_id, entries.run_status(trial))
        child.status = entries.run_status(trial)
        self._mark(number, MirrorMark(child.run_id, version, is_resting))
        self._children[number] = child

    def _open_child(self, trial: TrialRow, mark: MirrorMark | None) -> _Child:
        """Find out what MLflow holds of a trial, or make its run."""
        run = None
        if mark is None:
            self._mark(trial.number, MirrorMark(""))  # before the run, as with the parent
        else:
            run = _active_run(self._client, mark.run_id) or self._find_child(trial.number)
        if run is not None:
            return self._found_child(trial.number, run)
        own = entries.trial_tags(trial)
        tags = {**self._common_tags(), _PARENT_TAG: str(self.run_id), _NUMBER_TAG: str(trial.number), **own}
        info = self._client.create_run(str(self.experiment_id), tags=tags).info
        return _Child(info.run_id, info.start_time, tags=own)

    def _found_child(self, number: int, run: Any) -> _Child:
        steps = entries.last_steps(run)
        last_step = steps.get("learning_rate", 0)
        sent = [row for row in self._view.epochs(number) if row.step <= last_step]
        return _Child(
            run.info.run_id,
            run.info.start_time + sum(map(entries.duration, sent)),
            run.info.status,
            dict(run.data.tags),
            last_step,
            steps.get("rung", -1),
            "model/params" in steps and set(self._spec.param_names) <= set(run.data.params),
        )

    def _find_child(self, number: int) -> Any:
        """Return the run of a trial that was asked for and perhaps made, or None; delete any further one."""
        self._doubtful.add(number)
        query = f"tags.`{_PARENT_TAG}` = '{self.run_id}' and tags.`{_NUMBER_TAG}` = '{number}'"
        found = search_runs(self._client, [str(self.experiment_id)], query)
        return _keep_first(self._client, found, self._marks[number].run_id)

    def _send_news(self, trial: TrialRow, child: _Child) -> None:
        """Send the epochs and facts of a trial that its run lacks, all in one call; nothing if there are none."""
        if trial.state == TrialState.RUNNING and child.status != "RUNNING":
            self._client.update_run(child.run_id, status="RUNNING")
        params, metrics = [], []
        if not child.is_described:
            params = entries.param_entries(entries.trial_params(trial, self._spec.param_names))
            metrics += entries.points(entries.cost_values(trial), round(child.clock))
        rows = self._view.epochs(trial.number, child.last_step)
        metrics += entries.epoch_points(rows, child.clock)
        child.clock += sum(map(entries.duration, rows))
        child.last_step = rows[-1].step if rows else child.last_step
        tags = {key: value for key, value in entries.trial_tags(trial).items() if child.tags.get(key) != value}
        if trial.rung > child.last_rung:
            values = entries.rung_values(trial, self._spec.objective)
            metrics += entries.points(values, round(child.clock), trial.rung)
        if trial.state in _RESTING_STATES and (tags or trial.rung > child.last_rung or not child.is_described):
            metrics += entries.points({"time/train_s": trial.seconds}, round(child.clock), child.last_step)
        if params or metrics or tags:
            self._client.log_batch(child.run_id, metrics=metrics, params=params, tags=entries.tag_entries(tags))
        child.tags |= tags
        child.last_rung, child.is_described = trial.rung, True

    def _push_progress(self) -> None:
        """Log the best score so far on the parent, one point for each number of rungs that trials finished."""
        num_rungs = sum(trial.rung + 1 for trial in self._trials.values() if trial.score is not None)
        if num_rungs:
            best = entries.best_score(self._trials.values(), self._spec.objective)
            self._log_on_parent({f"best_{self._spec.objective}": best}, num_rungs)

    def _log_on_parent(self, values: dict[str, float], step: int) -> None:
        """Log metrics on the parent unless it has points at this or a later step."""
        if all(self._parent_steps.get(name, -1) >= step for name in values):
            return
        clock = self._parent_start + round(1000 * sum(trial.seconds for trial in self._trials.values()))
        self._client.log_batch(str(self.run_id), metrics=entries.points(values, clock, step))
        self._parent_steps |= dict.fromkeys(values, step)

    def _end_parent(self, state: str) -> None:
        trials = self._trials.values()
        num_done = sum(entries.run_status(trial) == "FINISHED" for trial in trials)
        num_failed = sum(entries.run_status(trial) == "FAILED" for trial in trials)
        values: dict[str, float] = {"trials_completed": num_done, "trials_failed": num_failed}
        self._log_on_parent(values, num_done + num_failed)
        objective, minimise = self._spec.objective, self._spec.minimise
        if minimise:
            table = entries.front_table(entries.front(trials, objective, minimise), objective, minimise)
            self._client.log_text(str(self.run_id), table, entries.FRONT_FILE)
            shown = json.dumps([{"path": entries.FRONT_FILE, "type": "table"}])
            self._client.set_tag(str(self.run_id), "mlflow.loggedArtifacts", shown)
        self._client.set_terminated(str(self.run_id), state)
        self._mark(PARENT, MirrorMark(str(self.run_id), 1, is_closed=True))


def _active_run(client: "MlflowClient", run_id: str) -> Any:
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


def _keep_first(client: "MlflowClient", runs: Iterable[Any], run_id: str = "") -> Any:
    """Return the run `run_id`, else the oldest of those found, and delete the others; None if there is none.

    A run is made twice when a server makes it but its answer is lost.
    """
    found = sorted(runs, key=lambda run: (run.info.run_id != run_id, run.info.start_time, run.info.run_id))
    for run in found[1:]:
        client.delete_run(run.info.run_id)
    return found[0] if found else None


def search_runs(client: "MlflowClient", experiment_ids: list[str], query: str) -> Iterable[Any]:
    """Yield all active runs that match a filter, page by page."""
    token = None
    while True:
        page = client.search_runs(experiment_ids, query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
