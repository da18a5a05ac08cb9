"""`pipeline runs`: the leaderboard of a study."""

from typing import TYPE_CHECKING

import click

from pipeline.cli.terminal.output import json_option, next_steps, quoted, result, result_json, table, verbosity_options
from pipeline.records import Objective, TrialRow

if TYPE_CHECKING:
    from pipeline.workflows.runs import Leaderboard


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
    from pipeline.reports.summary import accuracy_line
    from pipeline.workflows import runs

    board = runs.run(study)
    if as_json:
        result_json(board.to_json())
        return
    spec, objective = board.spec, board.objective
    result(f"study {spec.study}: {len(board.rows)} trial(s) on {spec.dataset}")
    result(table(_headers(objective), [_cells(row, objective, row.number in board.front) for row in board.rows]))
    if board.result is not None:
        result(accuracy_line(board.result))
    if board.others:
        result(f"other studies: {', '.join(board.others)}")
    next_steps(("mlflow ui", "curves and comparisons"), *_what_next(board))


def _what_next(board: "Leaderboard") -> list[tuple[str, str]]:
    from pipeline.cli.terminal.render import score_step

    study = quoted(board.spec.study)
    if board.is_running:
        return [(f"pipeline status {study}", "how far it is")]
    if board.result is None:
        return [(f"pipeline search --name {study} --resume", "go on")]
    return [score_step(board.result), ("pipeline search YOUR_FOLDER --budget 15m", "search for your own images")]


def _headers(objective: Objective) -> tuple[str, ...]:
    latency = ("ms",) if objective.minimise == "latency" else ()
    front = ("front",) if objective.minimise else ()
    return (
        "trial", objective.name, "rung", "epochs", "depth", "filters", "pooling", "params", "MFLOPs", *latency,
        "seconds", *front, "state", "reason",
    )  # fmt: skip


def _cells(row: TrialRow, objective: Objective, is_on_front: bool) -> tuple[str, ...]:
    score = "-" if row.score is None else f"{row.score:.4f}"
    reached = (str(row.rung), str(row.epochs)) if row.rung >= 0 else ("-", "-")
    shown = [str(row.params.get(name, "-")) for name in ("depth", "filters", "pooling")]
    latency = ["-" if row.latency_ms is None else f"{row.latency_ms:.2f}"] if objective.minimise == "latency" else []
    front = ["*" if is_on_front else ""] if objective.minimise else []
    cost = (f"{row.num_params:,}", f"{row.mflops:,.1f}", *latency, f"{row.seconds:.1f}", *front)
    return (str(row.number), score, *reached, *shown, *cost, row.state, row.reason or "")
