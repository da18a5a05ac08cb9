"""A search whose trainings take no time and need no Keras: the search is under test here, not the training."""

import bisect
import hashlib
import math
import os
import random
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.card import Evaluation, Figure, Leaked, Majority, TestResult
from pipeline.files import write_text
from pipeline.records import EpochRow, Objective, TrialRow
from pipeline.search.checkpoints import checkpoint_path, sweep
from pipeline.search.events import Emit, EpochEnded, TrainingEnded, reporter_of
from pipeline.search.jobs import Findings, TrainingJob, TrialOutcome
from pipeline.search.storage.attempts import stored_number
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.budget import Budget
from pipeline.search.timing.estimates import StudyContext, TimeEstimates
from pipeline.search.worker import validation
from pipeline.search.worker.evaluation import Answers
from pipeline.search.worker.teacher import keep_if_best
from pipeline.search.worker.validation import Predictions
from pipeline.space import SearchSpace, load_space
from pipeline.spec import StudySpec
from pipeline.states import OutcomeState, TrainingKind
from pipeline.workspace import StudyFolder

NUM_IMAGES, NUM_FINAL_IMAGES = 1000, 1250
RUNGS = (1000, 3000, 9000)
TINY = load_space("tiny")  # read once; hundreds of studies have it
FAILING = {4: 0, 9: 0}  # the rung in which a trial of a scripted study fails by design, by its number
EPOCH_SECONDS = "STUB_EPOCH_SECONDS"  # name of the environment variable that says how long an epoch takes in a child
FACTS: dict[str, Any] = {
    "study": "stub-1",
    "dataset": "stub",
    "source": "stub",
    "oracle": "stub",
    "num_images": {"train": 1000, "val": 250, "test": 100},
    "versions": {"pipeline": "0"},
    "seed": 3,
    "objective": "val_accuracy",
    "minimise": None,
    "fingerprint": "0" * 64,
    "classes": ["ant", "bee"],
    "image": {
        "height": 8, "width": 8, "channels": 1, "dtype": "uint8", "background": "#000000", "max_megapixels": 50,
        "max_megabytes": 64, "decoder_version": 2,
    },
    "options": {"budget": None, "trials": 20, "epochs": None},
    "elapsed": 0.0,
}  # fmt: skip


def spec_of(**changes: Any) -> StudySpec:
    """Return what the stub study is, but for some facts."""
    return StudySpec.of({**FACTS, **changes})


