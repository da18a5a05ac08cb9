"""A study's beginning: its name, its facts, what must not change when it is resumed, and the objects that run it."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.bundle import native_chatter_hidden
from pipeline.data.source import SPLITS, Source, encodable
from pipeline.data.splits.dataset import Dataset, has_folds_of, write_dataset
from pipeline.data.splits.split import MAX_VAL_IMAGES, TEST_FRACTION, VAL_FRACTION
from pipeline.errors import InvalidUsage
from pipeline.files import write_json
from pipeline.limits import Limits
from pipeline.records import Objective, Params
from pipeline.search.checkpoints import sweep
from pipeline.search.finalists.baseline import is_trained
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import list_studies
from pipeline.search.study import Study
from pipeline.search.timing.budget import (
    Budget,
)
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.space import SearchSpace
from pipeline.spec import StudySpec
from pipeline.workspace import Workspace

FIXED_FACTS = (
    "fingerprint", "classes", "folds", "space", "objective", "minimise", "limits", "seed", "oracle", "is_deterministic",
    "balance",
)  # fmt: skip
"""Facts that make scores comparable: a study of which one of them changed is another study."""
_BALANCED = 3.0  # up to this ratio of the largest class to the smallest, accuracy says what a model is worth


@dataclass(frozen=True)
class SearchConfig:
    """What the user asked for."""

    study: str
    oracle: str
    seed: int
    objective: Objective
    limits: Limits
    budget_seconds: float | None
    max_trials: int | None
    num_epochs: int | None = None
    num_folds: int | None = None
    is_deterministic: bool = False
    balance: str | None = None  # "logits" or nothing
    distills: bool = False
    ensembles: bool = False


def next_study_name(workspace: Path, dataset: str) -> str:
    """Return DATASET-1, or the first number that is free."""
    taken = set(list_studies(workspace))
    number = 1
    while f"{dataset}-{number}" in taken:
        number += 1
    return f"{dataset}-{number}"


def latest_study_name(workspace: Path, dataset: str | None) -> str:
    """Return the newest study of a data set, or of all.

    Raises:
        InvalidUsage: there is none to resume.
    """
    names = [name for name in list_studies(workspace) if dataset is None or name.rpartition("-")[0] == dataset]
    if not names:
        wanted = "no study" if dataset is None else f"no study {dataset}-N"
        raise InvalidUsage(
            f"--resume: found {wanted} in {Workspace(workspace).studies}; expected one; name it with --name, or leave "
            "--resume out to begin one"
        )
    return names[-1]


def study_spec(config: SearchConfig, dataset: Dataset, space: SearchSpace) -> StudySpec:
    """Return what a new study is, or what one that is resumed must still be."""
    mean, std = dataset.pixel_statistics()
    return StudySpec(
        study=config.study,
        dataset=dataset.source.name,
        source=dataset.source.origin,
        fingerprint=dataset.fingerprint(),
        classes=tuple(dataset.source.classes),
        image=dataset.spec,
        num_images=dataset.counts,
        oracle=config.oracle,
        objective=config.objective.name,
        seed=config.seed,
        versions={"pipeline": pipeline.__version__},
        cache=str(dataset.cache.folder),
        space=space.to_json(),
        param_names=tuple(space.names()),
        mean=tuple(mean),
        std=tuple(std),
        minimise=config.objective.minimise,
        limits=config.limits,
        folds=dataset.num_folds,
        is_multi_label=dataset.source.is_multi_label,
        is_deterministic=config.is_deterministic,
        balance=config.balance,
    )


def create_study(
    store: StudyStore, facts: dict[str, Any], options: dict[str, Any], dataset: Dataset, budget: Budget
) -> None:
    """Write a new study's images, facts and options, and the files that no trial could use."""
    folder = store.folder
    write_dataset(folder.data, dataset)
    if bad := dataset.cache.bad:
        write_json(folder.bad_files, [asdict(item) | {"path": encodable(item.path)} for item in bad])
    beginning = {"options": options, "rungs": budget.rungs, "elapsed": 0.0}
    store.create({**facts, **beginning})


def check_unchanged(store: StudyStore, facts: dict[str, Any], dataset: Dataset) -> None:
    """Point a resumed study to the images of today, if nothing that its scores depend on has changed.

    Raises:
        InvalidUsage: data, space, objective, limits, seed or oracle differ; the message shows how.
    """
    refuse_changes({**store.facts(), "fingerprint": _known_fingerprint(store, dataset)}, facts)
    store.put("fingerprint", facts["fingerprint"])
    write_dataset(store.folder.data, dataset)
    store.put("cache", str(dataset.cache.folder))


