"""The progress of a workflow on a terminal: lines on stderr, a live board of a search, a line that counts files."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pipeline.cli.terminal.output import say, verbosity
from pipeline.workflows.progress import Count

if TYPE_CHECKING:
    from pipeline.search.snapshot import Snapshot

_BOARD_SECONDS = 0.25
LINE_SECONDS, TERMINAL_SECONDS = 10.0, 0.2  # between two counts


class TerminalProgress:
    """Implements workflows.Progress."""

    def say(self, text: str, level: int = 0) -> None:
        """Print on stderr, as far as the user wants to read it."""
        say(text, level)

    @contextmanager
    def following(self, look: Callable[[], "Snapshot"]) -> Iterator[Callable[[], None]]:
        """Show a live board below the lines, where a person looks at it."""
        if not _has_board():
            yield lambda: None
            return
        from pipeline.cli.terminal.board import Board

        board, drawn = Board(), time.monotonic()

        def draw() -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn > _BOARD_SECONDS:
                drawn = now
                board.show(look())

        board.start(look())
        try:
            yield draw
        finally:
            board.stop()

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Show one line that changes on a terminal, else a line every 10 s."""
        is_terminal, is_quiet = sys.stderr.isatty(), verbosity() < 0
        started = shown = time.monotonic()
        first: int | None = None

        def count(done: int, total: int, errors: int) -> None:
            nonlocal first, shown
            now = time.monotonic()
            if first is None:
                first = done
                if done:
                    say(f"Continuing: {done:,} of {total:,} files were scored before")
            if is_quiet or now - shown < (TERMINAL_SECONDS if is_terminal else LINE_SECONDS):
                return
            shown = now
            speed = (done - first) / (now - started)
            line = f"{done:,} of {total:,} files, {errors:,} errors, {speed:,.0f} images/s"
            click.echo(f"\r{line}\x1b[K" if is_terminal else line, err=True, nl=not is_terminal)

        try:
            yield count
        finally:
            if is_terminal and not is_quiet:
                click.echo("\r\x1b[K", err=True, nl=False)


def _has_board() -> bool:
    """Tell whether stderr is a terminal that a person looks at and that can move its cursor."""
    return sys.stderr.isatty() and verbosity() >= 0 and "CI" not in os.environ and os.environ.get("TERM") != "dumb"
