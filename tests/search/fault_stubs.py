"""Trainings that go wrong, each in its own way; they run in real children and need no TensorFlow."""

import ctypes
import os
import signal
import sys
import threading
import time

from pipeline.files import replacing
from pipeline.heartbeat import Heart
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.events import Emit, Reporter, reporter_of
from pipeline.search.jobs import Findings, TrainingJob, TrialOutcome
from pipeline.search.worker.main import outcome_of
from pipeline.states import OutcomeState
from pipeline.training import stopping
from tests.search.stubs import NUM_IMAGES, epoch_row, save_model, score_of

FOREVER = 3600.0
NUM_MEGABYTES = 600  # more than a child may take in the tests


def warm_up() -> int:
    """Get ready in no time; stops are heard as in a real child."""
    stopping.listen()
    return os.getpid()


def hang_at_start() -> int:
    time.sleep(FOREVER)
    return os.getpid()


def die_at_start() -> int:
    os._exit(4)


def lack_the_backend() -> int:
    raise ModuleNotFoundError("No module named 'tensorflow'")


def outcome(job: TrainingJob, score: object = 0.5, state: str = OutcomeState.COMPLETED) -> TrialOutcome:
    """Return what a training returns, with the number of its process."""
    return TrialOutcome(job.attempt, job.training, job.rung, state, score, findings=Findings(epochs=os.getpid()))


def first_beat(job: TrainingJob, emit: Emit) -> Heart:
    return reporter_of(job.attempt, emit).heart


def work_as_bidden(job, emit):
    return outcome(job)


def raise_an_error(job, emit):
    raise ValueError("no such layer")


def leave_python(job, emit):
    sys.exit(3)


def leave_the_process(job, emit):
    os._exit(9)


def break_the_process(job, emit):
    ctypes.string_at(0)


def take_memory(job, emit):
    heart, taken = first_beat(job, emit), []
    for _ in range(NUM_MEGABYTES):
        taken.append(os.urandom(1) * 2**20)
        heart.touch()
    time.sleep(FOREVER)


def hang_before_the_first_step(job, emit):
    first_beat(job, emit)
    time.sleep(FOREVER)


def hang_after_a_step(job, emit):
    first_beat(job, emit).batch(1, 1, 1, 100)
    time.sleep(FOREVER)


def hang_and_ignore_sigterm(job, emit):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang_after_a_step(job, emit)


def step_for_ever(job, emit):
    heart, step = first_beat(job, emit), 0
    while True:
        step += 1
        heart.batch(1, 1, step, 100)
        time.sleep(0.01)


def step_until_asked(job, emit):
    heart, step = first_beat(job, emit), 0
    while not stopping.is_requested():
        step += 1
        heart.batch(1, 1, step, 100)
        time.sleep(0.01)
    stopping.clear()
    return outcome(job, None, OutcomeState.STOPPED)


def wait_in_silence(job, emit):
    first_beat(job, emit)
    while not stopping.is_requested():
        time.sleep(0.01)
    stopping.clear()
    return outcome(job, None, OutcomeState.STOPPED)


def print_a_line(job, emit):
    print("a line of a training", flush=True)
    return outcome(job)


def print_until_asked(job, emit):
    while not stopping.is_requested():
        os.write(1, b"x" * 99_999 + b"\n")
        time.sleep(0.005)
    stopping.clear()
    return outcome(job, None, OutcomeState.STOPPED)


# JSON-able names, as hyperparameters are.
SCORES = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "text": "0.9", "nothing": None}


def return_an_odd_score(job, emit):
    return outcome(job, SCORES[job.params["score"]])


def return_nothing(job, emit):
    return None


def return_what_cannot_be_sent(job, emit):
    return threading.Lock()


def train(job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Do what the hyperparameter `fault` names."""
    return globals()[job.params["fault"]](job, emit)


BAD_TRIALS = {0: "leave_the_process", 1: "take_memory", 2: "hang_after_a_step", 3: "raise_an_error"}


def train_by_number(job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Let some trials go wrong, each in its own way, and the others go well."""
    return globals()[BAD_TRIALS.get(job.training, "work_as_bidden")](job, emit)


# ---- trainings that write all that a real one writes -----------------------------------------------------------------

CHECKPOINT_BYTES, MODEL_BYTES = 200_000, 300_000


def train_on_disk(job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Train at once, behind the border that turns exceptions into outcomes."""
    return outcome_of(write_training, job, emit)


def write_training(job: TrainingJob, reporter: Reporter) -> tuple[float, Findings]:
    """Tell beats and epochs, and write checkpoints, and of a winner the model; return score and findings."""
    score = score_of(job.params, job.rung)
    for index in range(max(1, round(job.samples / NUM_IMAGES))):
        reporter.heart.batch(index + 1, 1, 1, 1)
        reporter.epoch(epoch_row(job.first_step + index, score))
        with replacing(checkpoint_path(job)) as temporary:
            temporary.write_bytes(bytes(CHECKPOINT_BYTES))
    if not job.is_final:
        return score, Findings()
    findings = save_model(job)
    with (job.folders.model / "test_logits.npz").open("wb") as file:
        file.write(bytes(MODEL_BYTES))
    return score, findings
