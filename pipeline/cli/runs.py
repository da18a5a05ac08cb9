"""`pipeline runs`: the leaderboard of a study, or the studies of the workspace."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.output import json_option, next_steps, result, result_json, table, verbosity_options


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
    from pipeline.search.store import list_studies, open_study, ranked

    workspace = Path.cwd()
    names = list_studies(workspace)
    if study is None and not names:
        raise DataError(
            f"{workspace}: no studies here; expected a folder in which `pipeline search` ran; begin one with: "
            "pipeline search digits --budget 3m"
        )
    store = open_study(workspace, study or names[-1])
    rows = ranked(store.trials())
    if as_json:
        result_json([as_facts(row) for row in rows])
        return
    headers = (
        "trial",
        "val_accuracy",
        "epochs",
        "depth",
        "filters",
        "pooling",
        "params",
        "MFLOPs",
        "seconds",
        "state",
        "reason",
    )
    result(f"study {store.get('study')}: {len(rows)} trial(s) on {store.get('dataset')}")
    result(table(headers, [as_cells(row) for row in rows]))
    if finished := store.get("result"):
        print_test(finished)
    if len(names) > 1:
        result(f"other studies: {', '.join(name for name in names if name != store.get('study'))}")
    next_steps(
        ("mlflow ui", "curves and comparisons"),
        ("pipeline score champion FOLDER -o scores/", "label images"),
        ("pipeline search YOUR_FOLDER --budget 15m", "search for your own images"),
    )


def print_test(finished: dict[str, Any]) -> None:
    """Print what the winner is worth on images that no choice has seen."""
    test, (low, high) = finished["test"], finished["test"]["ci95"]
    result(
        f"test accuracy {test['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, {test['num_images']:,} images) "
        f"of trial {finished['winner']['trial']}, trained again on train + validation: {finished['model_uri']}"
    )


def as_facts(row: Any) -> dict[str, Any]:
    """Return a trial as `--json` prints it."""
    return {
        "trial": row.number,
        "state": row.state,
        "score": row.score,
        "params": row.params,
        "num_params": row.num_params,
        "mflops": row.mflops,
        "epochs": row.epochs,
        "seconds": row.seconds,
        "reason": row.reason,
    }


def as_cells(row: Any) -> tuple[str, ...]:
    """Return a trial as cells of the leaderboard."""
    score = "-" if row.score is None else f"{row.score:.4f}"
    shown = [str(row.params.get(name, "-")) for name in ("depth", "filters", "pooling")]
    cost = (f"{row.num_params:,}", f"{row.mflops:,.1f}", f"{row.seconds:.1f}")
    return (str(row.number), score, str(row.epochs or "-"), *shown, *cost, row.state, row.reason or "")
