"""The study on disk: one SQLite file that is the only truth about trials, attempts, epochs and the result."""

import dataclasses
import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.card import Baseline, Distillation, Ensemble
from pipeline.crashpoints import crashpoint
from pipeline.errors import DataError
from pipeline.files import is_locked, is_network_folder
from pipeline.json_records import Record, from_json
from pipeline.records import EPOCH_COLUMNS, EpochRow, TrialRow
from pipeline.search.result import SearchResult
from pipeline.search.storage.attempts import Attempt, attempt_of, stored_number, stored_row, trial_row
from pipeline.search.storage.sync_state import MARK_TABLES, changed_trials, read_marks, unsent_versions, write_mark
from pipeline.spec import StudySpec
from pipeline.states import AttemptState, TrainingId, TrainingKind
from pipeline.study_view import MirrorMark
from pipeline.workspace import StudyFolder

_SCHEMA_VERSION = 2
_BUSY_SECONDS = 30.0

_TABLES = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trial (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, params TEXT NOT NULL, num_params INTEGER NOT NULL,
    mflops REAL NOT NULL, reason TEXT NOT NULL DEFAULT '', latency_ms REAL);
CREATE TABLE IF NOT EXISTS attempt (
    id INTEGER PRIMARY KEY, trial INTEGER NOT NULL REFERENCES trial (number), rung INTEGER NOT NULL,
    samples INTEGER NOT NULL, epochs INTEGER NOT NULL, first_step INTEGER NOT NULL, num_micro_batches INTEGER NOT NULL,
    state TEXT NOT NULL, score REAL, seconds REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', ended INTEGER,
    started REAL NOT NULL);
CREATE INDEX IF NOT EXISTS attempt_trial ON attempt (trial);
CREATE TABLE IF NOT EXISTS epoch (
    attempt INTEGER NOT NULL REFERENCES attempt (id), step INTEGER NOT NULL, loss REAL, accuracy REAL, val_loss REAL,
    val_accuracy REAL, val_balanced_accuracy REAL, val_macro_f1 REAL, val_auc REAL, learning_rate REAL, seconds REAL,
    PRIMARY KEY (attempt, step)) WITHOUT ROWID;
