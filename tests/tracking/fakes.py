"""A study in memory, a tiny bundle and a process that dies between two calls, for the tests of tracking."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.records import EpochRow, ImageSpec, TrialRow
from pipeline.spec import StudySpec
from pipeline.states import TrialState
from pipeline.study_view import MirrorMark

IMAGE = asdict(ImageSpec(8, 8, 3))


class Killed(BaseException):
    """The process was killed; nothing may handle it."""


def study_facts(study: str = "digits-1", dataset: str = "digits") -> dict[str, Any]:
    """Return the facts of a study."""
    return {
        "study": study,
        "dataset": dataset,
        "fingerprint": "f" * 64,
        "source": "/photos",
        "space": {"name": "small", "params": {"depth": {}}},
        "param_names": ["depth", "filters", "pooling", "dropout"],
        "oracle": "random",
        "seed": 0,
        "objective": "val_accuracy",
        "image": IMAGE,
        "classes": ["cat", "dog"],
        "num_images": {"train": 60, "val": 20, "test": 20},
        "versions": {"keras": "3"},
    }


def trial(number: int, state: str, score: float | None = None, **changes: Any) -> TrialRow:
    """Return a trial without dropout."""
    params = {"depth": 3, "filters": 64, "pooling": "max"}
    row = TrialRow(number, state, score, params, 1234, 5.5, 9.0, "", 3, 2, rung=-1 if score is None else 0, samples=60)
    return replace(row, **changes)


def epochs(num: int) -> list[EpochRow]:
    """Return epochs 1 to num."""
    return [EpochRow(n, 1 / n, 0.5, 2 / n, 0.4, 0.3, 0.2, 0.8, 0.001, 3.0) for n in range(1, num + 1)]


@dataclass
class FakeView:
    """A StudyView in memory that kills the process after `lives` marks, when that is given."""

    trial_rows: list[TrialRow] = field(default_factory=list)
    epoch_rows: dict[int, list[EpochRow]] = field(default_factory=dict)
    fact_dict: dict[str, Any] = field(default_factory=study_facts)
    saved: dict[int, MirrorMark] = field(default_factory=dict)
    lives: int | None = None
    keeps_last_mark: bool = True
    seen: dict[int, list[Any]] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    is_touched: int = 0  # a resumed study changes every trial that had not ended

    def spec(self) -> StudySpec:
        return StudySpec.of(self.fact_dict)

    def trials(self) -> list[TrialRow]:
        self.reads["trials"] += 1
        return list(self.trial_rows)

    def unsent(self) -> list[tuple[int, TrialRow]]:
        versions = [(self.version(row), row) for row in self.trial_rows]
        marks = self.saved
        return [(v, row) for v, row in versions if v > (marks[row.number].version if row.number in marks else 0)]

    def version(self, row: TrialRow) -> int:
        """Return the number of changes of a trial: what was seen of it, and how often that was something else."""
        state = (row, tuple(self.epoch_rows.get(row.number, ())), self.is_touched)
        seen = self.seen.setdefault(row.number, [])
        if (not seen or seen[-1] != state) and (seen or row.state != TrialState.PLANNED):
            seen.append(state)
        return len(seen)

    def epochs(self, number: int, after_step: int = 0) -> list[EpochRow]:
        self.reads["epochs"] += 1
        return [row for row in self.epoch_rows.get(number, []) if row.step > after_step]

    def marks(self) -> dict[int, MirrorMark]:
        self.reads["marks"] += 1
        return dict(self.saved)

    def set_mark(self, number: int, mark: MirrorMark) -> None:
        if self.lives is None:
            self.saved[number] = mark
            return
        self.lives -= 1
        if self.lives > 0 or self.keeps_last_mark:
            self.saved[number] = mark
        if self.lives <= 0:
            raise Killed


def small_study() -> FakeView:
    """Return a study with a trial of every kind."""
    rows = [
        trial(0, "COMPLETED", 0.912),
        trial(1, "INFEASIBLE", reason="out of memory at batch 512"),
        trial(2, "RUNNING"),
        trial(3, "PAUSED", 0.5),
        trial(4, "PLANNED"),
    ]
    return FakeView(rows, {0: epochs(3), 2: epochs(2), 3: epochs(1)})


def snapshot(client: Any, experiment: str) -> dict[str, Any]:
    """Return all that the store holds on an experiment, by run name: status, params, and every metric point."""
    runs = client.search_runs([experiment], max_results=1000)
    found = {}
    for run in runs:
        points = {
            key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for key in sorted(run.data.metrics)
        }
        found[run.info.run_name] = (run.info.status, dict(run.data.params), points)
    assert len(found) == len(runs)
    return found


def tiny_bundle(folder: Path, study: str = "digits-1", seed: int = 0, **changes: Any) -> Path:
    """Save a small untrained network as a bundle."""
    import keras

    from pipeline.bundle import write_bundle
    from pipeline.card import ModelCard

    folder.mkdir(parents=True)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.save(folder / "model.keras")
    facts = {
        "classes": ["cat", "dog"],
        "image": IMAGE,
        "params": {"depth": 1},
        "study": study,
        "test": {"accuracy": 0.75, "ci95": [0.5, 0.9], "num_images": 20},
        "versions": {"keras": keras.__version__},
    }
    write_bundle(folder, ModelCard.from_json(facts | changes))
    return folder
