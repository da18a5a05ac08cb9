"""What workflows need of who hears them and of who interrupts them: one contract for each implementation."""

import signal

import pytest

from pipeline.cli.terminal.interruptions import Interruptions
from pipeline.cli.terminal.progress import TerminalProgress
from pipeline.search.snapshot import Snapshot
from pipeline.workflows.progress import NoSignals, Silent, decoding_report
from tests.workflows.listeners import Heard

SNAPSHOT = Snapshot("photos-1", "running", {})


@pytest.mark.parametrize("make", [Silent, TerminalProgress, Heard])
class TestProgress:
    def test_it_takes_lines_of_any_level(self, make):
        for level in (-1, 0, 1):
            make().say("a line", level)

    def test_a_search_may_call_it_as_often_as_it_likes(self, make):
        with make().following(lambda: SNAPSHOT) as draw:
            for _ in range(100):
                draw()

    def test_a_scoring_may_call_it_after_every_batch(self, make):
        with make().counting() as count:
            for done in range(100):
                count(done, 100, done // 2)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_errors_pass_through(self, make, error):
        with pytest.raises(error), make().following(lambda: SNAPSHOT):
            raise error
        with pytest.raises(error), make().counting():
            raise error


@pytest.mark.parametrize("make", [NoSignals, Interruptions])
def test_without_a_signal_a_workflow_goes_on(make):
    stop = make()
    with stop.deferred():
        stop.check()
    assert stop.seconds_left() is None
    with pytest.raises(RuntimeError), stop.deferred():
        raise RuntimeError


def test_a_signal_that_is_deferred_is_acted_on_where_it_is_looked_for(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    stop = Interruptions()
    with stop.deferred():
        stop.note(signal.SIGTERM, None)
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert 0 < stop.seconds_left() <= 7.0


def test_decoding_is_reported_every_few_seconds(monkeypatch):
    times = iter([0.0, 4.9, 5.1, 6.0, 10.2])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    heard = Heard()
    report = decoding_report(heard)
    for done in (1000, 2000, 3000, 4000):
        report(done, 5000)
    assert heard.lines == ["  decoded 2,000 of 5,000", "  decoded 4,000 of 5,000"]
