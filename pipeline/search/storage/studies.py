"""The studies of a workspace: which there are, whether one is worked on, and one that is opened by its name."""

import sqlite3
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import is_locked
from pipeline.search.storage.store import StudyStore, damaged
from pipeline.workspace import StudyFolder, Workspace


def open_study(workspace: Path, name: str, is_read_only: bool = False) -> StudyStore:
    """Open a study that exists.

    Raises:
        DataError: there is none of that name; the message lists those there are.
    """
    place = Workspace(workspace)
    path = place.study(name).database
    if not path.is_file():
        known = ", ".join(list_studies(workspace)) or "none"
        raise DataError(f"study {name}: not found in {place.studies}; found {known}; check the name or the folder")
    with ExitStack() as on_failure:
        try:
            store = on_failure.enter_context(StudyStore(path, is_read_only))
            store.check_whole()
            if store.is_created():
                on_failure.pop_all()
                return store
        except sqlite3.DatabaseError as error:
            raise damaged(path, error) from error
    raise DataError(f"study {name} was stopped before its first trial; start it again with --resume")


def is_alive(workspace: Path, name: str) -> bool:
    """Tell whether a process of this machine works on a study."""
    return is_locked(Workspace(workspace).study(name).lock)


def list_studies(workspace: Path) -> list[str]:
    """Return the names of the studies of a workspace, the newest last."""
    folders = map(StudyFolder, Workspace(workspace).studies.glob("*"))
    created = {folder.name: _creation_time(folder.database) for folder in folders if folder.database.exists()}
    return sorted(created, key=lambda name: (created[name], name))


def _creation_time(path: Path) -> float:
    """Return when a study was created, in seconds since 1970; 0 for one whose creation did not finish."""
    try:
        with StudyStore(path, is_read_only=True) as store:
            return float(store.get("created")) if store.is_created() else 0.0
    except (sqlite3.DatabaseError, DataError, ValueError):  # a damaged study must not hide the others
        return 0.0
