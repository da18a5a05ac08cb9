"""A study's beginning: its name, its facts, what must not change when it is resumed, and the objects that run it."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pipeline
from pipeline.bundle import native_chatter_hidden
from pipeline.data.cache import Dataset, Draft
from pipeline.errors import InvalidUsage, SpaceError
from pipeline.files import write_json
from pipeline.machine import num_cores
from pipeline.models.cost import ImpossibleNetwork
from pipeline.search.budget import IMPORT_SECONDS, STARTUP_SECONDS, Budget, plan_budget
from pipeline.search.store import StudyStore, list_studies, studies_folder
from pipeline.search.study import Study, Terms
from pipeline.space import SearchSpace

OBJECTIVE = "val_accuracy"
NUM_TRIED = 300  # random configurations, before a space is said to hold no possible network
FIXED_FACTS = ("fingerprint", "classes", "space", "objective", "seed", "oracle")
"""Facts that make scores comparable: a study whose data, space, objective, seed or oracle changed is another study."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    study: str
    oracle: str
    seed: int
    budget_seconds: float | None
    max_trials: int | None
    num_workers: int


def next_study_name(workspace: Path, dataset: str) -> str:
    """Return DATASET-1, or the first number that is free."""
    taken = set(list_studies(workspace))
    number = 1
    while f"{dataset}-{number}" in taken:
        number += 1
    return f"{dataset}-{number}"


def latest_study_name(workspace: Path, dataset: str) -> str:
    """Return the newest study of a data set.

    Raises:
        InvalidUsage: there is none to resume.
    """
    names = [name for name in list_studies(workspace) if name.rpartition("-")[0] == dataset]
    if not names:
        raise InvalidUsage(
            f"--resume: found no study {dataset}-N in {studies_folder(workspace)}; expected one; name it with --name, "
            "or leave --resume out to begin one"
        )
    return names[-1]


def study_facts(request: Request, dataset: Dataset, space: SearchSpace) -> dict[str, Any]:
    """Return the facts that are written once, when a study begins."""
    return {
        "study": request.study,
        "dataset": dataset.name,
        "source": dataset.origin,
        "fingerprint": dataset.fingerprint,
        "cache": str(dataset.folder),
        "classes": list(dataset.classes),
        "image": asdict(dataset.spec),
        "num_images": dataset.counts,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "space": space.to_json(),
        "param_names": space.names(),
        "oracle": request.oracle,
        "objective": OBJECTIVE,
        "seed": request.seed,
        "versions": {"pipeline": pipeline.__version__},
    }


def create_study(
    store: StudyStore, facts: dict[str, Any], options: dict[str, Any], dataset: Dataset, budget: Budget
) -> None:
    """Write a new study's facts, the options it was called with and the files that no trial could use."""
    store.create({**facts, "options": options, "epochs": budget.epochs, "elapsed": 0.0})
    if dataset.bad:
        write_json(store.path.parent / "bad_files.json", [asdict(item) for item in dataset.bad])


def check_unchanged(store: StudyStore, facts: dict[str, Any], dataset: Dataset) -> None:
    """Point a resumed study to the images of today, if nothing that its scores depend on has changed.

    Raises:
        InvalidUsage: data, space, objective, seed or oracle differ; the message shows how.
    """
    differences = [
        f"{name}: was {shorten(store.get(name))}, is {shorten(facts[name])}"
        for name in FIXED_FACTS
        if store.get(name) != facts[name]
    ]
    if differences:
        raise InvalidUsage(
            f"study {facts['study']} cannot be resumed: {'; '.join(differences)}; expected what it began with; restore "
            "that, or begin another study with --name"
        )
    store.put("cache", str(dataset.folder))


def shorten(value: Any) -> str:
    """Return a value as text of at most 80 characters."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def make_terms(space: SearchSpace, drafted: Draft, request: Request) -> Terms:
    """Return what is fixed for a study; a grid begins where its order does, not with the defaults."""
    return Terms(
        space=space,
        image_shape=drafted.spec.shape,
        num_classes=len(drafted.source.classes),
        num_images=drafted.counts["train"],
        num_final_images=drafted.counts["train"] + drafted.counts["val"],
        seed=request.seed,
        num_threads=max(1, num_cores() // request.num_workers),
        starts_with_default=request.oracle != "grid",
    )


def typical_params(terms: Terms) -> dict[str, Any]:
    """Return the default configuration if it can be built for these images, else one of the space that can.

    Raises:
        SpaceError: none of NUM_TRIED configurations can.
    """
    rng = random.Random(0)
    tried = [terms.space.defaults(), *(terms.space.sample(rng) for _ in range(NUM_TRIED))]
    for params in tried:
        try:
            terms.cost(params)
        except ImpossibleNetwork as error:
            reason = str(error)
        else:
            return params
    height, width, _ = terms.image_shape
    raise SpaceError(
        f"{terms.space.source}: no network of this space fits images of {height} x {width} pixels ({reason}); expected "
        "at least one; allow a smaller depth, or larger images with --image-size"
    )


def make_budget(terms: Terms, request: Request, elapsed: float = 0.0) -> Budget:
    """Return how the budget is divided when `elapsed` seconds of it are gone."""
    params = typical_params(terms)
    epoch_seconds = terms.estimate(params, 1) - terms.estimate(params, 0)
    start = max(STARTUP_SECONDS, elapsed + IMPORT_SECONDS)
    return plan_budget(
        request.budget_seconds, request.max_trials, epoch_seconds, terms.num_images, request.num_workers, start
    )


def make_study(
    store: StudyStore, terms: Terms, budget: Budget, request: Request, elapsed: Callable[[], float]
) -> Study:
    """Return the study with its oracle; importing KerasTuner takes seconds."""
    with native_chatter_hidden():
        from pipeline.search.oracles import Proposer

    return Study(store, Proposer(request.oracle, terms.space, request.seed), terms, budget, elapsed)
