"""The progress of workflows on a terminal, and where there is none."""

import pytest

from pipeline.cli.terminal import progress as module
from pipeline.cli.terminal.progress import TerminalProgress


def test_without_a_terminal_a_search_is_not_looked_at(capsys):
    with TerminalProgress().following(lambda: pytest.fail("nobody looks")) as draw:
        draw()
    assert capsys.readouterr().err == ""


def test_without_a_terminal_files_are_counted_in_a_line_every_ten_seconds(capsys, monkeypatch):
    times = iter([0.0, 1.0, 9.9, 10.1, 15.0, 20.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    with TerminalProgress().counting() as count:
        for done in (0, 50, 101, 150, 202):
            count(done, 1000, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["101 of 1,000 files, 1 errors, 10 images/s", "202 of 1,000 files, 1 errors, 10 images/s"]


def test_a_scoring_that_goes_on_says_what_was_done_before(capsys):
    with TerminalProgress().counting() as count:
        count(5, 9, 0)
    assert capsys.readouterr().err == "Continuing: 5 of 9 files were scored before\n"


def test_a_scoring_that_is_quiet_counts_nothing(capsys, monkeypatch):
    times = iter([0.0, 11.0, 22.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(module, "verbosity", lambda: -1)
    with TerminalProgress().counting() as count:
        count(0, 9, 0)
        count(5, 9, 0)
    assert capsys.readouterr().err == ""
