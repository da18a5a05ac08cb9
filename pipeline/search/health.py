"""When a search stops by itself: most trials fail for one reason, the disk is nearly full, or someone asked for it."""

import errno
import re
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoppedEarly
from pipeline.files import is_disk_full
from pipeline.search.checkpoints import FREE_FLOOR_MB, check_free_space
from pipeline.search.jobs import TrialOutcome
from pipeline.states import OutcomeState
from pipeline.workspace import StudyFolder

_NUM_RECENT = 20  # attempts of which less than half may fail for one reason
CURES: dict[str, str] = {
    OutcomeState.INFEASIBLE: "free memory, take fewer --workers, smaller images (--image-size), a smaller space, or "
    "looser limits",
    OutcomeState.FAILED: "read the reason; `nan` means too high a learning rate; otherwise try --space tiny",
    OutcomeState.CRASHED: "look into trials.log in the study's folder, and at `pipeline doctor`; take fewer --workers",
    OutcomeState.TIMEOUT: "look into trials.log in the study's folder: the machine may be overloaded, or a disk may "
    "hang",
}


class Health:
    """Watches the outcomes of a search; `check` raises when going on makes no sense."""

    def __init__(self, folder: StudyFolder, free_floor_mb: int = FREE_FLOOR_MB) -> None:
        self.folder = folder
        self.free_floor_mb = free_floor_mb
        self.recent: deque[tuple[str, str]] = deque(maxlen=_NUM_RECENT)
        self.is_disk_full = False

    def note(self, outcome: TrialOutcome) -> None:
        """Take an outcome into account."""
        self.is_disk_full = self.is_disk_full or outcome.findings.is_disk_full
        if outcome.state != OutcomeState.STOPPED:
            is_success = outcome.state in (OutcomeState.COMPLETED, OutcomeState.PRUNED)
            self.recent.append((outcome.state, "" if is_success else kind(outcome.reason)))

    def check(self) -> None:
        """Check that the search should go on.

        Raises:
            StoppedEarly: most attempts fail for one reason, the disk is full, or `pipeline stop` was called.
        """
        self.check_failures()
        check_stop_file(self.folder)
        check_free_space(self.folder, self.free_floor_mb)
        if self.is_disk_full:
            raise StoppedEarly(
                f"{self.folder.path}: the disk is full, so no checkpoint can be written; every finished trial is kept: "
                "free some space and run the same command with --resume"
            )

    def check_failures(self) -> None:
        """Stop if more than half of the last _NUM_RECENT attempts failed for one reason."""
        reasons = Counter(entry for entry in self.recent if entry[1])
        if not reasons:
            return
        (state, reason), count = reasons.most_common(1)[0]
        if 2 * count > _NUM_RECENT:
            raise StoppedEarly(
                f"{count} of the last {len(self.recent)} attempts ended as {state}: {reason}; "
                f"{CURES[state]}; every finished trial is kept; continue with --resume"
            )


def ask_to_stop(folder: StudyFolder) -> None:
    """Leave the word for the search that works on a study, on this machine or another one, that it should stop."""
    folder.stop_file.touch()


def forget_stop(folder: StudyFolder) -> None:
    """Take the word away: the search that it was meant for is gone."""
    folder.stop_file.unlink(missing_ok=True)


def check_stop_file(folder: StudyFolder) -> None:
    """Stop if `pipeline stop` left its word; it is taken away, so that a resumed search runs.

    Raises:
        StoppedEarly: it did.
    """
    if folder.stop_file.exists():
        forget_stop(folder)
        raise StoppedEarly("stopped by `pipeline stop`; every finished trial is kept; continue with --resume")


def kind(reason: str) -> str:
    """Return a reason without its numbers, so that the same failure of two trials counts as one."""
    return re.sub(r"[-+]?\d[\d.,e+-]*", "N", reason)[:200] or "no reason given"


@contextmanager
def clean_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message; the study is as it was at its last transaction.

    Raises:
        StoppedEarly: it happened.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        is_known = is_disk_full(error) or getattr(error, "errno", None) in (errno.EROFS, errno.EACCES)
        if not is_known and not any(text in str(error) for text in ("readonly", "disk I/O", "unable to")):
            raise
        raise StoppedEarly(
            f"{folder}: {error}; the study cannot be written there; every finished trial is kept: free "
            "some space, or allow writing, and run the same command with --resume"
        ) from error
