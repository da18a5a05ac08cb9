"""The leaderboard of a study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records import Objective, TrialRow
from pipeline.search.ranking import pareto_front, ranked
from pipeline.search.result import SearchResult
from pipeline.search.storage.studies import is_alive, list_studies, open_study
from pipeline.spec import StudySpec
from pipeline.workflows.studies import some_studies


@dataclass(frozen=True)
class Leaderboard:
    """The trials of a study, best first; `front` are the numbers of those that no other beats in both objectives.

    `result` is None until the study is finished. `others` are the other studies of the workspace.
    """

    spec: StudySpec
    rows: tuple[TrialRow, ...]
    front: frozenset[int]
    result: SearchResult | None
    others: tuple[str, ...]
    is_running: bool

    @property
    def objective(self) -> Objective:
        """What the trials are ranked by."""
        return self.spec.ranking

    def to_json(self) -> list[dict[str, Any]]:
        """Return what `--json` prints."""
        return [_row_json(row) | {"is_on_front": row.number in self.front} for row in self.rows]


def run(study: str | None = None, workspace: Path | None = None) -> Leaderboard:
    """Return the leaderboard of a study; without a name, of the newest.

    Raises:
        DataError: there is none.
    """
    workspace = workspace or Path.cwd()
    names = list_studies(workspace) if study else some_studies(workspace)
    with open_study(workspace, study or names[-1], is_read_only=True) as store:
        spec, trials = store.spec(), store.trials()
        result = store.result() if store.get("result") is not None else None
    rows = ranked(trials, spec.ranking)
    front = {row.number for row in pareto_front(rows, spec.ranking)} if spec.minimise else set()
    others = tuple(name for name in names if name != spec.study)
    return Leaderboard(spec, tuple(rows), frozenset(front), result, others, is_alive(workspace, spec.study))


def _row_json(row: TrialRow) -> dict[str, Any]:
    return {
        "trial": row.number,
        "state": row.state,
        "score": row.score,
        "rung": row.rung,
        "params": row.params,
        "num_params": row.num_params,
        "mflops": row.mflops,
        "size_mb": row.size_mb,
        "latency_ms": row.latency_ms,
        "epochs": row.epochs,
        "samples": row.samples,
        "seconds": row.seconds,
        "reason": row.reason,
    }
