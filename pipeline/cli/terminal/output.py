"""What every command shares in how it speaks: verbosity, JSON, tables, durations and the next command to type."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from pipeline.text import printable

SCHEMA = 1
"""Version of what --json prints; it grows when a key is removed or changes its meaning, not when one is added."""


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -v/--verbose and -q/--quiet, given to the command as `verbosity`: 1, 0 or -1."""

    def choose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.meta["verbosity"] = 1 if parameter.name == "verbose" else -1

    for flags, name, text in (
        (("-q", "--quiet"), "quiet", "Print results and errors only."),
        (("-v", "--verbose"), "verbose", "Print details."),
    ):
        command = click.option(*flags, name, is_flag=True, expose_value=False, callback=choose, help=text)(command)
    return command


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def say(text: str, level: int = 0) -> None:
    """Print progress on stderr; level 1 needs --verbose, level 0 is dropped by --quiet."""
    if verbosity() >= level:
        click.echo(printable(text), file=sys.stderr)  # with err=True click would write past a live board


def verbosity() -> int:
    """Return how much the user wants to read: 1 with --verbose, -1 with --quiet, else 0."""
    context = click.get_current_context(silent=True)
    return context.meta.get("verbosity", 0) if context else 0


def result(text: str) -> None:
    click.echo(printable(text))


def result_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def columns(facts: Mapping[str, str]) -> str:
    """Return names and texts in two columns."""
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in facts.items())


def next_steps(*commands: tuple[str, str]) -> None:
    """End a command by naming what to type next: pairs of (command, what it does)."""
    width = max(len(command) for command, _ in commands)
    for index, (command, purpose) in enumerate(commands):
        say(f"{'Next:' if index == 0 else '     '} {command:<{width}}  # {purpose}")


def quoted(argument: str) -> str:
    return shlex.quote(argument)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns; columns whose cells are all numbers are aligned to the right."""
    columns = list(zip(headers, *rows, strict=True)) if rows else [(header,) for header in headers]
    widths = [max(len(cell) for cell in column) for column in columns]
    is_number = [all(_is_numeric(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in (headers, *rows):
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_numeric(cell: str) -> bool:
    """Tell whether a cell holds a number, with or without thousands separators, or a dash for none."""
    return cell == "-" or cell.replace(",", "").replace(".", "").replace("%", "").isdigit()