@dataclass
class Clock:
    """Seconds that pass only when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Proposed:
    """What the stub oracle proposes."""

    number: int
    rung: int
    params: dict[str, Any]


@dataclass
class StubOracle:
    """Random search with promotions, one in three: a function of its seed and of what it was told, in that order."""

    space: SearchSpace
    seed: int = 3
    num_rungs: int = len(RUNGS)
    limit: int = 10**6  # new configurations that it knows
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    params: dict[int, dict[str, Any]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    running: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting: list[list[tuple[float, int]]] = [[] for _ in range(self.num_rungs)]
        self.values: list[dict[int, float]] = [{} for _ in range(self.num_rungs)]  # of those that wait
        self.num_ended = [0] * self.num_rungs
        self.num_promoted = [0] * self.num_rungs

    def propose(self, next_number, is_acceptable):
        for rung in reversed(range(self.num_rungs - 1)):
            if self.waiting[rung] and self.num_promoted[rung] < self.num_ended[rung] // 3:
                number = self.waiting[rung][0][1]
                proposal = Proposed(number, rung + 1, self.params[number])
                if is_acceptable(proposal):
                    self.count(number, rung + 1, proposal.params)
                    return proposal
        for attempt in range(200 if next_number is not None and len(self.params) < self.limit else 0):
            params = self.space.sample(random.Random(f"{self.seed} {next_number} {attempt}"))
            proposal = Proposed(next_number, 0, params)
            if repr(params) not in self.tried and is_acceptable(proposal):
                self.count(next_number, 0, params)
                return proposal
        return None

    def count(self, number, rung, params):
        """Count a training that begins."""
        assert (number, rung) not in self.running
        self.running.add((number, rung))
        self.params[number] = dict(params)
        self.tried.add(repr(dict(params)))
        if rung > 0:
            self.num_promoted[rung - 1] += 1
            for low in range(rung):  # the end game may jump over rungs
                if number in self.values[low]:
                    entry = (-self.values[low].pop(number), number)
                    del self.waiting[low][bisect.bisect_left(self.waiting[low], entry)]

    def begin(self, number, rung, params):
        self.calls.append(("begin", number, rung))
        self.count(number, rung, params)

    def report(self, number, rung, step, value):
        self.calls.append(("report", number, rung, step, value))

    def tell(self, number, rung, values):
        self.calls.append(("tell", number, rung, values))
        self.running.remove((number, rung))
        self.num_ended[rung] += 1
        if values is not None and rung + 1 < self.num_rungs:
            self.values[rung][number] = values[0]
            bisect.insort(self.waiting[rung], (-values[0], number))


def job_in(folder, attempt=1, training=0, rung=0, samples=100, params=None, *, spec=None, **changes) -> TrainingJob:
    """Return a job whose files lie in the folder of a study."""
    values = {"seed": 0, "seconds_limit": 60.0, **changes}
    folders = StudyFolder(Path(folder)).for_training
    return TrainingJob(spec or spec_of(), folders, attempt, training, rung, samples, params or {}, **values)


class InstantEngine:
    """Trains within this process, in the order of submission, one job each time that it is asked what happened."""

    def __init__(self, train, num_workers: int = 1) -> None:
        self.train = train
        self.num_workers = num_workers
        self.running: list[TrainingJob] = []

    def num_free(self):
        return self.num_workers - len(self.running)

    def submit(self, job):
        self.running.append(job)

    def start(self):
        pass

    check = stop = start

    def call_all(self, function, *arguments):
        return [result_of(function, *arguments)] * self.num_workers

    def poll(self, seconds):
        if not self.running:
            return []
        events = []
        outcome = self.train(self.running[0], events.append)
        self.running.pop(0)
        return [*events, TrainingEnded(outcome)]

    def interrupt(self):
        stopped = [TrialOutcome(job.attempt, job.training, job.rung, OutcomeState.STOPPED) for job in self.running]
        self.running.clear()
        return [TrainingEnded(outcome) for outcome in stopped]


def result_of(function, *arguments) -> Future:
    """Return what a function returns or raises, as a child process gives it."""
    future = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:  # noqa: BLE001
        future.set_exception(error)
    return future


class Silence:
    """An audience that shows nothing."""

    def on_rung_end(self, outcome, row):
        pass

    def refresh(self, running):
        pass


def unlimited(max_trials: int | None = 6, rungs: tuple[int, ...] = RUNGS) -> Budget:
    """Return a budget without a time limit."""
    return Budget(math.inf, max_trials, rungs, math.inf, math.inf)


def make_context(space: SearchSpace | None = None, **changes: Any) -> StudyContext:
    """Return the terms of a study on small grey images; without a portfolio unless one is given."""
    space = space or TINY
    values = {"seed": 3, "typical": space.defaults(), **changes}
    return StudyContext(space, (8, 8, 1), 2, num_images=NUM_IMAGES, num_final_images=NUM_FINAL_IMAGES, **values)


def make_study(
    folder: Path, budget: Budget | None = None, context: StudyContext | None = None, clock: Clock | None = None,
    oracle: StubOracle | None = None, objective: Objective | None = None,
) -> Study:  # fmt: skip
    """Return a new study in a folder, or the one that is there as an earlier process left it."""
    folder.mkdir(parents=True, exist_ok=True)
    objective = objective or Objective()
    context, budget = context or make_context(), budget or unlimited()
    store = StudyStore(folder / "study.db")
    store.check_whole()
    if not store.is_created():
        (folder / "data").mkdir(exist_ok=True)
        space = {"space": context.space.to_json(), "param_names": context.space.names()}
        store.create({**FACTS, **space, "objective": objective.name, "minimise": objective.minimise})
    estimates = TimeEstimates(context, budget, clock or Clock(), probed=1.0)
    study = Study(store, lambda: oracle or StubOracle(context.space, num_rungs=len(budget.rungs)), objective, estimates)
    study.recover()
    sweep(StudyFolder(folder), list(study.waiting))
    return study


def score_of(params: dict[str, Any], rung: int) -> float:
    """Return a made-up accuracy that depends on the configuration and grows with the rung."""
    return round(random.Random(repr(sorted(params.items()))).random() * 0.8 + 0.05 * rung, 6)


def epoch_row(step: int, score: float) -> EpochRow:
    """Return an epoch with this validation accuracy."""
    return EpochRow(step, 1.0, 0.5, 1.0, score, score, score, score, 0.1, 0.1)


def train_at_once(job: TrainingJob, emit: Emit, **changes: Any) -> TrialOutcome:
    """Tell the epochs of a training, and return its outcome."""
    score = score_of(job.params, job.rung)
    for index in range(max(1, round(job.samples / NUM_IMAGES))):
        emit(EpochEnded(job.attempt, epoch_row(job.first_step + index, score)))
    return TrialOutcome(
        job.attempt,
        job.training,
        job.rung,
        **{"state": OutcomeState.COMPLETED, "score": score, "seconds": 1.0, **changes},
    )


def train_into(study: Study, job: TrainingJob, **changes: Any) -> TrialOutcome:
    """Train at once, have the study keep the epochs, and return the outcome."""
    return train_at_once(job, study.observe, **changes)


def run_all(study: Study, seconds: float = 1.0) -> list[TrainingJob]:
    """Ask, train and tell until nothing is left; return the tasks in order. Each takes some seconds of a fake clock."""
    jobs = []
    while job := study.ask():
        jobs.append(job)
        study.store.save()
        if isinstance(study.estimates.elapsed, Clock):
            study.estimates.elapsed.now += seconds
        study.tell(train_into(study, job, seconds=seconds))
    study.complete()
    study.store.save()
    return jobs


def ends(rows: list[TrialRow]) -> list[tuple[Any, ...]]:
    """Return what must not depend on whether a search was killed."""
    return [(row.number, row.params, row.state, row.rung, row.score, row.epochs, row.best_epoch) for row in rows]


def keep_teacher(folder: Path, score: float = 2.0, objective: str = "val_accuracy") -> None:
    """Keep the weights of a trial 99 of the highest rung, unless a better one's are kept."""
    spec = spec_of(objective=objective, options={"distill": True}, rungs=RUNGS)
    keep_if_best(job_in(folder, 1, 99, len(RUNGS) - 1, 100, {"filters": 32}, spec=spec), Network(score), score)


