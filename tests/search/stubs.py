"""A study whose trainings take no time: the loop is under test here, not the training."""

import random
from dataclasses import dataclass, field

from pipeline.records import COMPLETED, EpochRow, TrialOutcome, TrialTask
from pipeline.search.budget import Budget, plan_budget
from pipeline.search.store import StudyStore
from pipeline.search.study import Study, Terms
from pipeline.space import load_space

FACTS = {"study": "stub-1", "dataset": "stub", "seed": 3}


@dataclass
class Clock:
    """Seconds that pass only when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SampledProposals:
    """An oracle that draws from the space and remembers what it was told."""

    seed: int = 0
    told: dict[int, float | None] = field(default_factory=dict)
    replayed: list[int] = field(default_factory=list)
    limit: int = 1000

    def propose(self, number, is_acceptable):
        rng = random.Random(f"{self.seed} {number}")
        if number >= self.limit:
            return None
        return next((p for p in (load_space("tiny").sample(rng) for _ in range(100)) if is_acceptable(p)), None)

    def replay(self, number, params):
        self.replayed.append(number)

    def tell(self, number, score):
        self.told[number] = score


def make_study(folder, budget: Budget | None = None, clock: Clock | None = None, proposals=None) -> Study:
    path = folder / "study.db"
    is_new = not path.exists()
    store = StudyStore(path)
    if is_new:
        store.create(FACTS)
    terms = Terms(load_space("tiny"), (8, 8, 1), 10, num_images=1000, num_final_images=1250, seed=3, num_threads=1)
    budget = budget or plan_budget(None, 6, 1.0, 1000, 1)
    return Study(store, proposals or SampledProposals(), terms, budget, clock or Clock())


def score_of(task: TrialTask) -> float:
    """Return a made-up accuracy that depends on the configuration and grows with the rung."""
    return round(random.Random(str(sorted(task.params.items()))).random() * 0.9 + 0.05 * task.rung, 6)


def train(study: Study, task: TrialTask, seconds: float = 1.0, **changes) -> TrialOutcome:
    """Return what a training would: its epochs in the store and a score."""
    for index in range(task.epochs):
        study.store.add_epoch(task.attempt, EpochRow(task.first_step + index, 1.0, 0.5, 1.0, 0.5, 0.1, 0.1))
    values = {"state": COMPLETED, "score": score_of(task), "seconds": seconds, **changes}
    return TrialOutcome(task.attempt, task.number, task.rung, **values)


def run_all(study: Study, seconds: float = 1.0) -> list[TrialTask]:
    """Ask, train and tell until nothing is left; return the tasks in order."""
    tasks = []
    while task := study.ask():
        tasks.append(task)
        if isinstance(study.elapsed, Clock):
            study.elapsed.now += seconds
        study.tell(train(study, task, seconds))
    return tasks
