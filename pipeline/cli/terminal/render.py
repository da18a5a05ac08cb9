"""What the terminal says of a search that is planned or finished, and what to type next."""

from typing import TYPE_CHECKING

from pipeline.cli.terminal.output import SCHEMA, columns, next_steps, quoted, result, result_json
from pipeline.reports.summary import summary_lines
from pipeline.search.result import SearchResult
from pipeline.text import counted, format_seconds

if TYPE_CHECKING:
    from pipeline.workflows.estimate import SearchEstimate

_SHOWN_CLASSES = 12


def print_end(found: SearchResult, as_json: bool) -> None:
    """Print what a search, or a promotion, ended with, and what to type next."""
    if as_json:
        result_json({"schema": SCHEMA, **found.to_json()})
    else:
        print_result(found)
    next_steps(*_what_next(found))


def print_result(found: SearchResult) -> None:
    """Print what was found, in a few lines."""
    result(columns(summary_lines(found)))


def print_estimate(plan: "SearchEstimate", as_json: bool) -> None:
    """Print what a search would do, and how to begin it."""
    if as_json:
        result_json({"schema": SCHEMA, **plan.to_json()})
    else:
        result(columns({**_data_lines(plan), **_search_lines(plan)}))
    next_steps((plan.command, "run it"))


def score_step(found: SearchResult) -> tuple[str, str]:
    """Return what to type to label images: with the champion, if the search found one."""
    is_champion = found.model_uri.startswith("models:") and not found.champion_blocker
    model = "champion" if is_champion else quoted(found.model_uri)
    return f"pipeline score {model} FOLDER -o scores/", "label images"


def _what_next(found: SearchResult) -> list[tuple[str, str]]:
    steps = [("mlflow ui", "review every trial in the browser"), (f"pipeline runs {found.study}", "the leaderboard")]
    if not found.model_uri.startswith("models:"):
        steps.append((f"pipeline sync {found.study}", "register the model when MLflow answers"))
    if found.front:
        steps.append((f"pipeline promote {found.study} --pick TRIAL", "take another trial of the front"))
    return [*steps, score_step(found)]


def _data_lines(plan: "SearchEstimate") -> dict[str, str]:
    images, classes, pixels = plan.images, plan.classes, plan.image
    several = " (any number of them an image)" if plan.is_multi_label else ""
    shown = f"{', '.join(classes[:_SHOWN_CLASSES])}{', ...' if len(classes) > _SHOWN_CLASSES else ''}"
    return {
        "data": plan.source,
        "images": f"{sum(images.values()):,}: " + ", ".join(f"{count:,} {split}" for split, count in images.items()),
        "classes": f"{len(classes)}{several}: {shown}",
        "pixels": f"{pixels.height} x {pixels.width} x {pixels.channels}, {pixels.dtype}",
    }


def _search_lines(plan: "SearchEstimate") -> dict[str, str]:
    cost = f", against {plan.minimise}" if plan.minimise else ""
    network = f"default network of the space: {plan.default.num_params:,} params, {plan.default.mflops:,} MFLOPs"
    rungs = ", ".join(
        f"{round(epochs, 1):g} ({seconds:.0f} s)"
        for epochs, seconds in zip(plan.epochs, plan.trial_seconds, strict=True)
    )
    return {
        "space": f"{plan.space}: {', '.join(plan.params)}",
        "configurations": "infinite (a continuous range)" if plan.space_size is None else f"{plan.space_size:,.0f}",
        "objective": f"{plan.objective}{cost}",
        "oracle": f"{plan.oracle}, seed {plan.seed}",
        "budget": format_seconds(plan.budget_seconds) if plan.budget_seconds else "no time limit",
        "processes": f"{plan.workers}, with {counted(plan.threads, 'thread')} each",
        "trials": f"about {plan.trials}, the best continue; training stages, in epochs: {rungs}; {network}",
        "whole job": f"about {format_seconds(plan.seconds)}",
    }
