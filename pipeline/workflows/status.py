"""How far a search is, from another terminal or another machine; it only reads."""

from pathlib import Path
from typing import Any

from pipeline.json_records import to_json
from pipeline.search.result import SearchResult
from pipeline.search.snapshot import Snapshot, read_snapshot
from pipeline.search.storage.studies import is_alive, list_studies, open_study
from pipeline.workflows.studies import no_studies
from pipeline.workspace import StudyFolder, Workspace


def run(study: str | None = None, workspace: Path | None = None) -> Snapshot:
    """Return where a study is; without a name, the newest that runs, else the newest.

    Raises:
        DataError: there is none.
    """
    workspace = workspace or Path.cwd()
    return read_snapshot(workspace, study or _default_study(workspace))


def finished_result(study: str, workspace: Path | None = None) -> SearchResult:
    """Return what a finished study ended with."""
    with open_study(workspace or Path.cwd(), study, is_read_only=True) as store:
        return store.result()


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as `--json` prints it."""
    best = snapshot.best
    return to_json(snapshot) | {
        "best": None
        if best is None
        else {
            "trial": best.number,
            "score": best.score,
            "objective": snapshot.objective,
            "params": best.params,
            "num_params": best.num_params,
            "mflops": best.mflops,
        }
    }


def _default_study(workspace: Path) -> str:
    names = list_studies(workspace)
    folders = map(StudyFolder, Workspace(workspace).studies.glob("*"))
    beginning = [each.name for each in folders if each.lock.exists() and each.name not in names]  # it decodes images
    running = [name for name in (*names, *beginning) if is_alive(workspace, name)]
    if not names and not running:
        raise no_studies(workspace)
    return (running or names)[-1]
