"""`pipeline doctor`: checks what a search needs and says what to do about what is missing."""

import click

from pipeline.cli.terminal.output import SCHEMA, json_option, next_steps, result, result_json, table, verbosity_options
from pipeline.cli.terminal.progress import TerminalProgress


@click.command("doctor")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """Check system, Python, packages, devices, disk and the MLflow store.

    Exit code 4 when a check fails. A missing GPU is not a failure. A missing ./mlflow.db is created.

    \b
    Example:
      pipeline doctor
      pipeline doctor --json
    """
    from pipeline.workflows import doctor

    report = doctor.run(progress=TerminalProgress())
    if as_json:
        result_json({"schema": SCHEMA, **report.to_json()})
    else:
        rows = [(check.check, check.state, check.found, check.advice or "-") for check in report.checks]
        result(table(("check", "state", "found", "advice"), rows))
    report.require_success()
    next_steps(("pipeline search digits --budget 3m", "a first search"))
