"""A decoded source with its splits: what a search trains, chooses and judges with, as arrays that children map."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import ImageCache, Images, open_images
from pipeline.data.similarity.flips import FlipCheck, check_flips
from pipeline.data.source import NOT_GIVEN, SPLITS, Source, encodable
from pipeline.data.splits import manifest
from pipeline.data.splits.split import assign_folds, assign_splits, find_leaks, merge_groups
from pipeline.errors import DataError
from pipeline.files import sha256_json
from pipeline.records import ImageSpec
from pipeline.targets import Labels
from pipeline.workspace import Workspace

_MAX_BAD_FRACTION = 0.5
_MAX_SLICES = 50  # values of a column that is judged by; one of more names images, not kinds of them
TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Dataset:
    """A source whose images are decoded and split.

    `splits` is uint8 (num_images,), an index into SPLITS, NOT_GIVEN for files that no one can use. `folds` is uint8
    (num_images,), the fold that validates an image, NOT_GIVEN outside of train and val; None without folds. `leaked`
    marks the test images that have a copy in train or val. `num_moved` counts images that a new near-duplicate moved
    from the split they had in an earlier search.
    """

    source: Source
    cache: ImageCache
    splits: NDArray[np.uint8]
    folds: NDArray[np.uint8] | None
    leaked: NDArray[np.bool_]
    num_moved: int

    @property
    def spec(self) -> ImageSpec:
        """How the images were decoded."""
        return self.cache.spec

    @property
    def num_folds(self) -> int:
        """In how many folds the images are cut that do not test; 0 without cross-validation."""
        return 0 if self.folds is None else int(self.folds[self.folds != NOT_GIVEN].max()) + 1

    @property
    def counts(self) -> dict[str, int]:
        """Usable images by split."""
        return {name: int((self.splits == number).sum()) for number, name in enumerate(SPLITS)}

    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over the training images, on the scale of the pixels."""
        mean, square = self.cache.moments[self.splits == TRAIN].mean(axis=0)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return [float(f"{value:.6g}") for value in mean], [float(f"{value:.6g}") for value in std]

    def check_flips(self) -> FlipCheck:
        """Return whether the training images keep their classes when flipped horizontally."""
        return check_flips(self.cache.thumbs, self.source.labels, np.flatnonzero(self.splits == TRAIN), 0)

    def fingerprint(self, with_folds: bool = True) -> str:
        """Return one SHA-256 of the content, label, weight, split and fold of every usable image.

        Neither what an image is called nor the order of the images is part of it. Earlier versions left the folds out.
        """
        source, usable = self.source, np.flatnonzero(self.cache.is_usable)
        weights = np.ones(len(source), np.float32) if source.weights is None else source.weights
        labels = source.labels[:, None] if source.labels.ndim == 1 else source.labels
        columns = [self.cache.facts["sha256"], np.ascontiguousarray(labels).view(np.uint8), self.splits[:, None]]
        columns.append(weights[:, None].view(np.uint8))
        if with_folds and self.folds is not None:
            columns.append(self.folds[:, None])
        rows = np.concatenate([column.reshape(len(source), -1)[usable] for column in columns], axis=1)
        ordered = rows.view(f"V{rows.shape[1]}").ravel()
        ordered.sort()
        return sha256_json([manifest.sha256_of(ordered), list(source.classes), asdict(self.spec), self.num_folds])


def split_dataset(
    source: Source, cache: ImageCache, workspace: Path, num_folds: int | None = None, allow_leak: bool = False
) -> Dataset:
    """Decide which images train, which choose and which judge; near-duplicates and groups never straddle a split.

    An image that was in an earlier search of the same data keeps its split.

    Raises:
        DataError: too many bad files, a class that cannot be in every split, or a given split that leaks.
    """
    _check_usable(source, cache)
    clusters = merge_groups(cache.clusters.near, source.groups)
    usable = cache.is_usable
    rows = np.flatnonzero(usable)
    memory = _known_path(source, workspace)
    digests = cache.facts["sha256"]
    known = manifest.read_known(memory, digests[rows]) if memory.exists() else None
    assigned = assign_splits(source, rows, clusters, digests, known)
    splits = np.full(len(source), NOT_GIVEN, np.uint8)
    splits[rows] = assigned.splits
    leaked = _leaked_tests(splits, clusters)
    if (source.splits != NOT_GIVEN).any() and not (allow_leak or source.is_official):
        _refuse_leaks(source, splits, clusters)
    folds = None
    if num_folds is not None:
        is_eligible = usable & np.isin(splits, (TRAIN, VAL))
        folds = assign_folds(source, clusters, digests, num_folds, is_eligible)
    manifest.write_known(memory, digests[rows], splits[rows])
    return Dataset(source, cache, splits, folds, leaked, assigned.num_moved)


def _known_path(source: Source, workspace: Path) -> Path:
    """Return where the splits of a data set are remembered."""
    origin = os.fsencode(os.path.abspath(source.origin)).hex()  # noqa: PTH100
    return Workspace(workspace).splits / f"{sha256_json([source.name, origin])[:16]}.npz"


def _check_usable(source: Source, cache: ImageCache) -> None:
    """Raise DataError unless most files can be used."""
    bad = cache.bad
    if len(bad) > _MAX_BAD_FRACTION * len(source):
        raise DataError(
            f"{source.origin}: {len(bad)} of {len(source)} files are not usable images (the first is "
            f"{encodable(bad[0].path)}: {bad[0].code}, {bad[0].detail}); expected most of them to be; see "
            "`pipeline data check`"
        )


