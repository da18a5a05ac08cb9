"""A running search is asked to stop so that it can be resumed; a file asks, no signal."""

import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pipeline.errors import StoppedEarly
from pipeline.files import is_locked, lock_owner
from pipeline.search.health import ask_to_stop, forget_stop
from pipeline.search.storage.studies import is_alive, open_study
from pipeline.text import format_seconds
from pipeline.workflows.progress import SILENT, Progress
from pipeline.workspace import Workspace

WAIT_SECONDS = 60.0  # a search saves at the next batch, and then shows MLflow its state
_POLL_SECONDS = 0.1
_REPORT_SECONDS = 10.0


class StopState(StrEnum):
    """What came of it."""

    NOT_RUNNING = "not running"
    ASKED = "asked"
    STOPPED = "stopped"


@dataclass(frozen=True)
class StopRequest:
    """Which study is to stop, and whether to wait for that."""

    study: str
    waits: bool = True
    workspace: Path = field(default_factory=Path.cwd)


def run(request: StopRequest, progress: Progress = SILENT) -> StopState:
    """Ask the search that works on a study to stop, and wait until it has.

    Raises:
        DataError: there is no such study.
        StoppedEarly: it has not stopped after WAIT_SECONDS; the message says who works on it.
    """
    workspace, study = request.workspace, request.study
    folder = Workspace(workspace).study(study)
    if not is_alive(workspace, study):
        open_study(workspace, study, is_read_only=True).close()  # says so if there is none
        return StopState.NOT_RUNNING
    ask_to_stop(folder)
    if not request.waits:
        return StopState.ASKED
    _wait_until_free(folder.lock, study, progress)
    forget_stop(folder)  # of a search that ended by itself in the meantime
    return StopState.STOPPED


def _wait_until_free(lock: Path, study: str, progress: Progress) -> None:
    owner = lock_owner(lock)
    progress.say(f"waiting for {owner} to save and stop ...")
    started = reported = time.monotonic()
    while is_locked(lock):
        now = time.monotonic()
        if now - started > WAIT_SECONDS:
            raise StoppedEarly(
                f"study {study} is still in use by {owner} after {WAIT_SECONDS:.0f} s; it was asked to stop, and does "
                "so once it trains (decoding images, testing and publishing are not broken off); to end it now, kill "
                "that process on that host (kill PID): it can be resumed all the same"
            )
        if now - reported > _REPORT_SECONDS:
            reported = now
            progress.say(f"  {format_seconds(now - started)}")
        time.sleep(_POLL_SECONDS)
