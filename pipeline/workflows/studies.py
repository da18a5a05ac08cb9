"""The studies of a workspace, for workflows that take the newest, or all."""

from pathlib import Path

from pipeline.errors import DataError
from pipeline.search.storage.studies import list_studies


def some_studies(workspace: Path) -> list[str]:
    """Return the names of all studies, the newest last.

    Raises:
        DataError: there is none.
    """
    if names := list_studies(workspace):
        return names
    raise no_studies(workspace)


def no_studies(workspace: Path) -> DataError:
    """Return the error that says that there are no studies, and how to begin one."""
    return DataError(
        f"{workspace}: no studies here; change to a folder in which `pipeline search` ran, or start one with: "
        "pipeline search digits --budget 3m"
    )