@dataclass
class Network:
    """A model as far as its weights go."""

    value: float

    def get_weights(self):
        return [np.full((2, 2), self.value, np.float32)]


def digests_of(number: int, first: int = 0):
    """Return digests (number, 32) of different images."""
    digests = b"".join(hashlib.sha256(b"%d" % each).digest() for each in range(first, first + number))
    return np.frombuffer(digests, np.uint8).reshape(number, 32)


def answers_of(logits, labels, is_clean=None, slices=None):
    """Return what a model says of test images whose digests are `digests_of`."""
    is_clean = np.ones(len(labels), bool) if is_clean is None else np.asarray(is_clean)
    return Answers(logits, labels, digests_of(len(labels)), is_clean, slices or {}, np.arange(len(labels)))


# ---- what runs in a child process, or in a process of its own --------------------------------------------------------


def warm_up() -> int:
    """Import nothing."""
    return os.getpid()


def train(job: TrainingJob, emit: Emit) -> TrialOutcome:
    """Train as a child does: beats, epochs, a checkpoint after each, from which it goes on; some fail by design."""
    if FAILING.get(job.training) == job.rung:
        return TrialOutcome(
            job.attempt, job.training, job.rung, OutcomeState.FAILED, reason="ValueError: by design", seconds=0.1
        )
    reporter, checkpoint = reporter_of(job.attempt, emit), checkpoint_path(job)
    score = score_of(job.params, job.rung)
    num_epochs = max(1, round(job.samples / (NUM_FINAL_IMAGES if job.is_final else NUM_IMAGES)))
    saved = checkpoint.read_bytes() if checkpoint.exists() else b""
    for index in range(int(saved) if saved.isdigit() else 0, num_epochs):
        reporter.heart.batch(index + 1, num_epochs, 1, 1)
        time.sleep(float(os.environ.get(EPOCH_SECONDS, "0")))
        reporter.epoch(epoch_row(job.first_step + index, score))
        write_text(checkpoint, str(index + 1))
    if job.rung == len(RUNGS) - 1 and not job.is_final:
        keep_logits(job)
    findings = save_model(job) if job.training == TrainingKind.FINAL else Findings()
    return TrialOutcome(
        job.attempt, job.training, job.rung, OutcomeState.COMPLETED, score, seconds=1.0, findings=findings
    )


def keep_logits(job: TrainingJob) -> None:
    """Keep what the network of a trial says of 30 validation images: half of it is right, by chance."""
    logits = np.random.default_rng(abs(stored_number(job.training))).normal(size=(30, 2)).astype(np.float32)
    validation.keep(job, [Predictions(logits, np.arange(30, dtype=np.int32) % 2, None, digests_of(30))])


def save_model(job: TrainingJob) -> Findings:
    """Write the file of a model, which only depends on the winner, and return what its test found."""
    write_text(job.folders.model / "model.keras", repr(sorted(job.params.items())))
    majority = Majority("accuracy", 0.5, 0.4, (0.3, 0.5), 0.01, is_beaten=True, number=0)
    figures = {"loss": Figure(0.5, (0.4, 0.6))}
    test = TestResult(88 / 97, (0.83, 0.95), 97, figures, majority, Leaked(3, 0.9))
    return Findings(evaluation=Evaluation(test), versions={"pipeline": "0"})