def _known_fingerprint(store: StudyStore, dataset: Dataset) -> str:
    """Return the fingerprint of a study; that of earlier versions, which wrote no sha256.npy, gets the folds."""
    found, data = str(store.get("fingerprint")), store.folder.data
    is_early = dataset.folds is not None and not (data / "sha256.npy").exists()
    if is_early and found == dataset.fingerprint(with_folds=False) and has_folds_of(dataset, data):
        return dataset.fingerprint()
    return found


def refuse_changes(old: Params, new: Params) -> None:
    """Raise InvalidUsage if facts that make scores comparable differ; facts that `new` lacks are not compared."""
    if changes := differences(old, new):
        raise InvalidUsage(
            f"study {new['study']} cannot be resumed: {'; '.join(changes.values())}; expected what it began with; "
            "restore that, or begin a linked study that reuses what remains valid: add --fork NEW_NAME"
        )


def differences(old: Params, new: Params) -> dict[str, str]:
    """Return which of the facts that make scores comparable differ, and how, as text; only those in `new`."""
    changed = [name for name in FIXED_FACTS if name in new and old.get(name) != new[name]]
    texts = {
        name: f"{name}: was {_shorten(old.get(name), new[name])}, is {_shorten(new[name], old.get(name))}"
        for name in changed
    }
    if "fingerprint" in changed:
        texts["fingerprint"] = "the images have changed (content, labels, weights, splits or folds)"
    if "space" in changed and (names := _changed_modules(old["space"], new["space"])):
        texts["space"] = f"space: {', '.join(names)} changed, which {new['space']['builder']['path']} imports"
    return texts


def _changed_modules(old: Params, new: Params) -> list[str]:
    """Return the modules beside user code that changed, if nothing else of two spaces did."""
    before, now = (dict(space.get("builder", {}).get("modules", {})) for space in (old, new))
    rest = [{**space, "builder": {**space.get("builder", {}), "modules": None}} for space in (old, new)]
    if rest[0] != rest[1]:
        return []
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def note_version(store: StudyStore) -> str | None:
    """Record the version of the product that works on a study; return the one before if that was another."""
    seen = store.get("versions_seen") or [store.get("versions")["pipeline"]]
    if seen[-1] == pipeline.__version__:
        return None
    store.put("versions_seen", [*seen, pipeline.__version__])
    return str(seen[-1])


def _shorten(value: Any, other: Any) -> str:
    """Return a value as text of at most 80 characters, from a little before where it differs from another one."""
    text, counterpart = str(value), str(other)
    if len(text) <= 80:
        return text
    same = next((i for i, pair in enumerate(zip(text, counterpart, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, min(same - 20, len(text) - 77))
    return f"{'...' if start else ''}{text[start : start + 74]}{'...' if start + 74 < len(text) else ''}"


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


def default_objective(source: Source) -> tuple[str, str]:
    """Return the objective that suits the labels and the balance of the classes, and why, as text."""
    if source.is_multi_label:
        return "val_auc", "images have several labels, and it needs no probability from which on a label counts"
    counts = np.bincount(source.strata(), minlength=1)
    counts = counts[counts > 0]
    ratio = counts.max() / counts.min()
    if ratio > _BALANCED:
        return "val_balanced_accuracy", f"the largest class has {ratio:.1f} times the images of the smallest"
    return "val_accuracy", "the classes are balanced"


def make_study(store: StudyStore, config: SearchConfig, estimates: TimeEstimates) -> Study:
    """Return the study as it was left; its oracle, which takes seconds to import, is made when it is needed."""
    first = tuple(store.get("first") or ())  # the best configurations of the study that this one was forked from
    context = estimates.context = replace(estimates.context, portfolio=(*first, *estimates.context.portfolio))

    def make_oracle() -> Any:
        with native_chatter_hidden():
            from pipeline.search.oracles import Proposer

        def costs(params: Any) -> tuple[float, ...]:
            cost = context.cost(params)
            return (cost.mflops, float(cost.num_params))

        return Proposer(config.oracle, context.space, config.seed, config.objective, len(estimates.budget.rungs), costs)

    study = Study(store, make_oracle, config.objective, estimates)
    study.recover()
    estimates.reserved = 0.0 if is_trained(store) else estimates.budget.baseline_seconds
    is_decided = store.get("distillation") or store.get("ensemble")
    estimates.reserved_for_retraining = 0.0 if is_decided else estimates.budget.retrain_seconds
    sweep(store.folder, list(study.waiting))
    return study
