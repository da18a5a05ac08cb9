"""A source and its decoded images made by hand, row by row, for tests of what is made of them."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.cache.folder import CacheLease
from pipeline.data.cache.images import ImageCache
from pipeline.data.decoding.chunks import ALL_FORMATS, CODES, FACTS
from pipeline.data.similarity.clusters import Clusters
from pipeline.data.source import NOT_GIVEN, SPLITS, Files, Finding, Source
from pipeline.records import ImageSpec


@dataclass(frozen=True)
class Row:
    """One labelled file: `code` why it does not serve, `exact` and `near` the clusters that it is in."""

    path: str
    label: str
    split: str = ""
    code: str = ""
    exact: int = -1
    near: int = -1
    format: str = "PNG"
    num_frames: int = 1
    brightness: float = 100.0
    spread: float = 20.0


def many(label: str, count: int, split: str = "") -> list[Row]:
    """Return rows of one class that nothing is wrong with."""
    return [Row(f"{split or 'all'}/{label}/{index}.png", label, split) for index in range(count)]


def make_source(rows: list[Row], **changes: Any) -> Source:
    """Return the source of some rows."""
    classes = tuple(sorted({row.label for row in rows}))
    paths = [row.path for row in rows]
    labels = np.array([classes.index(row.label) for row in rows], np.int32)
    splits = np.array([SPLITS.index(row.split) if row.split else NOT_GIVEN for row in rows], np.uint8)
    return replace(Source("photos", "photos", classes, paths, labels, splits, Files("photos", paths)), **changes)


def make_cache(folder: Path, rows: list[Row], spec: ImageSpec | None = None) -> ImageCache:
    """Return the decoded images of some rows: noise, written to `folder`."""
    spec = spec or ImageSpec(8, 10, 1)
    facts, moments = np.zeros(len(rows), FACTS), np.zeros((len(rows), 2, spec.channels))
    for number, row in enumerate(rows):
        facts[number]["code"] = 1 + CODES.index(row.code) if row.code else 0
        facts[number]["format"] = ALL_FORMATS.index(row.format)
        for name, value in (("height", 20), ("width", 30), ("bands", spec.channels), ("depth", 8)):
            facts[number][name] = value
        facts[number]["num_frames"] = row.num_frames
        moments[number, 0], moments[number, 1] = row.brightness, row.brightness**2 + row.spread**2
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (len(rows), *spec.shape), np.uint8).astype(spec.dtype))
    clusters = Clusters(np.array([row.exact for row in rows]), np.array([row.near for row in rows]))
    bad = tuple(Finding(row.path, row.code, f"it is {row.code}") for row in rows if row.code)
    return ImageCache(folder, spec, facts, moments, clusters, bad, False, CacheLease(folder, io.BytesIO()))
