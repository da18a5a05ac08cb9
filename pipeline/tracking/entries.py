"""What MLflow shows of a study, as its own values: metrics, params, tags, names and texts. Nothing is sent here."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.records import OBJECTIVES, EpochRow, TrialRow
from pipeline.spec import StudySpec
from pipeline.states import TrialState

_INACTIVE = "-"  # the parallel-coordinates chart drops runs that lack a column
_DIGEST_LENGTH = 36  # MLflow's limit on the digest of a data set
_MAX_VALUE = 6000  # MLflow's limit on the text of a param
_STATE_TAG = "trial.state"
_RUN_NAME_TAG = "mlflow.runName"
FRONT_FILE = "front.json"
# MLflow stores the same value of a metric at the same step and time once. The times here follow from the
# study alone, so a point that is sent again after a kill between sending and marking doubles nothing.
Clock = int  # milliseconds since 1970


def points(values: dict[str, float], clock: Clock, step: int = 0) -> list[Any]:
    """Return metrics of one step without NaN and infinities: one of them ruins the axis of a chart."""
    from mlflow.entities import Metric

    return [Metric(key, float(v), clock, step) for key, v in values.items() if math.isfinite(v)]


def duration(row: EpochRow) -> float:
    """Return the milliseconds that an epoch took; 0 when it was not measured."""
    return 1000 * row.seconds if math.isfinite(row.seconds) else 0.0


def epoch_points(rows: Sequence[EpochRow], start: float) -> list[Any]:
    """Return the metrics of epochs; `start` is the time (ms) at which the first of them began.

    Long lists are sent in parts. The learning rate, which is always finite, is the last of an epoch: where it has
    arrived, the whole epoch has.
    """
    result = []
    for row in rows:
        start += duration(row)
        values = dataclasses.asdict(row)
        step = values.pop("step")
        values["epoch_seconds"] = values.pop("seconds")
        values["learning_rate"] = values.pop("learning_rate")
        result += points(values, round(start), step)
    return result


def cost_values(trial: TrialRow) -> dict[str, float]:
    """Return what a trial's network costs by arithmetic."""
    return {"model/params": trial.num_params, "model/mflops": trial.mflops, "model/size_mb": trial.size_mb}


def rung_values(trial: TrialRow, objective: str) -> dict[str, float]:
    """Return what is known of a trial at the end of its highest rung."""
    values = {
        f"best_{objective}": math.nan if trial.score is None else trial.score,
        "best_epoch": trial.best_epoch,
        "rung": trial.rung,
        "samples": trial.samples,
    }
    return values if trial.latency_ms is None else {**values, "model/latency_ms_b1": trial.latency_ms}


def last_steps(run: Any) -> dict[str, int]:
    """Return the step of the newest point of each metric of a run."""
    return {metric.key: metric.step for metric in run.data.to_proto().metrics}


def trial_tags(trial: TrialRow) -> dict[str, str]:
    """Return a trial's state, reason and name; one that waits at a rung is shown as completed, which it may well be."""
    state = TrialState.COMPLETED if trial.state == TrialState.PAUSED else trial.state
    has_begun_only = trial.score is None and trial.state in (TrialState.PLANNED, TrialState.RUNNING)
    name = f"t{trial.number:03d}" if has_begun_only else _final_name(trial)
    reason = {"trial.reason": trial.reason[:_MAX_VALUE]} if trial.reason else {}
    return {_STATE_TAG: state, _RUN_NAME_TAG: name, **reason}


def run_status(trial: TrialRow) -> str:
    """Return MLflow's status of a trial's run."""
    if trial.state in (TrialState.PLANNED, TrialState.RUNNING):
        return "RUNNING"
    return "FINISHED" if trial.state in (TrialState.COMPLETED, TrialState.PAUSED, TrialState.PRUNED) else "FAILED"


def trial_params(trial: TrialRow, names: Iterable[str]) -> dict[str, str]:
    """Return a trial's hyperparameters, a dash for those that it does not use."""
    return {name: str(trial.params.get(name, _INACTIVE)) for name in names}


