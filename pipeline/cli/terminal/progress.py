"""Who follows a search: a line for each event, a live board below on a terminal; it also minds clock and Ctrl-C."""

import os
import sys
import time
from collections.abc import Callable

from pipeline.cli.options.types import format_seconds
from pipeline.cli.terminal.board import Board
from pipeline.cli.terminal.interruptions import Interruptions
from pipeline.cli.terminal.output import say, verbosity
from pipeline.records import TrialRow
from pipeline.search.snapshot import Watch
from pipeline.search.study import Study
from pipeline.search.task import TrialOutcome, TrialTask

CLOCK_SECONDS = 5.0  # at most so much of the budget is forgotten by a kill
BOARD_SECONDS = 0.25


class Follower:
    """Implements job.Audience."""

    def __init__(self, study: Study, elapsed: Callable[[], float], stop: Interruptions) -> None:
        self.study = study
        self.elapsed = elapsed
        self.stop = stop
        self.noted = self.drawn = time.monotonic()
        self.watch = Watch(study.store)
        self.board = Board() if has_board() else None

    def __enter__(self) -> "Follower":
        if self.board is not None:
            self.board.start(self.watch.look("running", self.elapsed()))
        return self

    def __exit__(self, *_error: object) -> None:
        if self.board is not None:
            self.board.stop()
        self.study.store.put("elapsed", self.elapsed())

    def told(self, outcome: TrialOutcome, row: TrialRow) -> None:
        """Say in one line what became of a task."""
        clock = format_seconds(self.elapsed())
        values = f"{row.num_params:>9,} params  {outcome.seconds:5.1f} s"
        if outcome.score is not None:
            objective = self.study.objective.name
            say(f"{clock:>7}  trial {row.number:>3} rung {outcome.rung}  {objective} {outcome.score:.4f}  {values}")
        else:
            say(f"{clock:>7}  trial {row.number:>3} rung {outcome.rung}  {outcome.state}: {outcome.reason}")

    def refresh(self, running: list[TrialTask]) -> None:
        """Draw the board, keep the spent time, and end the search if that was asked for."""
        self.stop.check()
        now = time.monotonic()
        if self.board is not None and now - self.drawn > BOARD_SECONDS:
            self.drawn = now
            self.board.show(self.watch.look("running", self.elapsed()))
        if now - self.noted > CLOCK_SECONDS:
            self.noted = now
            self.study.store.put("elapsed", self.elapsed())


def has_board() -> bool:
    """Tell whether stderr is a terminal that a person looks at and that can move its cursor."""
    return sys.stderr.isatty() and verbosity() >= 0 and "CI" not in os.environ and os.environ.get("TERM") != "dumb"