"""


class StudyStore:
    """A study's SQLite file, opened for one thread; with `is_read_only`, no file is made or changed.

    What a search decides (trials, attempts and their ends) is collected and written by `save`, in one durable
    transaction: half a decision is never on disk. Everything else is written at once.

    Raises:
        DataError: the file is not a study.
    """

    def __init__(self, path: Path, is_read_only: bool = False) -> None:
        self.path = path
        self.pending: list[tuple[str, tuple[Any, ...]]] = []
        # A new study's file may be empty until its tables are made; no trial has trained by then.
        if self.folder.checkpoints.is_dir() and path.is_file() and path.stat().st_size == 0:
            raise damaged(path, "the file is empty")
        address = _read_only_uri(path) if is_read_only else path
        self.connection = sqlite3.connect(
            address, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=is_read_only
        )
        self.connection.row_factory = sqlite3.Row
        if is_read_only:
            return
        # The write-ahead log needs memory that is shared between processes, which network file systems do not have.
        mode = "DELETE" if is_network_folder(path.parent) else "WAL"
        try:
            self.connection.execute(f"PRAGMA journal_mode={mode}")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second: of a message that quotes noise
            if isinstance(error, sqlite3.OperationalError):  # the disk is full, or the file is locked
                raise
            raise damaged(path, error) from error
        self.connection.execute("PRAGMA synchronous=FULL")

    @property
    def folder(self) -> StudyFolder:
        """The folder of the study."""
        return StudyFolder(self.path.parent)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> "StudyStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the length of the block; roll back on an exception."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            crashpoint("before-commit")
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite itself rolls back when, say, the disk is full
                self.connection.execute("ROLLBACK")
            raise
        crashpoint("after-commit")

    def create(self, facts: dict[str, Any]) -> None:
        """Make the tables and write the immutable facts of the study."""
        self.connection.executescript(_TABLES + MARK_TABLES)
        with self.transaction():
            for name, value in {**facts, "schema": _SCHEMA_VERSION, "created": time.time()}.items():
                self.put(name, value)
        # A log that is damaged later must not take the facts with it: the study would begin anew.
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def is_created(self) -> bool:
        """Tell whether the study's facts are there; a kill may have come before.

        Raises:
            DataError: they are of another version of this file.
        """
        tables = self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchall()
        if not tables or self.get("created") is None:
            return False
        if (found := self.get("schema")) != _SCHEMA_VERSION:
            raise DataError(
                f"{self.path}: this file has version {found}, not {_SCHEMA_VERSION}; open it with the "
                "version of pipeline that wrote it, or begin a new study with another --name"
            )
        return True

    def check_whole(self) -> None:
        """Read everything once.

        Raises:
            DataError: the file is damaged.
        """
        try:
            found = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found.splitlines()[-1])
            if self.is_created():
                self.facts()
                self.trials()
        except (sqlite3.DatabaseError, ValueError) as error:
            raise damaged(self.path, error) from error

    def put(self, name: str, value: Any) -> None:
        """Write one fact, inside a transaction or as one of its own."""
        self.connection.execute(_PUT_FACT, (name, json.dumps(value)))

    def get(self, name: str) -> Any:
        """Return one fact, or None."""
        row = self.connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["value"])

    def facts(self) -> dict[str, Any]:
        """Return all facts of the study."""
        return {row["name"]: json.loads(row["value"]) for row in self.connection.execute("SELECT * FROM fact")}

    def spec(self) -> StudySpec:
        """Return what the study is.

        Raises:
            DataError: a fact is missing or damaged.
        """
        try:
            return StudySpec.of(self.facts())
        except ValueError as error:
            raise damaged(self.path, error) from error

    def result(self) -> SearchResult:
        """Return what the search ended with.

        Raises:
            DataError: it has not ended, or what is kept of it is damaged.
        """
        try:
            return SearchResult.from_json(self.get("result") or {})
        except ValueError as error:
            raise damaged(self.path, error) from error

    def distillation(self) -> Distillation | None:
        """Return whether the winner learns from a better trial; None while that is not decided."""
        return self.decided("distillation", Distillation)

    def ensemble(self) -> Ensemble | None:
        """Return whether several networks answer; None while that is not decided."""
        return self.decided("ensemble", Ensemble)

    def baseline(self) -> Baseline | None:
        """Return what is known of the reference network; None before it was trained."""
        return self.decided("baseline", Baseline)

    def decided(self, name: str, kind: type[Record]) -> Record | None:
        """Return a fact as the record that it is, or None.

        Raises:
            DataError: it is damaged.
        """
        found = self.get(name)
        try:
            return None if found is None else from_json(kind, found)
        except ValueError as error:
            raise damaged(self.path, error) from error

    def save(self) -> None:
        """Write what was decided since the last time, in one durable transaction."""
        if self.pending:
            with self.transaction() as connection:
                for statement, values in self.pending:
                    connection.execute(statement, values)
            self.pending.clear()

    def decide(self, statement: str, *values: Any) -> None:
        """Collect one statement for `save`."""
        self.pending.append((statement, values))

    def add_trial(self, row: TrialRow) -> None:
        """Decide on a new trial."""
        self.decide(
            "INSERT INTO trial (number, state, params, num_params, mflops) VALUES (?, ?, ?, ?, ?)",
            row.number, row.state, json.dumps(row.params), row.num_params, row.mflops,
        )  # fmt: skip

    def put_attempt(self, attempt: Attempt) -> None:
        """Decide on an attempt: that it starts, or how it ended."""
        self.decide(
            "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = "
            "excluded.state, score = excluded.score, seconds = excluded.seconds, reason = excluded.reason, "
            "ended = excluded.ended",
            *dataclasses.astuple(dataclasses.replace(attempt, training=stored_number(attempt.training))), time.time(),
        )  # fmt: skip

    def put_trial(self, row: TrialRow) -> None:
        """Decide on what changed of a trial."""
        self.decide(
            "UPDATE trial SET state = ?, reason = ?, latency_ms = ? WHERE number = ?",
            row.state, row.reason, row.latency_ms, row.number,
        )  # fmt: skip

    def put_later(self, name: str, value: Any) -> None:
        """Decide on a fact."""
        self.decide(_PUT_FACT, name, json.dumps(value))

    def put_epoch(self, attempt: int, row: EpochRow) -> None:
        """Decide on one epoch of an attempt; NaN becomes NULL."""
        columns = ", ".join("?" * (len(EPOCH_COLUMNS) + 2))
        values = (getattr(row, name) for name in EPOCH_COLUMNS)
        crashpoint("before-epoch")
        self.decide(f"INSERT OR REPLACE INTO epoch VALUES ({columns})", attempt, row.step, *values)
        crashpoint("after-epoch")

    def has_final_model(self) -> bool:
        """Tell whether the winner's last training is done and its model was tested."""
        return any(attempt.state == AttemptState.DONE for attempt in self.attempts(TrainingKind.FINAL))

    def attempts(self, training: TrainingId | None = None) -> list[Attempt]:
        """Return all attempts, or those of one training, in the order in which they started."""
        where, values = ("", ()) if training is None else ("WHERE trial = ?", (stored_number(training),))
        return list(map(attempt_of, self.connection.execute(f"SELECT * FROM attempt {where} ORDER BY id", values)))

    def open_last_trainings(self) -> list[Attempt]:
        """Return the attempts that belong to no trial and have not ended."""
        query = "SELECT * FROM attempt WHERE trial < 0 AND state = ? ORDER BY id"
        return list(map(attempt_of, self.connection.execute(query, (AttemptState.STARTED,))))

    def trials(self, numbers: Iterable[int] | None = None) -> list[TrialRow]:
        """Return all trials, or those of the given numbers, by number."""
        chosen = [] if numbers is None else [json.dumps(list(numbers))]
        among = " IN (SELECT value FROM json_each(?))" if chosen else " >= 0"
        attempts: dict[int, list[Attempt]] = {}
        for row in self.connection.execute(f"SELECT * FROM attempt WHERE trial{among} ORDER BY id", chosen):
            attempts.setdefault(row["trial"], []).append(attempt_of(row))
        rows = self.connection.execute(f"SELECT * FROM trial WHERE number{among} ORDER BY number", chosen)
        return [trial_row(stored_row(row), attempts.get(row["number"], [])) for row in rows]

    def changed(self, change: int) -> tuple[list[TrialRow], int]:
        """Return the trials that changed after a change number, and the number of the last change."""
        numbers, last = changed_trials(self.connection, change)
        return (self.trials(numbers) if numbers else []), last

    def unsent(self) -> list[tuple[int, TrialRow]]:
        """Return (version, trial), by number, of each trial that changed since its mark was set."""
        versions = unsent_versions(self.connection)
        return [(versions[row.number], row) for row in self.trials(versions)] if versions else []

    def epochs(self, training: TrainingId, after_step: int = 0) -> list[EpochRow]:
        """Return the epochs of one training after a step: each step once, that of the latest attempt."""
        rows = self.connection.execute(
            "SELECT epoch.* FROM attempt JOIN epoch ON attempt.id = epoch.attempt WHERE attempt.trial = ? AND step > ? "
            "ORDER BY step, attempt.id",
            (stored_number(training), after_step),
        )
        latest = {row["step"]: row for row in rows}
        return [
            EpochRow(step, *(math.nan if row[name] is None else row[name] for name in EPOCH_COLUMNS))
            for step, row in latest.items()
        ]

    def marks(self) -> dict[int | None, MirrorMark]:
        """Return how much of each trial the mirror holds, and of the study itself as None."""
        return read_marks(self.connection)

    def set_mark(self, number: int | None, mark: MirrorMark) -> None:
        """Store how much of one trial, or of the study itself, the mirror holds."""
        write_mark(self.connection, number, mark)


_PUT_FACT = "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def damaged(path: Path, reason: object) -> DataError:
    """Return the error for a file that is not a study, or is incomplete."""
    return DataError(
        f"{path}: {reason}, so it is not a usable study; if the disk is full, free some space; if the file is "
        "damaged, restore it from a copy, or delete its folder"
    )


def _read_only_uri(path: Path) -> str:
    """Return how SQLite opens a study to read it. Where nobody writes, it need not make the files of a log to do so."""
    is_quiet = not is_locked(StudyFolder(path.parent).lock) and not path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?{'immutable=1' if is_quiet else 'mode=ro'}"
