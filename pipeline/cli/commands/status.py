"""`pipeline status`: how far a search is, from another terminal or another machine; it only reads."""

from typing import TYPE_CHECKING

import click

from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, quoted, result, result_json, verbosity_options

if TYPE_CHECKING:
    from pipeline.search.snapshot import Snapshot


@click.command("status")
@click.argument("study", required=False)
@json_option
@verbosity_options
def command(study: str | None, as_json: bool) -> None:
    """Show the progress of STUDY; without STUDY, of the newest one that is running, else of the newest.

    This only reads: it does not disturb the search, and works in a read-only folder.

    \b
    Examples:
      pipeline status
      pipeline status photos-1 --json
      watch pipeline status
    """
    from pipeline.workflows import status

    snapshot = status.run(study)
    if as_json:
        result_json({"schema": SCHEMA, **status.snapshot_json(snapshot)})
        return
    result("\n".join(_lines(snapshot)))
    next_steps(*_what_next(snapshot))


def _lines(snapshot: "Snapshot") -> list[str]:
    from pipeline.cli.terminal.board import best_line, place_of, time_line, title_of, trials_line

    lines = [f"study    {snapshot.study}: {snapshot.state}", best_line(snapshot)]
    lines += [f"         {title_of(trial)}: {trial.fraction:.0%}, {place_of(trial)}" for trial in snapshot.running]
    return [*lines, trials_line(snapshot), time_line(snapshot)]


def _what_next(snapshot: "Snapshot") -> list[tuple[str, str]]:
    from pipeline.cli.terminal.render import score_step
    from pipeline.workflows.status import finished_result

    study = quoted(snapshot.study)
    leaderboard = (f"pipeline runs {study}", "the leaderboard")
    if snapshot.state == "running":
        return [(f"pipeline stop {study}", "end it; every finished trial is kept"), leaderboard]
    if snapshot.state == "finished":
        return [leaderboard, score_step(finished_result(snapshot.study))]
    return [(f"pipeline search --name {study} --resume", "go on"), leaderboard]