def _leaked_tests(splits: NDArray[np.uint8], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which test images share a cluster with an image of another split, bool (num_images,)."""
    seen = np.unique(clusters[np.isin(splits, (TRAIN, VAL)) & (clusters >= 0)])
    return np.asarray((splits == TEST) & np.isin(clusters, seen))


def _refuse_leaks(source: Source, splits: NDArray[np.uint8], clusters: NDArray[np.int64]) -> None:
    """Raise DataError if a picture, a near-duplicate of it or its group stands in two splits of a given split."""
    leaks = find_leaks(splits, clusters)
    if not leaks:
        return
    first = ", ".join(f"{encodable(source.paths[row])} ({SPLITS[splits[row]]})" for row in leaks[0][:3])
    raise DataError(
        f"{source.origin}: the given split leaks: {len(leaks)} picture(s) or groups stand in two splits (the first: "
        f"{first}); expected none, since a test on pictures that were trained on flatters; see `pipeline data check`, "
        "take them out with its --fix, or search with --allow-leak, which shows the score with and without them"
    )


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write what children read (labels.npy, splits.npy, leaked.npy, sha256.npy and, if there are any, weights.npy and
    folds.npy) and the manifest split.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    source = dataset.source
    # Written first: it shows whether a killed process left the arrays in another order than the decoded images.
    manifest.write_record(folder / "split.parquet", source, dataset.splits, dataset.cache.facts["sha256"])
    arrays: dict[str, NDArray[Any]] = {"labels": source.labels, "splits": dataset.splits, "leaked": dataset.leaked}
    arrays["sha256"] = dataset.cache.facts["sha256"]
    if source.weights is not None:
        arrays["weights"] = source.weights
    if dataset.folds is not None:
        arrays["folds"] = dataset.folds
    slices = {name: _slice_codes(column) for name, column in source.slices.items()}
    slices = {name: found for name, found in slices.items() if 2 <= len(found[0]) <= _MAX_SLICES}
    for number, (_, codes) in enumerate(slices.values()):
        arrays[f"slice{number}"] = codes
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    text = json.dumps({name: values for name, (values, _) in slices.items()})
    (folder / "slices.json").write_text(text, encoding="utf-8")


def has_folds_of(dataset: Dataset, folder: Path) -> bool:
    """Tell whether each usable image is in the fold in which `write_dataset` found it."""
    stored = np.load(folder / "folds.npy")[np.load(folder / "splits.npy") != NOT_GIVEN]
    usable = np.flatnonzero(dataset.cache.is_usable)
    places = manifest.places_of(manifest.read_digests(folder / "split.parquet"), dataset.cache.facts["sha256"][usable])
    return bool((places >= 0).all()) and np.array_equal(stored[places], np.asarray(dataset.folds)[usable])


def _slice_codes(column: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the values of a table's column, sorted, and which of them each image has, int32 (num_images,).

    An empty cell is no value: -1.
    """
    values = sorted(set(column) - {""})
    places = {value: place for place, value in enumerate(values)}
    return values, np.array([places.get(value, -1) for value in column], np.int32)


class View:
    """Some rows of images, in their order: `view[rows]` reads them when they are asked for."""

    def __init__(self, images: Images, rows: NDArray[np.int64]) -> None:
        self.images = images
        self.rows = rows
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> NDArray[Any]:
        """Return the images at a slice, or an array, of places."""
        return np.asarray(self.images[self.rows[places]])


@dataclass(frozen=True)
class Subset:
    """Some images of a data set, with labels as in `targets`, and weights float32 (num_images,) or None."""

    images: View
    labels: Labels
    weights: NDArray[np.float32] | None


@dataclass(frozen=True)
class StoredDataset:
    """What children read: the arrays that `write_dataset` wrote, and the images of a cache folder."""

    folder: Path
    cache_folder: Path
    spec: ImageSpec

    def column(self, name: str) -> NDArray[Any]:
        """Return one array by its name."""
        return np.asarray(np.load(self.folder / f"{name}.npy"))

    @cached_property
    def images(self) -> Images:
        """The pixels of all images; one object, so that one set of children decodes what is streamed."""
        return open_images(self.cache_folder, self.spec)

    def subset(self, rows: NDArray[np.int64]) -> Subset:
        """Return some images."""
        weights = self.column("weights")[rows] if (self.folder / "weights.npy").exists() else None
        return Subset(View(self.images, rows), self.column("labels")[rows], weights)

    def digests(self, view: View) -> NDArray[np.uint8]:
        """Return the SHA-256 of some images, uint8 (num_images, 32): which identify them in any order."""
        return self.column("sha256")[view.rows]

    def names(self, view: View) -> list[str]:
        """Return the names of some images, all of them usable."""
        paths = manifest.read_paths(self.folder / "split.parquet")
        usable = np.flatnonzero(self.column("splits") != NOT_GIVEN)
        return [paths[place] for place in np.searchsorted(usable, view.rows)]

    def slices(self) -> dict[str, tuple[list[str], NDArray[np.int32]]]:
        """Return the values of each further column of the table, and which of them each image has (-1: none)."""
        path = self.folder / "slices.json"
        named = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {name: (values, self.column(f"slice{number}")) for number, (name, values) in enumerate(named.items())}

    def split(self, *names: str) -> Subset:
        """Return the images of some splits."""
        numbers = [SPLITS.index(name) for name in names]
        return self.subset(np.flatnonzero(np.isin(self.column("splits"), numbers)))

    def fold(self, number: int) -> tuple[Subset, Subset]:
        """Return the images that train and those that validate in one fold."""
        folds = self.column("folds")
        is_held_out = folds == number
        return self.subset(np.flatnonzero((folds != NOT_GIVEN) & ~is_held_out)), self.subset(
            np.flatnonzero(is_held_out)
        )
