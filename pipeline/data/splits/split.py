"""Which images train, which choose and which judge: the given split, completed, or one in which no copy straddles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.similarity.clusters import clusters_of, components, numbered
from pipeline.data.source import NOT_GIVEN, SPLITS, Source, encodable
from pipeline.errors import DataError

TEST_FRACTION = 0.2
VAL_FRACTION = 0.15  # of what is not test
# The standard error of an accuracy of 0.9 on 10,000 images is 0.003; more costs time each epoch.
MAX_VAL_IMAGES = 10_000
TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Assigned:
    """Splits uint8 (num_rows,), indices into SPLITS, and how many images are not in the split they had before."""

    splits: NDArray[np.uint8]
    num_moved: int


@dataclass(frozen=True)
class _Table:
    """How many images of each class groups have, int64 (num_entries,) each: entry e is `counts[e]` of `classes[e]` in
    `groups[e]`; those of group g are entries starts[g] to starts[g + 1]."""

    groups: NDArray[np.int64]
    classes: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_classes: int

    def views(self) -> tuple[memoryview, memoryview, memoryview]:
        """Return starts, classes and counts for a walk over the groups: read as fast as lists, without their memory."""
        return self.starts.data, self.classes.data, self.counts.data

    def images(self, is_chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return how many images of each class the chosen groups have."""
        chosen = is_chosen[self.groups]
        return np.bincount(self.classes[chosen], self.counts[chosen], self.num_classes).astype(np.int64)

    def num_groups(self, is_chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return how many of the chosen groups have images of each class."""
        return np.bincount(self.classes[is_chosen[self.groups]], minlength=self.num_classes)


@dataclass(frozen=True)
class _Groups:
    """Images that stay together, in the order in which they are handed out.

    `of_image` is int64 (num_images,), the group of each image. `strata` counts each image once, for the class that it
    is stratified by (one more number than there are classes stands for images without a label); `labels` counts it for
    each of its labels.
    """

    of_image: NDArray[np.int64]
    sizes: NDArray[np.int64]
    strata: _Table
    labels: _Table


def assign_splits(
    source: Source,
    rows: NDArray[np.int64],
    clusters: NDArray[np.int64],
    digests: NDArray[np.uint8],
    known: NDArray[np.uint8] | None = None,
) -> Assigned:
    """Return the splits of some rows of a source: what is given stays, and what is missing is taken from train.

    A missing test split takes TEST_FRACTION of the images of each class, a missing val split VAL_FRACTION of the rest.
    Images of one cluster, int64 (num_images,) as `merge_groups` returns it, stay together. They are handed out in an
    order that follows from their content, `digests` uint8 (num_images, 32), and from nothing else. `known`, uint8
    (num_rows,), is the split that an image had before, NOT_GIVEN for new ones: it stays, and new images of its cluster
    follow it; a cluster that joins images of several known splits goes to train.

    Raises:
        DataError: a class cannot be in every split, or is not in a given one.
    """
    given = source.splits[rows]
    splits = np.where(given == NOT_GIVEN, np.uint8(TRAIN), given)
    _refuse_lacking(source, rows, splits)
    missing = [split for split in (TEST, VAL) if not (splits == split).any()]
    num_moved = 0
    if missing:
        places = np.flatnonzero(splits == TRAIN)
        before = np.full(len(places), NOT_GIVEN, np.uint8) if known is None else known[places]
        before = np.where(np.isin(before, (TRAIN, *missing)), before, np.uint8(NOT_GIVEN))
        groups = _grouped(source, rows[places], clusters, digests)
        handout = _Handout(source, groups, before)
        for split in missing:
            handout.fill(split, later=missing[missing.index(split) + 1 :])
        splits[places] = np.where(handout.splits == NOT_GIVEN, np.uint8(TRAIN), handout.splits)[groups.of_image]
        num_moved = int(((before != NOT_GIVEN) & (before != splits[places])).sum())
    return Assigned(splits, num_moved)


def _refuse_lacking(source: Source, rows: NDArray[np.int64], splits: NDArray[np.uint8]) -> None:
    """Raise DataError if a split that has some of the rows has none of a class; `splits` is uint8 (num_rows,)."""
    labels = source.labels[rows]
    present = labels.any(axis=0) if source.is_multi_label else np.bincount(labels, minlength=len(source.classes)) > 0
    for split in np.unique(splits):
        own = labels[splits == split]
        counts = own.sum(axis=0) if source.is_multi_label else np.bincount(own, minlength=len(source.classes))
        if (lacking := present & (counts == 0)).any():
            names = ", ".join(encodable(source.classes[number]) for number in np.flatnonzero(lacking)[:5])
            raise DataError(
                f"{source.origin}: no usable images of {names} in the given {SPLITS[split]}; expected every class in "
                "each split that is given; add some, or take the class out"
            )


def assign_folds(
    source: Source,
    clusters: NDArray[np.int64],
    digests: NDArray[np.uint8],
    num_folds: int,
    is_eligible: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Return the fold of each image, uint8 (num_images,), NOT_GIVEN where it is not eligible.

    Clusters stay together; the folds have as nearly as possible equal numbers of each class. Arguments are as in
    `assign_splits`.

    Raises:
        DataError: a class cannot be in every fold.
    """
    rows = np.flatnonzero(is_eligible)
    groups = _grouped(source, rows, clusters, digests)
    counts = [[0] * (len(source.classes) + 1) for _ in range(num_folds)]
    sizes = [0] * num_folds
    fold_of_group = np.zeros(len(groups.sizes), np.uint8)
    starts, classes, numbers = groups.strata.views()
    for group in np.argsort(-groups.sizes, kind="stable").data:
        own = range(starts[group], starts[group + 1])
        crowding = [sum(numbers[entry] * count[classes[entry]] for entry in own) for count in counts]
        fold = min(range(num_folds), key=lambda fold: (crowding[fold], sizes[fold]))
        for entry in own:
            counts[fold][classes[entry]] += numbers[entry]
            sizes[fold] += numbers[entry]
        fold_of_group[group] = fold
    folds = np.full(len(source), NOT_GIVEN, np.uint8)
    folds[rows] = fold_of_group[groups.of_image]
    present = groups.labels.num_groups(fold_of_group >= 0) > 0
    for fold in range(num_folds):
        lacking = present & (groups.labels.num_groups(fold_of_group == fold) == 0)
        if lacking.any():
            raise DataError(
                f"{_described(source, groups, int(lacking.argmax()))}, to train and choose with, too few for "
                f"{num_folds} folds; expected at least one in each; add images, or ask for fewer folds"
            )
    return folds


def merge_groups(near: NDArray[np.int64], groups: Sequence[str] | None) -> NDArray[np.int64]:
    """Return clusters, int64 (num_images,), of images that share a near cluster or a group, also by way of others.

    As in `clusters.Clusters`, -1 is alone; an empty group is none.
    """
    if groups is None:
        return near
    rows = np.arange(len(near))
    first_of_group: dict[str, int] = {}
    same_group = np.fromiter(
        (first_of_group.setdefault(group, row) if group else row for row, group in enumerate(groups)),
        np.int64,
        len(near),
    )
    clustered = np.flatnonzero(near >= 0)
    _, first, inverse = np.unique(near[clustered], return_index=True, return_inverse=True)
    links = np.concatenate([same_group, clustered[first][inverse]])
    return numbered(components(links, np.concatenate([rows, clustered]), len(near)))


def find_leaks(splits: NDArray[np.uint8], clusters: NDArray[np.int64]) -> list[list[int]]:
    """Return the members of each cluster that stands in more than one split; images without a split do not count."""
    members = np.flatnonzero((clusters >= 0) & (splits != NOT_GIVEN))
    numbers = clusters[members]
    low, high = (np.full(clusters.max(initial=-1) + 1, start, np.uint8) for start in (NOT_GIVEN, 0))
    np.minimum.at(low, numbers, splits[members])
    np.maximum.at(high, numbers, splits[members])
    leaking = np.full(len(clusters), -1, np.int64)
    leaking[members] = np.where(low[numbers] < high[numbers], numbers, -1)
    return clusters_of(leaking)


class _Handout:
    """The splits of groups, uint8 (num_groups,), while they are handed out; NOT_GIVEN is still to be had."""

    def __init__(self, source: Source, groups: _Groups, before: NDArray[np.uint8]) -> None:
        self.source = source
        self.groups = groups
        self.splits = _settled(groups, before)

    def fill(self, split: int, later: list[int]) -> None:
        """Hand groups to a split while that brings their classes nearer to its share, each class at least one.

        Raises:
            DataError: a class has too few groups for this split, those `later` and train.
        """
        missing = self.missing(split)
        spare = self.spare_groups(later).tolist()
        starts, classes, counts = self.groups.strata.views()
        label_starts, labels, _ = self.groups.labels.views()
        for group in np.flatnonzero(self.splits == NOT_GIVEN).data:
            own = range(starts[group], starts[group + 1])
            gain = 0
            for entry in own:
                gap = missing[classes[entry]]
                gain += abs(gap) - abs(gap - counts[entry])
            own_labels = labels[label_starts[group] : label_starts[group + 1]]
            if gain > 0 and all(spare[label] > 0 for label in own_labels):
                self.splits[group] = split
                for entry in own:
                    missing[classes[entry]] -= counts[entry]
                for label in own_labels:
                    spare[label] -= 1
        self.cover(split, later)

    def missing(self, split: int) -> list[int]:
        """Return how many images of each class a split lacks."""
        strata = self.groups.strata
        rest = strata.images(self.splits != TEST if split == VAL else self.splits >= 0)
        fraction = TEST_FRACTION if split == TEST else min(VAL_FRACTION, MAX_VAL_IMAGES / max(int(rest.sum()), 1))
        wanted = np.maximum(np.rint(fraction * rest).astype(np.int64), 1)
        missing: list[int] = (wanted - strata.images(self.splits == split)).tolist()
        return missing

    def spare_groups(self, later: list[int]) -> NDArray[np.int64]:
        """Return how many groups of each class can be taken so that train and the splits to come keep one each."""
        spare = self.groups.labels.num_groups(self.is_left) - 1
        for split in later:
            spare -= self.groups.labels.num_groups(self.splits == split) == 0
        return spare

    @property
    def is_left(self) -> NDArray[np.bool_]:
        """Which groups train if nothing else happens."""
        return np.asarray((self.splits == NOT_GIVEN) | (self.splits == TRAIN))

    def cover(self, split: int, later: list[int]) -> None:
        """Give a split a group of each class that it has none of: rather a new one than one that trained, and a small
        one."""
        labels = self.groups.labels
        is_present = labels.num_groups(self.splits >= 0) > 0
        while (lacking := is_present & (labels.num_groups(self.splits == split) == 0)).any():
            spare = self.spare_groups(later)
            label = np.flatnonzero(lacking)[np.argmin(spare[lacking])]
            is_free = self.is_left
            is_free[labels.groups[spare[labels.classes] <= 0]] = False
            choices = labels.groups[labels.classes == label]
            choices = choices[is_free[choices]]
            if not len(choices):
                raise self.too_small(label, split, 2 + len(later))
            order = np.lexsort((choices, self.groups.sizes[choices], self.splits[choices] != NOT_GIVEN))
            self.splits[choices[order[0]]] = split

    def too_small(self, label: int, split: int, num_needed: int) -> DataError:
        """Return the error of a class that has too few groups."""
        return DataError(
            f"{_described(self.source, self.groups, label)}, too few to give one to {SPLITS[split]}; expected at least "
            f"{num_needed} of each class; add images, remove the class, or give a split"
        )


def _described(source: Source, groups: _Groups, label: int) -> str:
    """Return how many images and groups a class has, as a sentence begins."""
    everything = np.ones(len(groups.sizes), bool)
    num_images, num_groups = groups.labels.images(everything)[label], groups.labels.num_groups(everything)[label]
    return (
        f"{source.origin}: class {encodable(source.classes[label])} has {num_images} image(s), in {num_groups} "
        "group(s) of copies or of the group column"
    )


def _settled(groups: _Groups, before: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the split of each group whose images had one before, train if they had several, else NOT_GIVEN."""
    low, high = np.full(len(groups.sizes), NOT_GIVEN, np.uint8), np.zeros(len(groups.sizes), np.uint8)
    is_known = before != NOT_GIVEN
    np.minimum.at(low, groups.of_image[is_known], before[is_known])
    np.maximum.at(high, groups.of_image[is_known], before[is_known])
    return np.where((low != NOT_GIVEN) & (low != high), np.uint8(TRAIN), low)


def _grouped(
    source: Source, rows: NDArray[np.int64], clusters: NDArray[np.int64], digests: NDArray[np.uint8]
) -> _Groups:
    """Return the groups of some rows, ordered by a hash of the smallest digest in each.

    The hash is the finalizer of SplitMix64 (Steele, Lea and Flood 2014): the smallest of many digests is a small one,
    so that without it large groups would come first.
    """
    own = clusters[rows]
    _, unit = np.unique(np.where(own < 0, clusters.max(initial=-1) + 1 + rows, own), return_inverse=True)
    sizes = np.bincount(unit)
    keys = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    leading = np.ascontiguousarray(digests[rows, :8]).view(">u8").astype(np.uint64).ravel()
    np.minimum.at(keys, unit, leading)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    order = np.argsort(keys ^ (keys >> np.uint64(31)), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    of_image, num_classes = ranks[unit], len(source.classes)
    strata = _tabled(of_image, source.strata()[rows], len(sizes), num_classes + 1)
    if not source.is_multi_label:
        return _Groups(of_image, sizes[order], strata, strata)
    images, labels = np.nonzero(source.labels[rows])
    return _Groups(of_image, sizes[order], strata, _tabled(of_image[images], labels, len(sizes), num_classes))


def _tabled(groups: NDArray[np.int64], classes: NDArray[np.integer], num_groups: int, num_classes: int) -> _Table:
    """Return a table of the groups and the classes of images."""
    codes, counts = np.unique(groups * num_classes + classes, return_counts=True)
    starts = np.searchsorted(codes, np.arange(num_groups + 1) * num_classes)
    return _Table(codes // num_classes, codes % num_classes, counts, starts, num_classes)