def param_entries(params: dict[str, str]) -> list[Any]:
    """Return params as MLflow's."""
    from mlflow.entities import Param

    return [Param(name, value[:_MAX_VALUE]) for name, value in params.items()]


def tag_entries(tags: dict[str, str]) -> list[Any]:
    """Return tags as MLflow's."""
    from mlflow.entities import RunTag

    return [RunTag(name, value[:_MAX_VALUE]) for name, value in tags.items()]


def parent_params(spec: StudySpec) -> dict[str, str]:
    """Return the params of the parent run, flat."""
    image = spec.image
    params = {
        "space": spec.space.get("name", _INACTIVE),
        "oracle": spec.oracle,
        "seed": spec.seed,
        "objective": spec.objective,
        "minimise": spec.minimise or _INACTIVE,
        "image": f"{image.height}x{image.width}x{image.channels}",
        "num_classes": len(spec.classes),
        **{f"num_images_{split}": number for split, number in spec.num_images.items()},
    }
    return {name: str(value) for name, value in params.items()}


def origin_tags(spec: StudySpec) -> dict[str, str]:
    """Return where a study came from and which versions of this program worked on it, as far as that is known."""
    tags = {}
    if spec.forked_from is not None:
        tags["pipeline.forked_from"] = spec.forked_from
    if spec.versions_seen:
        tags["pipeline.versions_seen"] = ", ".join(spec.versions_seen)
    return tags


def parent_note(spec: StudySpec) -> str:
    """Return the description of the parent run, Markdown."""
    several = ", several labels an image" if spec.is_multi_label else ""
    front = f" `{FRONT_FILE}` holds the best trials at each cost." if spec.minimise else ""
    return (
        f"Search **{spec.study}** over **{spec.dataset}**: {len(spec.classes)} classes{several},"
        f" oracle {spec.oracle}, objective {spec.objective}, seed {spec.seed}.\n\n"
        "Its child runs are the trials; a value of `-` is a hyperparameter that the trial does not use."
        f" `space.json` is the search space. `best_{spec.objective}` here is the best so far, by number of rungs"
        f" that trials finished.{front}"
    )


def dataset_input(spec: StudySpec) -> Any:
    """Return the data set as an MLflow input; MLflow's own digest would look at the first values only."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=spec.dataset,
        digest=spec.fingerprint[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": spec.source}),
        profile=json.dumps({"num_images": spec.num_images, "num_classes": len(spec.classes)}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _final_name(trial: TrialRow) -> str:
    """Return the name under which a trial is reviewed, such as `t012 d3 f64 max 0.912`."""
    words = [f"t{trial.number:03d}"]
    for name, prefix in (("depth", "d"), ("filters", "f"), ("pooling", "")):
        if name in trial.params:
            words.append(f"{prefix}{trial.params[name]}")
    words.append(trial.state.lower() if trial.score is None else f"{trial.score:.3f}")
    return " ".join(words)


def best_score(trials: Iterable[TrialRow], objective: str) -> float:
    """Return the best score of trials of which at least one has a score."""
    scores = [trial.score for trial in trials if trial.score is not None]
    return max(scores) if OBJECTIVES[objective] == "max" else min(scores)


def front(trials: Iterable[TrialRow], objective: str, minimise: str) -> list[TrialRow]:
    """Return the trials that no cheaper one matches, cheapest first."""
    sign = 1 if OBJECTIVES[objective] == "max" else -1
    measured = [(trial.cost(minimise), -sign * trial.score, trial) for trial in trials if trial.score is not None]
    result: list[TrialRow] = []
    best = math.inf
    for _, loss, trial in sorted((item for item in measured if item[0] is not None), key=lambda item: item[:2]):
        if loss < best:
            best = loss
            result.append(trial)
    return result


def front_table(trials: Sequence[TrialRow], objective: str, minimise: str) -> str:
    """Return a front as the JSON that MLflow shows as a table."""
    rows = [[trial.number, trial.score, trial.cost(minimise), json.dumps(trial.params)] for trial in trials]
    return json.dumps({"columns": ["trial", objective, minimise, "hyperparameters"], "data": rows})
