"""Which images of a checked data set are worth keeping: no bad ones, no copies, none under two labels, no leaks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import ImageCache
from pipeline.data.quality.survey import Survey
from pipeline.data.source import NOT_GIVEN, Source, encodable
from pipeline.data.splits.split import TEST, VAL
from pipeline.errors import DataError


@dataclass(frozen=True)
class Kept:
    """The rows of a source that stay, int64 (num_kept,), and how many were left out for which reason."""

    rows: NDArray[np.int64]
    left_out: dict[str, int]


def clean(source: Source, cache: ImageCache, found: Survey) -> Kept:
    """Return the rows without bad files, exact copies under two labels, all but one of each duplicate, and leaks.

    Of images in several given splits those in test stay, then those in val, so that what judges stays whole.

    Raises:
        DataError: nothing would be left, or of a class nothing to train with.
    """
    is_kept = np.asarray(cache.facts["code"] == 0).copy()
    left_out = {"no usable picture": int((~is_kept).sum())}
    for group in (group for kind, group in found.conflicts if kind == "exact"):
        is_kept[list(group.rows)] = False
    left_out["copies of one picture under two labels"] = int((~is_kept).sum()) - sum(left_out.values())
    for group in (*found.exact, *found.near):
        rows = [row for row in group.rows if is_kept[row]]
        is_kept[[row for row in rows if row != _most_protected(source, rows)]] = False
    left_out["(nearly) the same as an image that is kept"] = int((~is_kept).sum()) - sum(left_out.values())
    for group in found.leaks:
        rows = [row for row in group.rows if is_kept[row]]
        kept_split = _rank(source, _most_protected(source, rows)) if rows else 0
        is_kept[[row for row in rows if _rank(source, row) < kept_split]] = False
    left_out["of a group that also stands in a split that judges"] = int((~is_kept).sum()) - sum(left_out.values())
    if not is_kept.any():
        raise DataError(f"{source.origin}: no image would be left; see what the check found")
    _refuse_untrained(source, is_kept)
    return Kept(np.flatnonzero(is_kept), {reason: number for reason, number in left_out.items() if number})


def _refuse_untrained(source: Source, is_kept: NDArray[np.bool_]) -> None:
    """Raise DataError if only val or test would keep images of a class: no search could read such a table."""
    judges = np.isin(source.splits, (VAL, TEST))
    trained, judged = (_classes_of(source, is_kept & chosen) for chosen in (~judges, judges))
    if untrained := sorted(judged - trained):
        names = ", ".join(encodable(source.classes[number]) for number in untrained[:5])
        raise DataError(
            f"{source.origin}: no training images of {names} would be left, since what also stands in val or test is "
            "left out of train; expected some of each class; give other images to val and test, or leave the split out"
        )


def _classes_of(source: Source, chosen: NDArray[np.bool_]) -> set[int]:
    """Return the numbers of the classes of the chosen images."""
    labels = source.labels[chosen]
    return set(np.flatnonzero(labels.any(axis=0)).tolist() if source.is_multi_label else np.unique(labels).tolist())


def _most_protected(source: Source, rows: list[int]) -> int:
    """Return the first row of the split that judges most: test, then val, then the others; -1 without rows."""
    return max(rows, key=lambda row: _rank(source, row), default=-1)


def _rank(source: Source, row: int) -> int:
    """Return how far the split of a row judges: 2 for test, 1 for val, 0 for train, -1 where none is given."""
    split = int(source.splits[row])
    return -1 if split == NOT_GIVEN else split
