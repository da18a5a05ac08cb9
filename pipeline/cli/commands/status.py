"""`pipeline status`: how far a search is, from another terminal or another machine; it only reads."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, quoted, result, result_json, verbosity_options


@click.command("status")
@click.argument("study", required=False)
@json_option
@verbosity_options
def command(study: str | None, as_json: bool) -> None:
    """Show how far STUDY is; without STUDY, the newest one that runs, else the newest.

    Nothing is written or locked: the search does not notice, and a folder that can only be read will do.

    \b
    Examples:
      pipeline status
      pipeline status photos-1 --json
      watch pipeline status
    """
    from pipeline.search.snapshot import read_snapshot

    workspace = Path.cwd()
    snapshot = read_snapshot(workspace, study or default_study(workspace))
    if as_json:
        result_json({"schema": SCHEMA, **as_facts(snapshot)})
        return
    result("\n".join(as_lines(snapshot)))
    next_steps(*what_next(snapshot, workspace))


def default_study(workspace: Path) -> str:
    """Return the newest study that runs, else the newest.

    Raises:
        DataError: there is none.
    """
    from pipeline.errors import DataError
    from pipeline.search.studies import is_alive, list_studies
    from pipeline.workspace import StudyFolder, Workspace

    names = list_studies(workspace)
    folders = map(StudyFolder, Workspace(workspace).studies.glob("*"))
    beginning = [each.name for each in folders if each.lock.exists() and each.name not in names]  # it decodes images
    running = [name for name in (*names, *beginning) if is_alive(workspace, name)]
    if not names and not running:
        raise DataError(
            f"{workspace}: no studies here; expected a folder in which `pipeline search` ran; begin one with: "
            "pipeline search digits --budget 3m"
        )
    return (running or names)[-1]


def as_facts(snapshot: Any) -> dict[str, Any]:
    """Return a snapshot as `--json` prints it."""
    best = snapshot.best
    return asdict(snapshot) | {
        "best": None
        if best is None
        else {
            "trial": best.number,
            "score": best.score,
            "objective": snapshot.objective,
            "params": best.params,
            "num_params": best.num_params,
            "mflops": best.mflops,
        }
    }


def as_lines(snapshot: Any) -> list[str]:
    """Return a snapshot as lines of text."""
    from pipeline.cli.terminal.board import best_line, place_of, time_line, title_of, trials_line

    lines = [f"study    {snapshot.study}: {snapshot.state}", best_line(snapshot)]
    lines += [f"         {title_of(trial)}: {trial.fraction:.0%}, {place_of(trial)}" for trial in snapshot.running]
    return [*lines, trials_line(snapshot), time_line(snapshot)]


def what_next(snapshot: Any, workspace: Path) -> list[tuple[str, str]]:
    """Return what to type next."""
    from pipeline.cli.terminal.render import score_step
    from pipeline.search.studies import open_study

    study = quoted(snapshot.study)
    leaderboard = (f"pipeline runs {study}", "the leaderboard")
    if snapshot.state == "running":
        return [(f"pipeline stop {study}", "end it; every finished trial is kept"), leaderboard]
    if snapshot.state == "finished":
        with open_study(workspace, snapshot.study, is_read_only=True) as store:
            return [leaderboard, score_step(store.result())]
    return [(f"pipeline search --name {study} --resume", "go on"), leaderboard]
