"""The mirror is fed in the background: what it costs and whether it works never touches the search."""

import threading
from collections.abc import Callable

from pipeline.errors import TrackingError
from pipeline.records import Mirror

PUSH_SECONDS = 2.0


class BackgroundMirror:
    """A thread that pushes the study to its mirror every PUSH_SECONDS; an outage is warned of once and tried again."""

    def __init__(self, mirror: Mirror, warn: Callable[[str], None]) -> None:
        self.mirror = mirror
        self.warn = warn
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="mirror", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self.thread.start()

    def run(self) -> None:
        """Push until told to stop."""
        is_down = False
        while not self.stopping.wait(PUSH_SECONDS):
            try:
                self.mirror.push()
                is_down = False
            except Exception as error:  # noqa: BLE001  border: nothing that befalls the mirror may stop the search
                if not is_down:
                    self.warn(f"MLflow is behind and will be caught up: {describe(error)}")
                is_down = True

    def finish(self, state: str) -> str | None:
        """Stop the thread, send the rest, end the parent run in `state`, and return its run id; None on an outage."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()
        try:
            return self.mirror.close(state)
        except Exception as error:  # noqa: BLE001  border: it must not hide why the search ended
            self.warn(f"MLflow does not hold the whole study: {describe(error)}")
            return None


def describe(error: Exception) -> str:
    """Return an error as text; one that is not meant for users with its kind."""
    return str(error) if isinstance(error, TrackingError) else f"{type(error).__name__}: {error}"
