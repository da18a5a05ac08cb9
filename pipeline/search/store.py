"""The study on disk: one SQLite file that is the only truth about trials, attempts, epochs and the result."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.files import is_locked
from pipeline.records import (
    COMPLETED,
    PAUSED,
    PLANNED,
    RUNNING,
    EpochRow,
    MirrorMark,
    TrialOutcome,
    TrialRow,
)

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

TABLES = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trial (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, params TEXT NOT NULL, num_params INTEGER NOT NULL,
    mflops REAL NOT NULL, reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS attempt (
    id INTEGER PRIMARY KEY, trial INTEGER NOT NULL REFERENCES trial (number), rung INTEGER NOT NULL,
    epochs INTEGER NOT NULL, first_step INTEGER NOT NULL, state TEXT NOT NULL, score REAL,
    seconds REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', started REAL NOT NULL);
CREATE TABLE IF NOT EXISTS epoch (
    attempt INTEGER NOT NULL REFERENCES attempt (id), step INTEGER NOT NULL, loss REAL, accuracy REAL, val_loss REAL,
    val_accuracy REAL, learning_rate REAL, seconds REAL, PRIMARY KEY (attempt, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (
    trial INTEGER PRIMARY KEY, run_id TEXT NOT NULL, last_step INTEGER NOT NULL, is_closed INTEGER NOT NULL);
"""

# States of an attempt besides those of a trial: DONE has a score, DIED lost its process, STOPPED was ended by the user.
STARTED, DONE, DIED, STOPPED = "STARTED", "DONE", "DIED", "STOPPED"

FINAL_TRIAL = -2
"""The trial number under which the winner's last training is kept: it is no trial and not in the leaderboard."""


class StudyStore:
    """A study's SQLite file, opened for one thread. Every public method is one durable transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the length of the block; roll back on an exception."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def create(self, facts: dict[str, Any]) -> None:
        """Make the tables and write the immutable facts of the study."""
        self.connection.executescript(TABLES)
        with self.transaction():
            for name, value in {**facts, "schema": SCHEMA_VERSION, "created": time.time()}.items():
                self.put(name, value)

    def is_created(self) -> bool:
        """Tell whether the study's facts are there; a kill may have come before."""
        tables = self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchall()
        return bool(tables) and self.get("created") is not None

    def put(self, name: str, value: Any) -> None:
        """Write one fact, inside a transaction or as one of its own."""
        self.connection.execute(
            "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )

    def get(self, name: str) -> Any:
        """Return one fact, or None."""
        row = self.connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["value"])

    def facts(self) -> dict[str, Any]:
        """Return all facts of the study."""
        return {row["name"]: json.loads(row["value"]) for row in self.connection.execute("SELECT * FROM fact")}

    def add_trial(self, number: int, params: dict[str, Any], num_params: int, mflops: float) -> None:
        """Record a trial as PLANNED, before anything of it runs."""
        self.connection.execute(
            "INSERT INTO trial (number, state, params, num_params, mflops) VALUES (?, ?, ?, ?, ?)",
            (number, PLANNED, json.dumps(params), num_params, mflops),
        )

    def start_attempt(self, number: int, rung: int, epochs: int) -> tuple[int, int]:
        """Record that a trial starts to train, before it does, and return (attempt, first step of its epochs)."""
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT COALESCE(SUM(epochs), 0) AS steps FROM attempt WHERE trial = ? AND state = ?",
                (number, DONE),
            ).fetchone()
            first_step = row["steps"] + 1
            cursor = connection.execute(
                "INSERT INTO attempt (trial, rung, epochs, first_step, state, started) VALUES (?, ?, ?, ?, ?, ?)",
                (number, rung, epochs, first_step, STARTED, time.time()),
            )
            connection.execute("UPDATE trial SET state = ? WHERE number = ?", (RUNNING, number))
        return int(cursor.lastrowid or 0), first_step

    def add_epoch(self, attempt: int, row: EpochRow) -> None:
        """Record one epoch of an attempt; NaN becomes NULL."""
        self.connection.execute(
            "INSERT OR REPLACE INTO epoch VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                attempt,
                row.step,
                row.loss,
                row.accuracy,
                row.val_loss,
                row.val_accuracy,
                row.learning_rate,
                row.seconds,
            ),
        )

    def end_attempt(self, outcome: TrialOutcome, attempt_state: str, trial_state: str, reason: str) -> None:
        """Record what became of an attempt and, in the same transaction, the trial's state and reason."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE attempt SET state = ?, score = ?, seconds = ?, reason = ? WHERE id = ?",
                (attempt_state, outcome.score, outcome.seconds, outcome.reason, outcome.attempt),
            )
            connection.execute(
                "UPDATE trial SET state = ?, reason = ? WHERE number = ?",
                (trial_state, reason, outcome.number),
            )

    def set_state(self, number: int, state: str) -> None:
        """Change the state of one trial."""
        self.connection.execute("UPDATE trial SET state = ? WHERE number = ?", (state, number))

    def count_deaths(self, number: int) -> int:
        """Return how often the process of a trial died."""
        row = self.connection.execute(
            "SELECT COUNT(*) AS deaths FROM attempt WHERE trial = ? AND state = ?", (number, DIED)
        ).fetchone()
        return int(row["deaths"])

    def unfinished_attempts(self) -> list[sqlite3.Row]:
        """Return the attempts that were started and never ended: what a killed search leaves."""
        return self.connection.execute("SELECT * FROM attempt WHERE state = ? ORDER BY id", (STARTED,)).fetchall()

    def has_final_model(self) -> bool:
        """Tell whether the winner's last training is done and its model was tested."""
        query = "SELECT 1 FROM attempt WHERE trial = ? AND state = ?"
        return self.connection.execute(query, (FINAL_TRIAL, DONE)).fetchone() is not None

    def scores(self, rung: int) -> dict[int, float]:
        """Return the score that each trial reached at the end of a rung."""
        rows = self.connection.execute(
            "SELECT trial, score FROM attempt WHERE rung = ? AND state = ? AND trial >= 0 ORDER BY id",
            (rung, DONE),
        )
        return {row["trial"]: row["score"] for row in rows}

    def timings(self) -> list[tuple[int, int, float]]:
        """Return (trial, epochs, seconds) of every finished rung."""
        rows = self.connection.execute(
            "SELECT trial, epochs, seconds FROM attempt WHERE state = ? ORDER BY id", (DONE,)
        )
        return [(row["trial"], row["epochs"], row["seconds"]) for row in rows]

    def trials(self) -> list[TrialRow]:
        """Return all trials, by number."""
        attempts: dict[int, list[sqlite3.Row]] = {}
        for row in self.connection.execute("SELECT * FROM attempt ORDER BY id"):
            attempts.setdefault(row["trial"], []).append(row)
        rows = self.connection.execute("SELECT * FROM trial WHERE number >= 0 ORDER BY number")
        return [trial_row(row, attempts.get(row["number"], [])) for row in rows]

    def epochs(self, number: int, after_step: int = 0) -> list[EpochRow]:
        """Return the epochs of one trial after a step: each step once, that of the latest attempt."""
        rows = self.connection.execute(
            "SELECT epoch.* FROM epoch JOIN attempt ON attempt.id = epoch.attempt WHERE attempt.trial = ? AND step > ? "
            "ORDER BY step, attempt.id",
            (number, after_step),
        )
        latest = {row["step"]: row for row in rows}
        nan = float("nan")
        return [
            EpochRow(step, *(nan if row[name] is None else row[name] for name in EPOCH_COLUMNS))
            for step, row in latest.items()
        ]

    def marks(self) -> dict[int, MirrorMark]:
        """Return how much of each trial the mirror holds."""
        rows = self.connection.execute("SELECT * FROM mark")
        return {row["trial"]: MirrorMark(row["run_id"], row["last_step"], bool(row["is_closed"])) for row in rows}

    def set_mark(self, number: int, mark: MirrorMark) -> None:
        """Store how much of one trial the mirror holds."""
        self.connection.execute(
            "INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?)",
            (number, mark.run_id, mark.last_step, mark.is_closed),
        )


