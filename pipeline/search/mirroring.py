"""The mirror is fed in the background: what it costs and whether it works never touches the search."""

import threading
from collections.abc import Callable

from pipeline.errors import TrackingError
from pipeline.study_view import Mirror

PUSH_SECONDS = 2.0
LONGEST_PAUSE = 60.0  # between two tries while the mirror does not answer; the pause doubles up to that
LAST_SECONDS = 12.0  # that the end of a search waits for the mirror


class BackgroundMirror:
    """A thread that pushes a study to its mirror and finally ends it there; an outage is warned of once.

    `tidy` is called once, after the first push that worked, and `release` when nothing more is sent. Nothing in the
    thread holds a lock that the search needs.
    """

    def __init__(
        self,
        mirror: Mirror,
        study: str,
        warn: Callable[[str], None],
        tidy: Callable[[], object] = lambda: None,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self.mirror = mirror
        self.study = study
        self.warn = warn
        self.tidy = tidy
        self.release = release
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="mirror", daemon=True)
        self.has_warned = False
        self.is_tidy = False
        self.state = ""
        self.failure = ""
        self.run_id: str | None = None

    def start(self) -> None:
        """Begin to push."""
        self.thread.start()

    def run(self) -> None:
        """Push until told to stop, ever more rarely while it fails; then end the parent run."""
        pause = PUSH_SECONDS
        while not self.stopping.wait(pause):
            pause = PUSH_SECONDS if self.works(self.push) else min(2 * pause, LONGEST_PAUSE)
        self.works(self.close)
        self.release()

    def works(self, step: Callable[[], None]) -> bool:
        """Do a step and tell whether it worked."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  border: nothing that befalls the mirror may stop the search
            self.failure = _describe(error)
            if not self.has_warned and not self.stopping.is_set():
                self.has_warned = True
                self.warn(f"MLflow is behind and will be caught up: {self.failure}")
            return False
        return True

    def push(self) -> None:
        """Send what is new."""
        self.mirror.push()
        if not self.is_tidy:
            self.is_tidy = True
            self.tidy()

    def close(self) -> None:
        """Send the rest and end the parent run."""
        self.run_id = self.mirror.close(self.state)

    def finish(self, state: str, seconds: float | None = None) -> str | None:
        """Send the rest, end the parent run in `state` and return its run id; None on an outage.

        It takes at most `seconds`, or LAST_SECONDS; a thread that hangs by then is left to itself.
        """
        self.state = state
        self.stopping.set()
        limit = LAST_SECONDS if seconds is None else min(seconds, LAST_SECONDS)
        self.thread.join(limit)
        if self.run_id is None:
            reason = f"no end within {limit:.0f} s" if self.thread.is_alive() else self.failure
            self.warn(
                f"MLflow does not hold the whole study: {reason}\n"
                f"nothing is lost; when MLflow answers, `pipeline sync {self.study}` finishes it"
            )
        return self.run_id


def _describe(error: Exception) -> str:
    """Return an error as text; one that is not meant for users with its kind."""
    return str(error) if isinstance(error, TrackingError) else f"{type(error).__name__}: {error}"
