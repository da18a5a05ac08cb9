"""An engine that trains in threads of this process: a second one, which shows that the protocol is enough."""

import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from pipeline.search.events import TrainingEnded
from pipeline.search.jobs import TrialOutcome
from pipeline.states import OutcomeState
from pipeline.training import stopping


class ThreadEngine:
    """Trains each job in a thread; nothing is pinned, limited or killed."""

    def __init__(self, train, num_workers: int = 1) -> None:
        self.train = train
        self.num_workers = num_workers
        self.running = []
        self.events = queue.SimpleQueue()

    def start(self):
        stopping.listen()

    def check(self):
        pass

    def call_all(self, function, *arguments):
        with ThreadPoolExecutor(self.num_workers) as pool:
            return [pool.submit(function, *arguments) for _ in range(self.num_workers)]

    def num_free(self):
        return self.num_workers - len(self.running)

    def submit(self, job):
        self.running.append(job)
        threading.Thread(target=self.do, args=(job,), daemon=True).start()

    def do(self, job):
        try:
            outcome = self.train(job, self.events.put)
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {error}"
            outcome = TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.FAILED, reason=reason)
        self.events.put(TrainingEnded(outcome))

    def poll(self, seconds):
        found, end = [], time.monotonic() + seconds
        while self.running and not found and time.monotonic() < end:
            try:
                found.append(self.events.get(timeout=0.01))
                while True:
                    found.append(self.events.get_nowait())
            except queue.Empty:
                pass
        ended = {event.outcome.attempt for event in found if isinstance(event, TrainingEnded)}
        self.running = [job for job in self.running if job.attempt not in ended]
        return found

    def interrupt(self):
        events = []
        while self.running:  # each training that hears it takes it away
            os.kill(os.getpid(), stopping.SIGNAL)
            events += self.poll(0.05)
        stopping.clear()
        return events

    def stop(self):
        if self.running:
            self.interrupt()
