"""A study's beginning: its name, its facts, what must not change when it is resumed, and the objects that run it."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.bundle import native_chatter_hidden
from pipeline.data.dataset import Dataset, write_dataset
from pipeline.data.source import SPLITS, Source, encodable
from pipeline.data.split import MAX_VAL_IMAGES, TEST_FRACTION, VAL_FRACTION
from pipeline.errors import InvalidUsage, SpaceError
from pipeline.files import write_json
from pipeline.machine import num_cores
from pipeline.models.cost import ImpossibleNetwork
from pipeline.records import ImageSpec
from pipeline.search.budget import IMPORT_SECONDS, STARTUP_SECONDS, Budget, plan_budget
from pipeline.search.store import StudyStore, list_studies, studies_folder
from pipeline.search.study import Study, Terms
from pipeline.space import SearchSpace

OBJECTIVE = "val_accuracy"
NUM_TRIED = 300  # random configurations, before a space is said to hold no possible network
FIXED_FACTS = ("fingerprint", "classes", "folds", "space", "objective", "seed", "oracle")
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
    num_folds: int | None = None


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
    mean, std = dataset.pixel_statistics()
    return {
        "study": request.study,
        "dataset": dataset.source.name,
        "source": dataset.source.origin,
        "fingerprint": dataset.fingerprint(),
        "cache": str(dataset.cache.folder),
        "folds": dataset.num_folds,
        "classes": list(dataset.source.classes),
        "image": asdict(dataset.spec),
        "num_images": dataset.counts,
        "mean": mean,
        "std": std,
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
    """Write a new study's images, facts and options, and the files that no trial could use."""
    folder = store.path.parent
    write_dataset(folder / "data", dataset)
    if bad := dataset.cache.bad:
        write_json(folder / "bad_files.json", [asdict(item) | {"path": encodable(item.path)} for item in bad])
    manifest = str(folder / "data" / "split.parquet")
    store.create({**facts, "split_manifest": manifest, "options": options, "epochs": budget.epochs, "elapsed": 0.0})


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
    write_dataset(store.path.parent / "data", dataset)
    store.put("cache", str(dataset.cache.folder))


def shorten(value: Any) -> str:
    """Return a value as text of at most 80 characters."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def expected_counts(source: Source) -> dict[str, int]:
    """Return how many images each split will have, give or take bad files and groups: nothing is decoded yet."""
    strata = source.strata()
    by_class = [np.bincount(strata[source.splits == number], minlength=1) for number in range(len(SPLITS))]
    train, val, test = (by_class[SPLITS.index(name)] for name in ("train", "val", "test"))
    if not train.any():
        train = np.bincount(strata)
    if not test.any():
        test = np.rint(TEST_FRACTION * train)
        train = train - test
    if not val.any():
        val = np.rint(min(VAL_FRACTION, MAX_VAL_IMAGES / max(train.sum(), 1)) * train)
        train = train - val
    return {"train": int(train.sum()), "val": int(val.sum()), "test": int(test.sum())}


def make_terms(
    space: SearchSpace, spec: ImageSpec, num_classes: int, counts: dict[str, int], request: Request
) -> Terms:
    """Return what is fixed for a study; a grid begins where its order does, not with the defaults.

    With folds, an epoch of a trial is one pass for each fold over the images that do not test in it.
    """
    num_final_images = counts["train"] + counts["val"]
    return Terms(
        space=space,
        image_shape=spec.shape,
        num_classes=num_classes,
        num_images=num_final_images * (request.num_folds - 1) if request.num_folds else counts["train"],
        num_final_images=num_final_images,
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
