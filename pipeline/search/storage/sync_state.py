"""What of a study its mirror holds: a version of each trial, kept by triggers, and marks. No other table is here."""

import sqlite3

from pipeline.study_view import MirrorMark

_STORED_PARENT = -1  # the number under which the mark of the study itself is kept

# Triggers, so that no way of writing to a study can forget to count.
# `change` counts on over all trials, so that a reader finds those that changed since its last look.
MARK_TABLES = """
CREATE TABLE IF NOT EXISTS mark (
    trial INTEGER PRIMARY KEY, run_id TEXT NOT NULL, version INTEGER NOT NULL, is_closed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS version (trial INTEGER PRIMARY KEY, number INTEGER NOT NULL, change INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS version_change ON version (change);
CREATE TRIGGER IF NOT EXISTS trial_added AFTER INSERT ON trial WHEN NEW.number >= 0 BEGIN
    INSERT INTO version SELECT NEW.number, 0, COALESCE(MAX(change), 0) + 1 FROM version;
END;
CREATE TRIGGER IF NOT EXISTS trial_changed AFTER UPDATE ON trial BEGIN
    UPDATE version SET number = number + 1, change = (SELECT MAX(change) + 1 FROM version) WHERE trial = NEW.number;
END;
CREATE TRIGGER IF NOT EXISTS attempt_changed AFTER UPDATE ON attempt BEGIN
    UPDATE version SET number = number + 1, change = (SELECT MAX(change) + 1 FROM version) WHERE trial = NEW.trial;
END;
CREATE TRIGGER IF NOT EXISTS epoch_added AFTER INSERT ON epoch BEGIN
    UPDATE version SET number = number + 1, change = (SELECT MAX(change) + 1 FROM version)
    WHERE trial = (SELECT trial FROM attempt WHERE id = NEW.attempt);
END;
"""


def changed_trials(connection: sqlite3.Connection, change: int) -> tuple[list[int], int]:
    """Return the numbers of the trials that changed after a change, and the last change; 0 without trials."""
    # The last one first: what changes in between is found again the next time, not lost.
    last = connection.execute("SELECT COALESCE(MAX(change), 0) FROM version").fetchone()[0]
    numbers = [row[0] for row in connection.execute("SELECT trial FROM version WHERE change > ?", (change,))]
    return numbers, int(last)


def unsent_versions(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the version of each trial that its mark does not hold yet, by number."""
    rows = connection.execute(
        "SELECT version.trial, version.number FROM version LEFT JOIN mark ON mark.trial = version.trial "
        "WHERE version.number > COALESCE(mark.version, 0) ORDER BY version.trial"
    )
    return dict(rows)


def read_marks(connection: sqlite3.Connection) -> dict[int | None, MirrorMark]:
    """Return how much of each trial the mirror holds, and of the study itself as None."""
    rows = connection.execute("SELECT trial, run_id, version, is_closed FROM mark")
    return {
        None if trial == _STORED_PARENT else trial: MirrorMark(run_id, version, bool(is_closed))
        for trial, run_id, version, is_closed in rows
    }


def write_mark(connection: sqlite3.Connection, number: int | None, mark: MirrorMark) -> None:
    """Store how much of one trial, or of the study itself, the mirror holds."""
    stored = _STORED_PARENT if number is None else number
    connection.execute(
        "INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?)", (stored, mark.run_id, mark.version, mark.is_closed)
    )
