"""`pipeline runs`: the leaderboard of a study, or the studies of the workspace."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.terminal.output import json_option, next_steps, quoted, result, result_json, table, verbosity_options
from pipeline.records import Objective, TrialRow


@click.command("runs")
@click.argument("study", required=False)
@json_option
@verbosity_options
def command(study: str | None, as_json: bool) -> None:
    """Show the leaderboard of STUDY, best first; without STUDY, that of the newest one.

    \b
    Examples:
      pipeline runs
      pipeline runs digits-1 --json
    """
    from pipeline.errors import DataError
    from pipeline.search.ranking import pareto_front, ranked
    from pipeline.search.studies import is_alive, list_studies, open_study

    workspace = Path.cwd()
    names = list_studies(workspace)
    if study is None and not names:
        raise DataError(
            f"{workspace}: no studies here; expected a folder in which `pipeline search` ran; begin one with: "
            "pipeline search digits --budget 3m"
        )
    with open_study(workspace, study or names[-1], is_read_only=True) as store:
        spec, trials = store.spec(), store.trials()
        finished = store.result() if store.get("result") is not None and not as_json else None
    objective = spec.ranking
    rows = ranked(trials, objective)
    front = {row.number for row in pareto_front(rows, objective)} if objective.minimise else set()
    if as_json:
        result_json([as_facts(row) | {"is_on_front": row.number in front} for row in rows])
        return
    result(f"study {spec.study}: {len(rows)} trial(s) on {spec.dataset}")
    result(table(headers(objective), [as_cells(row, objective, row.number in front) for row in rows]))
    if finished is not None:
        print_test(finished)
    if len(names) > 1:
        result(f"other studies: {', '.join(name for name in names if name != spec.study)}")
    next_steps(
        ("mlflow ui", "curves and comparisons"), *what_next(finished, spec.study, is_alive(workspace, spec.study))
    )


def what_next(finished: Any, study: str, is_running: bool) -> list[tuple[str, str]]:
    """Return what to type to use the model, or to get one."""
    from pipeline.cli.terminal.render import score_step

    if is_running:
        return [(f"pipeline status {quoted(study)}", "how far it is")]
    if finished is None:
        return [(f"pipeline search --name {quoted(study)} --resume", "go on")]
    return [score_step(finished), ("pipeline search YOUR_FOLDER --budget 15m", "search for your own images")]


def print_test(finished: Any) -> None:
    """Print what the winner is worth on images that no choice has seen."""
    from pipeline.cli.terminal.render import accuracy_text, answering

    result(
        f"test accuracy {finished.evaluation.tested.accuracy:.2%} ({accuracy_text(finished)}) of "
        f"{answering(finished)}, trained again on train + validation: {finished.model_uri}"
    )


def as_facts(row: TrialRow) -> dict[str, Any]:
    """Return a trial as `--json` prints it."""
    return {
        "trial": row.number,
        "state": row.state,
        "score": row.score,
        "rung": row.rung,
        "params": row.params,
        "num_params": row.num_params,
        "mflops": row.mflops,
        "size_mb": row.size_mb,
        "latency_ms": row.latency_ms,
        "epochs": row.epochs,
        "samples": row.samples,
        "seconds": row.seconds,
        "reason": row.reason,
    }


def headers(objective: Objective) -> tuple[str, ...]:
    """Return the names of the columns of the leaderboard."""
    latency = ("ms",) if objective.minimise == "latency" else ()
    front = ("front",) if objective.minimise else ()
    return (
        "trial", objective.name, "rung", "epochs", "depth", "filters", "pooling", "params", "MFLOPs", *latency,
        "seconds", *front, "state", "reason",
    )  # fmt: skip


def as_cells(row: TrialRow, objective: Objective, is_on_front: bool) -> tuple[str, ...]:
    """Return a trial as cells of the leaderboard."""
    score = "-" if row.score is None else f"{row.score:.4f}"
    reached = (str(row.rung), str(row.epochs)) if row.rung >= 0 else ("-", "-")
    shown = [str(row.params.get(name, "-")) for name in ("depth", "filters", "pooling")]
    latency = ["-" if row.latency_ms is None else f"{row.latency_ms:.2f}"] if objective.minimise == "latency" else []
    front = ["*" if is_on_front else ""] if objective.minimise else []
    cost = (f"{row.num_params:,}", f"{row.mflops:,.1f}", *latency, f"{row.seconds:.1f}", *front)
    return (str(row.number), score, *reached, *shown, *cost, row.state, row.reason or "")
