"""Which images train, which choose and which judge; copies and groups stay together. No file is touched here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.duplicates import components, numbered
from pipeline.data.source import NOT_GIVEN, SPLITS, Source
from pipeline.errors import DataError

TEST_FRACTION = 0.2
VAL_FRACTION = 0.15  # of what is not test
MAX_VAL_IMAGES = (
    10_000  # the standard error of an accuracy of 0.9 on 10,000 images is 0.003; more costs time each epoch
)
TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Units:
    """Images that stay together: a unit is an image that is alone, or a whole cluster.

    `unit_of` is int64 (num_images,), `sizes` int64 (num_units,). `luck` is float64 (num_units,), uniform in [0, 1),
    from a hash of their content: neither the order of the files nor a seed matters. `order` are the units by it.
    """

    unit_of: NDArray[np.int64]
    order: NDArray[np.int64]
    luck: NDArray[np.float64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class Assigned:
    """The split of each image, uint8 (num_images,), and how many images left the split that they were known in."""

    splits: NDArray[np.uint8]
    num_moved: int


def merge_groups(near: NDArray[np.int64], groups: Sequence[str] | None) -> NDArray[np.int64]:
    """Return clusters, int64 (num_images,), -1 for images that are alone, of copies and of the user's groups together.

    An empty group is none.
    """
    if groups is None:
        return near
    rows = np.arange(len(near))
    _, numbers = np.unique(np.array(groups, object).astype(str), return_inverse=True)
    has_group = np.array([bool(group) for group in groups])
    links = [(near[near >= 0], rows[near >= 0]), (numbers[has_group], rows[has_group])]
    first = np.concatenate([first_member(keys, members) for keys, members in links])
    return numbered(components(first, np.concatenate([members for _, members in links]), len(near)))


def first_member(keys: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each of `rows`, the first row with the same key."""
    _, place, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(rows[place[inverse]])


def make_units(clusters: NDArray[np.int64], digests: NDArray[np.uint8]) -> Units:
    """Return the units of images with these clusters, int64 (num_images,), and SHA-256, uint8 (num_images, 32)."""
    num_images = len(clusters)
    is_alone = clusters < 0
    keys = np.where(is_alone, num_images + np.arange(num_images), clusters)
    _, unit_of = np.unique(keys, return_inverse=True)
    hashes = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
    smallest = np.full(unit_of.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, unit_of, hashes)
    # A minimum of several hashes is small: it is spread over [0, 1) again.
    luck = (smallest * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)).astype(np.float64) / 2**53
    return Units(unit_of, np.argsort(luck, kind="stable"), luck, np.bincount(unit_of))


def assign_splits(
    source: Source,
    rows: NDArray[np.int64],
    clusters: NDArray[np.int64],
    digests: NDArray[np.uint8],
    known: NDArray[np.uint8] | None = None,
) -> Assigned:
    """Return the split of the images `rows` of a source, uint8 (num_rows,): every one is in some split.

    What is given stays. A missing test split takes TEST_FRACTION of each class, a missing validation split
    VAL_FRACTION of the rest of it. `clusters` (num_images,) never straddle what is made here. `known`, uint8
    (num_rows,), is the split of images that were split before, which they keep; the others fill up what is missing.

    Raises:
        DataError: a class has too few images, or too few clusters of them, to be in every split.
    """
    given = source.splits[rows]
    splits = np.where(given == NOT_GIVEN, TRAIN, given).astype(np.uint8)
    units, strata = make_units(clusters[rows], digests[rows]), source.strata()[rows]
    made = [number for number in (TEST, VAL) if not (given == number).any()]
    known = np.full(len(rows), NOT_GIVEN, np.uint8) if known is None or not made else known.copy()
    is_fixed = splits != TRAIN
    known[is_fixed | ~np.isin(known, [TRAIN, *made])] = NOT_GIVEN
    num_moved = settle_known(units, known)
    known[is_fixed] = NOT_GIVEN  # what is given stays, though it leaks
    is_free = (known == NOT_GIVEN) & (splits == TRAIN)
    splits = np.where(known == NOT_GIVEN, splits, known).astype(np.uint8)
    num_pool = int((is_free | (known != NOT_GIVEN)).sum())
    for place, number in enumerate(made):
        fraction = TEST_FRACTION if number == TEST else min(VAL_FRACTION, MAX_VAL_IMAGES / max(num_pool, 1))
        pool = np.flatnonzero(np.isin(splits, [TRAIN, *made[place:]]))
        Carving(source, units, strata, splits, is_free).take(pool, number, fraction, len(made) - place)
        num_pool -= int((splits == number).sum())
    return Assigned(splits, num_moved)


