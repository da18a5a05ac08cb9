"""The thread that feeds a mirror: it warns once, asks a dead one ever more rarely, and never holds up an end."""

import threading
import time

import pytest

from pipeline.errors import TrackingError
from pipeline.search import mirroring
from pipeline.search.mirroring import BackgroundMirror

OUTAGE = TrackingError("no answer")


class Store:
    """A mirror that fails `num_failures` times, and notes when it was asked."""

    def __init__(self, num_failures: int = 0) -> None:
        self.num_failures = num_failures
        self.times: list[float] = []
        self.worked = threading.Event()
        self.state = ""

    def push(self) -> None:
        self.times.append(time.monotonic())
        if len(self.times) <= self.num_failures:
            raise OUTAGE
        self.worked.set()

    def close(self, state: str) -> str:
        self.push()
        self.state = state
        return "run"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "PUSH_SECONDS", 0.01)


def test_outage_is_warned_of_once_and_asked_ever_more_rarely() -> None:
    store, warnings = Store(num_failures=4), []
    background = BackgroundMirror(store, "s", warnings.append)
    background.start()
    assert store.worked.wait(30)
    assert background.finish("FINISHED") == "run"
    assert warnings == ["MLflow is behind and will be caught up: no answer"]
    pauses = [after - before for before, after in zip(store.times, store.times[1:], strict=False)]
    for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.16), strict=False):
        assert pause >= least


def test_pause_has_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "LONGEST_PAUSE", 0.02)
    store = Store(num_failures=12)
    background = BackgroundMirror(store, "s", [].append)
    background.start()
    assert store.worked.wait(30)  # doubling without a bound would take 41 s
    assert background.finish("FINISHED") == "run"


def test_end_names_the_command_that_finishes_it() -> None:
    warnings: list[str] = []
    background = BackgroundMirror(Store(num_failures=99), "photos-1", warnings.append)
    background.start()
    assert background.finish("FINISHED") is None
    assert warnings[-1] == (
        "MLflow does not hold the whole study: no answer\n"
        "nothing is lost; when MLflow answers, `pipeline sync photos-1` finishes it"
    )


@pytest.mark.parametrize(("usual", "left"), [(0.1, None), (0.1, 60.0), (60.0, 0.1)])
def test_end_does_not_wait_for_a_mirror_that_hangs(
    monkeypatch: pytest.MonkeyPatch, usual: float, left: float | None
) -> None:
    monkeypatch.setattr(mirroring, "LAST_SECONDS", usual)
    release, warnings = threading.Event(), []
    store = Store()
    store.push = release.wait  # type: ignore[method-assign]
    background = BackgroundMirror(store, "s", warnings.append)
    background.start()
    assert background.finish("KILLED", left) is None
    assert warnings[-1].startswith("MLflow does not hold the whole study: no end within 0 s")
    release.set()
    background.thread.join()
    assert store.state == "KILLED"


def test_tidying_up_is_done_once_and_its_failure_stops_nothing() -> None:
    store, calls, warnings = Store(), [], []

    def tidy() -> None:
        calls.append(len(store.times))
        raise RuntimeError("odd")

    background = BackgroundMirror(store, "s", warnings.append, tidy)
    background.start()
    assert store.worked.wait(30)
    assert background.finish("FINISHED") == "run"
    assert calls == [1]
    assert store.state == "FINISHED"
