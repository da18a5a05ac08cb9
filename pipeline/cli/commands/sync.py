"""`pipeline sync`: sends to MLflow what it missed while it did not answer."""

from typing import TYPE_CHECKING

import click

from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, result, result_json, verbosity_options

if TYPE_CHECKING:
    from pipeline.workflows.sync import StudySync


@click.command("sync")
@click.argument("study", required=False)
@json_option
@verbosity_options
def command(study: str | None, as_json: bool) -> None:
    """Send what MLflow is missing of STUDY; without STUDY, of every study in the workspace.

    A search never waits for MLflow: while a server is down, results are kept in the study alone. This command sends
    the rest, registers the model of a finished study, and ends the runs of searches that were killed. Nothing is sent
    twice, so you can run it at any time. The exit code is 7 if MLflow does not answer, and 5 if a search is running on
    STUDY: the search sends its results itself.

    \b
    Examples:
      pipeline sync
      pipeline sync digits-1 --json
    """
    from pipeline.workflows import sync

    done = sync.run(study)
    if as_json:
        result_json({"schema": SCHEMA, **done.to_json()})
    else:
        for each in done.studies:
            result(_described(each))
        if done.num_closed:
            result(f"{done.num_closed} run(s) of other ended searches: marked KILLED")
    if done.error is not None:
        raise done.error
    next_steps(("pipeline ui", "review every trial in the browser"), ("pipeline runs", "the leaderboard here"))


def _described(sent: "StudySync") -> str:
    texts = {
        "complete": "MLflow has everything",
        "searching": "a search is running on it, and sends its results itself",
        "failed": "not sent",
        "sent": f"sent {sent.trials_sent} trial(s)",
    }
    model = f", registered {sent.model_uri}" if sent.is_registered else ""
    return f"{sent.study}: {texts[sent.status]}{model}"
