"""The board of a search: on a terminal it draws and leaves no trace; elsewhere there is one line an event."""

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.terminal.board import best_line, drawing, trials_line
from pipeline.records import TrialRow
from pipeline.search.snapshot import Failure, RunningTrial, Snapshot
from pipeline.states import TrialState

ROOT = Path(__file__).parents[3]
NO_TRIALS = dict.fromkeys(map(str.lower, TrialState), 0)
SEQUENCE = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


def draw(snapshot: Snapshot, width: int = 70) -> list[str]:
    """Return the board as lines of plain text."""
    from rich.console import Console

    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(drawing(snapshot))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_board_shows_best_running_counts_and_time():
    best = TrialRow(3, TrialState.COMPLETED, 0.9312, {"depth": 3, "learning_rate": 0.00213}, 84120, 5.5, 9.0, "", 3, 3)
    running = (
        RunningTrial(14, 1, 2, 4, 5, 10, 0.375, 0.2),
        RunningTrial(15, 0, 0, 3, 0, 0, 0.0, None),
        RunningTrial(None, 2, 4, 4, 10, 10, 1.0, 75.0),
    )
    trials = NO_TRIALS | {"running": 2, "completed": 12}
    assert draw(Snapshot("photos-1", "running", trials, running, "val_accuracy", best, None, 185.0, 900.0, 715.0)) == [
        "photos-1 " + "─" * 61,
        "best     trial 3: val_accuracy 0.9312, 84,120 params; depth 3,",
        "learning_rate 0.0021",
        "trial 14 rung 1  " + "━" * 9 + " " * 15 + "  epoch 2/4, batch 5/10",
        "trial 15 rung 0  " + " " * 24 + "  starts",
        "the winner       " + "━" * 24 + "  epoch 4/4, batch 10/10, no…",
        "trials   2 running, 12 completed",
        "elapsed  3m05s of 15m00s, about 11m55s left",
    ]


def test_foreign_text_is_neither_obeyed_nor_read_as_markup():
    best = TrialRow(0, TrialState.COMPLETED, 0.5, {"pooling": "\x1b[31m[bold]max"}, 1, 1.0, 1.0, "", 1, 1)
    trials = NO_TRIALS | {"failed": 3}
    snapshot = Snapshot("photos-1", "running", trials, (), "val_loss", best, Failure("\x1b]0;x\x07[red]nan\nin 2", 2))
    assert best_line(snapshot).endswith("pooling \\x1b[31m[bold]max")
    assert trials_line(snapshot) == "trials   3 failed (2 of 3: \\x1b]0;x\\x07[red]nan\\nin 2)"
    assert "trials   3 failed (2 of 3: \\x1b]0;x\\x07[red]nan\\nin 2)" in draw(snapshot)


def screen(text: str) -> list[str]:
    """Return what a terminal shows after `text`: carriage return, line feed, cursor up and erase line are obeyed."""
    lines, row, column = [""], 0, 0
    for match in SEQUENCE.finditer(text):
        token, (count, letter) = match.group(), match.groups()
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif letter == "A":
            row -= int(count or 1)
        elif letter == "K":
            lines[row] = ""
        elif letter is None:
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in "\n".join(lines).rstrip().split("\n")]


def on_a_terminal(
    folder: Path,
    *arguments: str,
    follow: Callable[..., None] = lambda text, terminal, process: None,
    **environment: str,
) -> tuple[int, str, bool]:
    """Run the driver under a pseudo-terminal; return exit code, output and whether the terminal is as it was.

    `follow` is called with all output, the terminal's descriptor and the process whenever there may be more.
    """
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 100))
    before = termios.tcgetattr(side)
    command = [sys.executable, "-m", "tests.cli.search_driver", str(folder), *arguments]
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=side, stdout=side, stderr=side, start_new_session=True,
        env={**clean, "TERM": "xterm-256color", **environment},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    text = ""
    while process.poll() is None:
        text += read(terminal, 0.2)
        follow(text, terminal, process)
    text += read(terminal, 0.0)
    is_sane = termios.tcgetattr(side) == before and "\x1b[?25l" not in text.rpartition("\x1b[?25h")[2]
    os.close(side)
    os.close(terminal)
    return process.returncode, text, is_sane


def read(terminal: int, seconds: float) -> str:
    """Return what the terminal has got within some seconds."""
    import select

    found = b""
    while select.select([terminal], [], [], seconds)[0]:
        found += os.read(terminal, 65536)
        seconds = 0.0
    return found.decode()


EVENT = re.compile(r" +\d+s  trial +\d+ rung 0  (val_accuracy|INFEASIBLE).*")


@pytest.mark.heavy
def test_the_board_draws_below_the_events_and_is_gone_at_the_end(tmp_path):
    code, text, is_sane = on_a_terminal(tmp_path, "8")
    assert (code, is_sane) == (0, True)
    *events, result = screen(text)
    assert (len(events), result) == (8, "the result")
    assert all(EVENT.fullmatch(line) for line in events)
    last_board = screen(text[: text.rindex("elapsed  ") + 10])
    assert last_board[-6].startswith("photos-1 ───")
    assert [line.split()[0] for line in last_board[-5:]] == ["best", "filters", "trial", "trials", "elapsed"]
    assert all(EVENT.fullmatch(line) for line in last_board[:-6])
    assert "━━━" in last_board[-3]


@pytest.mark.heavy
def test_ctrl_c_and_a_bug_leave_the_terminal_as_it_was(tmp_path):
    pressed: list[int] = []

    def press_ctrl_c(text: str, terminal: int, _process: object) -> None:
        if "trial   1 rung 0" in text and "elapsed" in text and not pressed:
            pressed.append(os.write(terminal, b"\x03"))

    code, text, is_sane = on_a_terminal(tmp_path / "a", "1000", follow=press_ctrl_c)
    assert (code, is_sane) == (130, True)
    assert screen(text)[-1] == "pipeline: stopped by Ctrl-C; it can be resumed"
    assert not any(line.startswith(("best", "elapsed", "photos-1")) for line in screen(text))
    code, text, is_sane = on_a_terminal(tmp_path / "b", "8", "raise")
    assert (code, is_sane) == (1, True)
    assert screen(text)[-1] == "RuntimeError: a bug in the engine"
    assert not any(line.startswith(("best", "elapsed", "photos-1")) for line in screen(text))


@pytest.mark.heavy
def test_a_killed_search_leaves_a_cursor(tmp_path):
    def kill(text: str, _terminal: int, process: subprocess.Popen[bytes]) -> None:
        if "elapsed" in text:
            process.kill()

    code, _, is_sane = on_a_terminal(tmp_path, "1000", follow=kill)
    assert (code, is_sane) == (-9, True)


@pytest.mark.heavy
def test_off_a_terminal_there_is_one_line_an_event(tmp_path):
    code, text, _ = on_a_terminal(tmp_path, "3", CI="true")
    assert (code, "\x1b" in text) == (0, False)
    *events, result, _ = text.split("\r\n")
    assert (len(events), result) == (3, "the result")
    assert all(EVENT.fullmatch(line) for line in events)
