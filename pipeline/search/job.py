"""The whole search as one straight line: screening, finalists, winner, test, model folder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.bundle import read_bundle, write_bundle
from pipeline.data.dataset import Dataset
from pipeline.errors import StoppedEarly
from pipeline.intervals import wilson_interval
from pipeline.records import COMPLETED, CRASHED, FAILED, INFEASIBLE, PRUNED, TIMEOUT, TrialOutcome, TrialRow
from pipeline.search.engine import LocalEngine
from pipeline.search.store import DIED, DONE, StudyStore, winner
from pipeline.search.study import Study

POLL_SECONDS = 0.5
COUNTED = {
    "completed": COMPLETED, "pruned": PRUNED, "failed": FAILED, "infeasible": INFEASIBLE, "crashed": CRASHED,
    "timeout": TIMEOUT,
}  # fmt: skip

Tell = Callable[[TrialOutcome, TrialRow], None]


@dataclass(frozen=True)
class Finished:
    """What a search ends with: the winning trial, the outcome of its last training and the folder of the model.

    `test` is as in model.json: accuracy, ci95, num_images; and, if the given split leaks, `leaked`.
    """

    winner: TrialRow
    epochs: int
    test: dict[str, Any]
    model_folder: Path


def run_trials(study: Study, engine: LocalEngine, tell: Tell) -> None:
    """Ask, train and tell until the study has nothing left to ask and nothing is running."""
    while True:
        while engine.has_room() and (task := study.ask()):
            engine.submit(task)
        if not engine.running:
            return
        for outcome in engine.wait(POLL_SECONDS):
            study.tell(outcome)
            tell(outcome, next(row for row in study.store.trials() if row.number == outcome.number))


def finish(study: Study, engine: LocalEngine, dataset: Dataset) -> Finished:
    """Train the winner on train + validation, open the test split once, and write the model's folder.

    Raises:
        StoppedEarly: no trial finished, or the winner's last training failed; the message names the reason.
    """
    folder = study.store.path.parent / "model"
    if study.store.has_final_model():  # a process before this one got as far, and was stopped before MLflow had it
        return finished_model(study.store, folder)
    best = winner(study.store.trials())
    if best is None:
        raise StoppedEarly(no_winner(study.store))
    task = study.final_task(best)
    engine.submit(task)
    outcome = wait_for(engine)
    if outcome.state != COMPLETED:
        study.store.end_attempt(outcome, DIED, outcome.state, outcome.reason)
        raise StoppedEarly(
            f"study {study.store.get('study')}: the last training of trial {best.number} ended as {outcome.state}: "
            f"{outcome.reason}; all trials are kept; run the same command with --resume to train it again"
        )
    write_model_facts(folder, study.store, dataset, best, task.epochs, outcome.facts)
    study.store.end_attempt(outcome, DONE, COMPLETED, "")
    return finished_model(study.store, folder)


def wait_for(engine: LocalEngine) -> TrialOutcome:
    """Return the next outcome of an engine that runs one task."""
    while True:
        for outcome in engine.wait(POLL_SECONDS):
            return outcome


def write_model_facts(
    folder: Path, store: StudyStore, dataset: Dataset, best: TrialRow, epochs: int, test: dict[str, Any]
) -> None:
    """Write model.json beside the saved model."""
    facts = {
        "classes": list(dataset.source.classes),
        "image": asdict(dataset.spec),
        "params": best.params,
        "num_params": best.num_params,
        "mflops": best.mflops,
        "epochs": epochs,
        "study": store.get("study"),
        "trial": best.number,
        "data_fingerprint": store.get("fingerprint"),
        "val_accuracy": best.score,
        "test": test_score(test),
        "versions": test["versions"],
    }
    write_bundle(folder, facts)


def test_score(test: dict[str, Any]) -> dict[str, Any]:
    """Return the score on the test images; if some have a copy in train or val, the score is that of the others.

    `leaked` then holds their number and the inflated accuracy over all test images.
    """
    num_correct, num_images = test["num_correct"], test["num_images"]
    num_leaked = num_images - test["num_clean"]
    score = {} if not num_leaked else {"leaked": {"num_images": num_leaked, "accuracy_with": num_correct / num_images}}
    if test["num_clean"]:
        num_correct, num_images = test["num_clean_correct"], test["num_clean"]
    interval = wilson_interval(num_correct, num_images)
    return {"accuracy": num_correct / num_images, "ci95": list(interval), "num_images": num_images, **score}


def finished_model(store: StudyStore, folder: Path) -> Finished:
    """Return what the search ended with, from the model's folder.

    Raises:
        ModelRefused: the folder was damaged since.
    """
    facts = read_bundle(folder).facts
    best = next(row for row in store.trials() if row.number == facts["trial"])
    return Finished(best, facts["epochs"], facts["test"], folder)


def count_states(trials: list[TrialRow]) -> dict[str, int]:
    """Return how many trials ended in each way."""
    counted = Counter(row.state for row in trials)
    return {name: counted[state] for name, state in COUNTED.items()}


def no_winner(store: StudyStore) -> str:
    """Return why there is no winner, with the commonest reason and what to do."""
    rows = store.trials()
    reasons = Counter(row.reason or row.state for row in rows)
    commonest = f"; most often: {reasons.most_common(1)[0][0]}" if reasons else ""
    return (
        f"study {store.get('study')}: none of {len(rows)} trial(s) finished{commonest}; expected at least one; give it "
        "more time (--budget) or a smaller space (--space tiny), and run it again"
    )
