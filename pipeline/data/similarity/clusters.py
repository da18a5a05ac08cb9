"""Clusters of images that show the same picture: from links between pairs, and back to their members."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clusters:
    """The cluster of each image, int64 (num_images,), -1 if it is alone; clusters are numbered by their first image.

    Images of one `exact` cluster have equal pixels. Each lies within one `near` cluster.
    """

    exact: NDArray[np.int64]
    near: NDArray[np.int64]


def clusters_of(column: NDArray[np.int64]) -> list[list[int]]:
    """Return the members of each cluster, ascending, of a column as in `Clusters`."""
    members = np.flatnonzero(column >= 0)
    order = members[np.argsort(column[members], kind="stable")]
    starts = np.flatnonzero(np.diff(column[order], prepend=-1))
    clusters = [part.tolist() for part in np.split(order, starts[1:])] if len(order) else []
    return sorted(clusters)


def components(first: NDArray[np.int64], second: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return the smallest index that each of `total` images is connected with, int64, by links first[k]-second[k]."""
    root = np.arange(total)
    while True:
        low = np.minimum(root[first], root[second])
        before = root.copy()
        for ends in (first, second):
            np.minimum.at(root, root[ends], low)
            np.minimum.at(root, ends, low)
        root = root[root]
        if np.array_equal(root, before):
            return root


def numbered(roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return roots as cluster numbers, in the order of the first image of each, -1 for images that are alone."""
    sizes = np.bincount(roots, minlength=len(roots))
    numbers = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)
    return numbers[roots]