EPOCH_COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


def trial_row(row: sqlite3.Row, attempts: list[sqlite3.Row]) -> TrialRow:
    """Return a line of the leaderboard from a trial and its attempts."""
    done = [attempt for attempt in attempts if attempt["state"] == DONE]
    # Of equal scores the longer training: on few validation images ties are common, and its loss is mostly lower.
    best = max(done, key=lambda attempt: (attempt["score"], attempt["rung"]), default=None)
    return TrialRow(
        number=row["number"],
        state=row["state"],
        score=best["score"] if best else None,
        params=json.loads(row["params"]),
        num_params=row["num_params"],
        mflops=row["mflops"],
        seconds=round(sum(attempt["seconds"] for attempt in attempts), 3),
        reason=row["reason"],
        epochs=best["epochs"] if best else 0,
        best_epoch=best["first_step"] + best["epochs"] - 1 if best else 0,
    )


def ranked(trials: list[TrialRow]) -> list[TrialRow]:
    """Return trials best first: by score, of equal scores the one with fewer FLOPs; those without a score last."""
    return sorted(
        trials,
        key=lambda trial: (-(trial.score if trial.score is not None else -1.0), trial.mflops, trial.number),
    )


def winner(trials: list[TrialRow]) -> TrialRow | None:
    """Return the best of the trials that finished a rung, or None."""
    finished = [trial for trial in trials if trial.score is not None and trial.state in (COMPLETED, PAUSED)]
    return ranked(finished)[0] if finished else None


def studies_folder(workspace: Path) -> Path:
    """Return where the studies of a workspace lie."""
    return workspace / "mlruns" / "studies"


def open_study(workspace: Path, name: str) -> StudyStore:
    """Open a study that exists.

    Raises:
        DataError: there is none of that name; the message lists those there are.
    """
    path = studies_folder(workspace) / name / "study.db"
    if not path.is_file():
        known = ", ".join(list_studies(workspace)) or "none"
        raise DataError(
            f"study {name}: not found in {studies_folder(workspace)}; found {known}; check the name or the folder"
        )
    try:
        store = StudyStore(path)
        if store.is_created():
            return store
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: {error}; expected a study; restore it from a copy, or delete its folder") from error
    raise DataError(f"study {name} was stopped before it began; expected trials; begin it again with --resume")


def is_alive(workspace: Path, name: str) -> bool:
    """Tell whether a process of this machine works on a study."""
    return is_locked(studies_folder(workspace) / name / "lock")


def list_studies(workspace: Path) -> list[str]:
    """Return the names of the studies of a workspace, the newest last."""
    created = {path.parent.name: creation_time(path) for path in studies_folder(workspace).glob("*/study.db")}
    return sorted(created, key=lambda name: (created[name], name))


def creation_time(path: Path) -> float:
    """Return when a study was created, in seconds since 1970; 0 for one whose creation did not finish."""
    try:
        store = StudyStore(path)
        try:
            return float(store.get("created")) if store.is_created() else 0.0
        finally:
            store.close()
    except sqlite3.DatabaseError:  # a damaged study must not hide the others
        return 0.0
