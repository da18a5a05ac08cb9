"""Versions and marks: which trials their mirror has not seen as they are."""

import sqlite3
from collections.abc import Iterator

import pytest

from pipeline.search.storage.sync_state import MARK_TABLES, read_marks, unsent_versions, write_mark
from pipeline.study_view import MirrorMark


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A study's tables, as far as marks look at them, with two planned trials."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(
        "CREATE TABLE trial (number INTEGER PRIMARY KEY, state TEXT);"
        "CREATE TABLE attempt (id INTEGER PRIMARY KEY, trial INTEGER, state TEXT);"
        "CREATE TABLE epoch (attempt INTEGER, step INTEGER, loss REAL, PRIMARY KEY (attempt, step)) WITHOUT ROWID;"
        + MARK_TABLES
        + "INSERT INTO trial VALUES (0, 'PLANNED'), (1, 'PLANNED'), (-2, 'PLANNED');"
    )
    yield connection
    connection.close()


def test_planned_trial_has_nothing_to_show(connection: sqlite3.Connection) -> None:
    assert unsent_versions(connection) == {}


def test_every_way_of_writing_counts(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE trial SET state = 'RUNNING' WHERE number = 1")
    assert unsent_versions(connection) == {1: 1}
    connection.execute("INSERT INTO attempt VALUES (7, 1, 'STARTED')")
    connection.execute("INSERT OR REPLACE INTO epoch VALUES (7, 1, 0.5)")
    assert unsent_versions(connection) == {1: 2}
    connection.execute("INSERT OR REPLACE INTO epoch VALUES (7, 1, 0.4)")
    assert unsent_versions(connection) == {1: 3}
    connection.execute("UPDATE attempt SET state = 'DONE' WHERE id = 7")
    assert unsent_versions(connection) == {1: 4}


def test_mark_of_an_older_version_leaves_the_trial_unsent(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE trial SET state = 'RUNNING'")
    write_mark(connection, 0, MirrorMark("a", 1))
    write_mark(connection, 1, MirrorMark(""))
    assert unsent_versions(connection) == {1: 1}
    connection.execute("UPDATE trial SET state = 'FAILED' WHERE number = 0")
    assert unsent_versions(connection) == {0: 2, 1: 1}
    write_mark(connection, 0, MirrorMark("a", 2, is_closed=True))
    assert unsent_versions(connection) == {1: 1}
    assert read_marks(connection) == {0: MirrorMark("a", 2, True), 1: MirrorMark("", 0, False)}


def test_last_training_of_the_winner_is_no_trial(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO attempt VALUES (1, -2, 'STARTED')")
    connection.execute("UPDATE attempt SET state = 'DONE'")
    assert unsent_versions(connection) == {}
