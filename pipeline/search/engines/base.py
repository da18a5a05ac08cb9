"""What a search needs of whoever trains. An engine knows jobs and events, and nothing of a study."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from pipeline.search.events import Event
from pipeline.search.jobs import TrainingJob

Result = TypeVar("Result")


class Engine(Protocol):
    """Workers that train one job each: started once, given jobs while one is free, asked what happened, stopped.

    Of each attempt the events come in their order, and `TrainingEnded` is the last. Whatever becomes of a worker, its
    job ends with one; nothing that a training raises is raised here.
    """

    @property
    def running(self) -> list[TrainingJob]:
        """The jobs that are being trained."""

    def start(self) -> None:
        """Start the workers, which begin to import what they need."""

    def check(self) -> None:
        """Wait until the workers can train.

        Raises:
            InvalidUsage: they lack something that the user can install.
            StoppedEarly: one died on the way.
        """

    def call_all(self, function: Callable[..., Result], *arguments: object) -> list[Future[Result]]:
        """Have a function called in every worker at once, outside of any job; no job may be running."""

    def num_free(self) -> int:
        """Return how many jobs can be submitted."""

    def submit(self, job: TrainingJob) -> None:
        """Begin to train a job; a worker must be free."""

    def poll(self, seconds: float) -> list[Event]:
        """Return what happened, as soon as something did, after at most `seconds`; at once if nothing runs."""

    def interrupt(self) -> list[Event]:
        """Stop all jobs at the next batch, with a checkpoint; return what happened until all had ended."""

    def stop(self) -> None:
        """End the workers, whatever they do; also twice."""
