"""What a study and its mirror in MLflow know of each other: the protocols between search and tracking."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.records import EpochRow, TrialRow
from pipeline.spec import StudySpec
from pipeline.states import TrainingId


@dataclass(frozen=True)
class MirrorMark:
    """How much of one trial is in MLflow: its run, the version of the trial that it shows, whether the run was ended.

    `run_id` is empty from before the run is made until that is known to have worked.
    """

    run_id: str
    version: int = 0
    is_closed: bool = False


PARENT = None
"""The key of the mark of the study's parent run, where those of trials have their number."""


class StudyView(Protocol):
    """What the MLflow mirror reads from a study, and the marks that it keeps there so that a replay repeats nothing."""

    def spec(self) -> StudySpec:
        """Return what the study is."""

    def trials(self) -> list[TrialRow]:
        """Return all trials, by number."""

    def unsent(self) -> list[tuple[int, TrialRow]]:
        """Return (version, trial), by number, of each trial whose version is greater than that of its mark.

        The version of a trial is 0 while it was only planned and grows with every change of it, its attempts and its
        epochs. The cost is that of the trials returned, not of all.
        """

    def epochs(self, training: TrainingId, after_step: int = 0) -> list[EpochRow]:
        """Return the epochs of one training whose step is greater than `after_step`, in order."""

    def marks(self) -> dict[int | None, MirrorMark]:
        """Return the marks by trial number; that of the parent run has PARENT."""

    def set_mark(self, number: int | None, mark: MirrorMark) -> None:
        """Store the mark of one trial, or of the PARENT, durably."""


class Mirror(Protocol):
    """Where a search is shown while it runs; an outage of it never stops the search."""

    def push(self) -> None:
        """Send everything that the study holds and the mirror does not; raise TrackingError on an outage."""

    def close(self, state: str) -> str:
        """Send the rest, end the parent run as FINISHED, FAILED or KILLED and return its run id."""