def settle_known(units: Units, known: NDArray[np.uint8]) -> int:
    """Give new images of a known unit its split; a unit of two known splits goes to train. Return how many moved."""
    num_units = len(units.sizes)
    present = np.zeros((num_units, len(SPLITS)), bool)
    is_known = known != NOT_GIVEN
    present[units.unit_of[is_known], known[is_known]] = True
    settled = np.where(present.any(axis=1), present.argmax(axis=1), NOT_GIVEN)
    settled[present.sum(axis=1) > 1] = TRAIN
    before = known.copy()
    known[:] = settled[units.unit_of]
    return int((is_known & (before != known)).sum())


@dataclass(frozen=True)
class Carving:
    """The columns that a split is carved from; `splits` is changed in place."""

    source: Source
    units: Units
    strata: NDArray[np.int32]
    splits: NDArray[np.uint8]
    is_free: NDArray[np.bool_]

    def take(self, pool: NDArray[np.int64], number: int, fraction: float, num_to_come: int) -> None:
        """Move `fraction` of each class of the images `pool`, at least one, to the split `number`.

        Clusters that fit are taken by chance, then single images fill up, then clusters fill what is still missing.
        Each class leaves at least `num_to_come` units for training and the splits that come after.
        """
        num_strata = len(self.source.classes) + 1
        totals = np.bincount(self.strata[pool], minlength=num_strata)
        wanted = np.where(totals, np.maximum(1, np.rint(fraction * totals)), 0).astype(np.int64)
        wanted -= np.bincount(self.strata[self.splits == number], minlength=num_strata)
        free = pool[self.is_free[pool] & (self.splits[pool] == TRAIN)]
        left = self.units_by_class(pool[self.splits[pool] == TRAIN], num_strata)
        self.check(totals, left, wanted, number, num_to_come)
        members = self.members_of_clusters(free)
        self.take_clusters({u: m for u, m in members.items() if self.units.luck[u] < fraction}, wanted, left, number)
        self.take_singles(free, wanted, left, number, num_to_come)
        rest = {unit: rows for unit, rows in members.items() if self.splits[rows[0]] == TRAIN}
        self.take_clusters(rest, wanted, left, number, num_to_come)
        self.check(totals, left, wanted, number, num_to_come, is_end=True)

    def units_by_class(self, rows: NDArray[np.int64], num_strata: int) -> NDArray[np.int64]:
        """Return how many units hold images of each class."""
        pairs = np.unique(self.units.unit_of[rows] * num_strata + self.strata[rows])
        return np.bincount(pairs % num_strata, minlength=num_strata)

    def members_of_clusters(self, rows: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        """Return the rows of each cluster of several images, in the order of its hash."""
        chosen = rows[self.units.sizes[self.units.unit_of[rows]] > 1]
        chosen = chosen[np.lexsort((self.units.unit_of[chosen], self.units.luck[self.units.unit_of[chosen]]))]
        numbers = self.units.unit_of[chosen]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        return {
            int(numbers[part[0]]): chosen[part] for part in np.split(np.arange(len(chosen)), starts[1:]) if len(part)
        }

    def take_clusters(
        self, members: dict[int, NDArray[np.int64]], wanted: NDArray[np.int64], left: NDArray[np.int64], number: int,
        num_to_come: int = 1,
    ) -> None:  # fmt: skip
        """Move clusters, in their order, that are wanted for at least half of their images."""
        for rows in members.values():
            classes, counts = np.unique(self.strata[rows], return_counts=True)
            gain = np.minimum(np.maximum(wanted[classes], 0), counts).sum()
            if 2 * gain >= len(rows) and (left[classes] > num_to_come).all():
                self.splits[rows] = number
                wanted[classes] -= counts
                left[classes] -= 1

    def take_singles(
        self, free: NDArray[np.int64], wanted: NDArray[np.int64], left: NDArray[np.int64], number: int, num_to_come: int
    ) -> None:
        """Move the first single images of each class, in the order of their hashes, as many as are wanted."""
        single = free[self.units.sizes[self.units.unit_of[free]] == 1]
        single = single[np.lexsort((self.units.luck[self.units.unit_of[single]], self.strata[single]))]
        classes, starts, counts = np.unique(self.strata[single], return_index=True, return_counts=True)
        for label, start, count in zip(classes, starts, counts, strict=True):
            taken = max(0, min(wanted[label], count, left[label] - num_to_come))
            self.splits[single[start : start + taken]] = number
            wanted[label] -= taken
            left[label] -= taken

    def check(
        self, totals: NDArray[np.int64], left: NDArray[np.int64], wanted: NDArray[np.int64], number: int,
        num_to_come: int, is_end: bool = False,
    ) -> None:  # fmt: skip
        """Raise DataError if a class cannot be in the split and in those to come (or, at the end, is not in it)."""
        present = np.bincount(self.strata[self.splits == number], minlength=len(totals)) > 0
        named = np.arange(len(totals)) < len(self.source.classes)
        lacking = (totals > 0) & ~present & (named if is_end else named & (left < num_to_come + 1))
        if lacking.any():
            label = int(lacking.argmax())
            raise DataError(
                f"{self.source.origin}: class {self.source.classes[label]} has {totals[label]} image(s), in "
                f"{left[label]} group(s) of copies or of the group column, too few to give one to {SPLITS[number]}; "
                f"expected at least {num_to_come + 1} of each class; add images, remove the class, or give a split"
            )


def assign_folds(
    source: Source,
    clusters: NDArray[np.int64],
    digests: NDArray[np.uint8],
    num_folds: int,
    is_eligible: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Return a fold in [0, num_folds) for each eligible image, NOT_GIVEN for the others, uint8 (num_images,).

    The folds are alike in size and classes, and no cluster straddles two.

    Raises:
        DataError: a class has too few images, or clusters of them, to be in every fold.
    """
    rows = np.flatnonzero(is_eligible)
    units, strata = make_units(clusters[rows], digests[rows]), source.strata()[rows]
    filled = np.zeros((len(source.classes) + 1, num_folds))
    fold_of = np.zeros(len(units.sizes), np.uint8)
    by_unit = rows_by_unit(units)
    for unit in sorted(units.order, key=lambda unit: -units.sizes[unit]):  # large ones first, while there is room
        classes, counts = np.unique(strata[by_unit[unit]], return_counts=True)
        fold = int(np.argmin((filled[classes] + 1e-6 * filled.sum(axis=0)).sum(axis=0)))
        fold_of[unit] = fold
        filled[classes, fold] += counts
    lacking = (filled[:-1] == 0).any(axis=1) & (np.bincount(strata, minlength=len(filled))[:-1] > 0)
    if lacking.any():
        label = int(lacking.argmax())
        raise DataError(
            f"{source.origin}: class {source.classes[label]} has {int(filled[label].sum())} image(s) to train and "
            f"choose with, too few for {num_folds} folds; expected at least one in each; add images, or ask for "
            "fewer folds"
        )
    folds = np.full(len(clusters), NOT_GIVEN, np.uint8)
    folds[rows] = fold_of[units.unit_of]
    return folds


def rows_by_unit(units: Units) -> list[NDArray[np.int64]]:
    """Return the rows of each unit."""
    order = np.argsort(units.unit_of, kind="stable")
    return np.split(order, np.cumsum(units.sizes)[:-1])


def find_leaks(splits: NDArray[np.uint8], clusters: NDArray[np.int64]) -> list[list[int]]:
    """Return the members of each cluster that stands in more than one split, by their first member."""
    rows = np.flatnonzero((clusters >= 0) & (splits != NOT_GIVEN))
    rows = rows[np.argsort(clusters[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(clusters[rows], prepend=-1))
    parts = np.split(rows, starts[1:]) if len(rows) else []
    return sorted(part.tolist() for part in parts if len(np.unique(splits[part])) > 1)
