"""What a search calls while it runs: it tells the progress, keeps the time that is spent, and minds the stop signal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.records import TrialRow
from pipeline.search.jobs import TrainingJob, TrialOutcome
from pipeline.search.snapshot import StudyMonitor
from pipeline.search.study import Study
from pipeline.text import format_seconds
from pipeline.workflows.progress import Progress, StopSignal

_CLOCK_SECONDS = 5.0  # at most so much of the budget is forgotten by a kill


@dataclass
class ProgressCallback:
    """Implements job.SearchCallback. `draw` is what `Progress.following` gave."""

    study: Study
    elapsed: Callable[[], float]
    stop: StopSignal
    progress: Progress
    draw: Callable[[], None] = lambda: None
    noted: float = field(default_factory=time.monotonic)

    def on_rung_end(self, outcome: TrialOutcome, row: TrialRow) -> None:
        """Say in one line what became of a task."""
        clock = format_seconds(self.elapsed())
        title = f"{clock:>7}  trial {row.number:>3} rung {outcome.rung}"
        if outcome.score is None:
            self.progress.say(f"{title}  {outcome.state}: {outcome.reason}")
            return
        values = f"{row.num_params:>9,} params  {outcome.seconds:5.1f} s"
        self.progress.say(f"{title}  {self.study.objective.name} {outcome.score:.4f}  {values}")

    def refresh(self, running: list[TrainingJob]) -> None:
        """Show where the search is, keep the spent time, and end the search if that was asked for."""
        self.stop.check()
        self.draw()
        now = time.monotonic()
        if now - self.noted > _CLOCK_SECONDS:
            self.noted = now
            self.study.store.put("elapsed", self.elapsed())


@contextmanager
def following(
    study: Study, elapsed: Callable[[], float], stop: StopSignal, progress: Progress
) -> Iterator[ProgressCallback]:
    """Yield the callback of a search that runs in the block; the time that was spent is kept at its end."""
    monitor = StudyMonitor(study.store)
    try:
        with progress.following(lambda: monitor.look("running", elapsed())) as draw:
            yield ProgressCallback(study, elapsed, stop, progress, draw)
    finally:
        study.store.put("elapsed", elapsed())
