"""What a source and its decoded images show: files, classes, duplicates, leaks, facts. The verdict is in `check`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import ImageCache
from pipeline.data.decoding.chunks import ALL_FORMATS
from pipeline.data.readers.folders import odd_name
from pipeline.data.similarity.clusters import clusters_of
from pipeline.data.source import NOT_GIVEN, SPLITS, Files, Finding, Source, encodable
from pipeline.data.splits.split import TEST, TRAIN, VAL, find_leaks, merge_groups

_NUM_EXTREMES = 8
_BLOCK = 10_000  # images whose moments are held at once
_UNIFORM_SPREAD = 0.01  # standard deviation of the pixels, as a part of the range (float: of the largest value)

_KINDS = ("used", "unsupported", "corrupt", "hidden", "not_regular", "too_large", "missing")
_KIND_OF_CODE = {
    "empty": "corrupt",
    "unreadable": "corrupt",
    "killed": "corrupt",
    "refused": "unsupported",
    "no_label": "unsupported",
    "link_loop": "not_regular",
}
"""Under which kind a code is counted that is no kind itself."""
_ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif"),
    "PNG": ("png", "apng"),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
}


@dataclass(frozen=True)
class Group:
    """Images that belong together: rows of the source, what they are called, their labels and splits ("" for none)."""

    rows: tuple[int, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def has_two_labels(self) -> bool:
        """Whether one of the images is labelled otherwise than another."""
        return len(set(self.labels)) > 1

    def leading(self, marks: Sequence[str], number: int) -> list[tuple[int, str, str]]:
        """Return up to `number` of (row, path, mark): first one image of each mark (a column of this group)."""
        members = list(zip(self.rows, self.paths, marks, strict=True))
        first = {mark: member for member, mark in zip(reversed(members), reversed(marks), strict=True)}
        chosen = set(first.values())
        return [*sorted(chosen), *(member for member in members if member not in chosen)][:number]


class Brightness(TypedDict):
    """The mean of all pixels, and which images are the darkest and the brightest."""

    mean: float | None
    darkest: list[str]
    brightest: list[str]


class ImageFacts(TypedDict):
    """What the usable images are like, as --json prints it: counts by value, and smallest, median and largest.

    `image` are the fields of the ImageSpec that they are decoded to; brightness is on the scale of those pixels.
    """

    sizes: dict[str, dict[str, float]]
    aspect: dict[str, float]
    channels: dict[str, int]
    depths: dict[str, int]
    formats: dict[str, int]
    brightness: Brightness
    splits: dict[str, int]
    image: dict[str, int | str]


@dataclass(frozen=True)
class Survey:
    """What was found. `files` are numbers of files by kind, `total` first; `classes` are usable images by class.

    `is_fixable` tells whether a table can name the images, which are files of their own. `training` are usable images
    by class that are not given to val or test, `num_groups` the same where a cluster or group counts once. `judging`
    are usable images by class of val and test, where they are given. `conflicts` pair "exact" or "near" with images
    under two labels, or two sets of them. `num_uniform` counts images that are nearly one colour.
    """

    origin: str
    is_official: bool
    has_groups: bool
    is_multi_label: bool
    is_fixable: bool
    files: dict[str, int]
    bad: tuple[Finding, ...]
    classes: dict[str, int]
    training: dict[str, int]
    num_groups: dict[str, int]
    judging: dict[str, dict[str, int]]
    exact: tuple[Group, ...]
    near: tuple[Group, ...]
    leaks: tuple[Group, ...]
    conflicts: tuple[tuple[str, Group], ...]
    num_rows: int
    num_uniform: int
    facts: ImageFacts

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON-able document; names are whole, and bytes that are not UTF-8 are escaped."""
        conflicts = [{"paths": shown(g.paths), "labels": shown(g.labels), "kind": kind} for kind, g in self.conflicts]
        return {
            "origin": encodable(self.origin),
            "files": self.files,
            "bad": [
                {"path": encodable(b.path), "code": b.code, "detail": encodable(b.detail), "used": b.used}
                for b in self.bad
            ],
            "classes": {encodable(name): count for name, count in self.classes.items()},
            "exact_duplicates": [shown(group.paths) for group in self.exact],
            "near_duplicates": [shown(group.paths) for group in self.near],
            "leaks": [{"paths": shown(group.paths), "splits": list(group.splits)} for group in self.leaks],
            "label_conflicts": conflicts,
            **self.facts,
        }


def shown(names: Sequence[str]) -> list[str]:
    """Return names as valid UTF-8."""
    return [encodable(name) for name in names]


def survey(source: Source, cache: ImageCache) -> Survey:
    """Return what a source and its decoded images show; nothing is read but what the cache knows."""
    usable = cache.facts["code"] == 0
    exact, near = clusters_of(cache.clusters.exact), clusters_of(cache.clusters.near)
    exact_groups, near_groups = ([_group_of(source, rows) for rows in clusters] for clusters in (exact, near))
    near_only = [group for group in near_groups if not _is_one_picture(cache.clusters.exact[list(group.rows)])]
    conflicts = [("exact", group) for group in exact_groups if group.has_two_labels]
    conflicts += [("near", group) for group in near_only if group.has_two_labels]
    together = np.array(merge_groups(cache.clusters.near, source.groups))
    trains = usable & ((source.splits == NOT_GIVEN) | (source.splits == TRAIN))
    given = {SPLITS[number]: usable & (source.splits == number) for number in (VAL, TEST)}
    bad = (*(b for b in source.left_out if b.code != "hidden"), *cache.bad, *_remarks(source, cache.facts))
    return Survey(
        origin=source.origin,
        is_official=source.is_official,
        has_groups=source.groups is not None,
        is_multi_label=source.is_multi_label,
        is_fixable=isinstance(source.storage, Files),
        files=_count_files(source, cache),
        bad=bad,
        classes=_count_classes(source, usable),
        training=_count_classes(source, trains),
        num_groups=_count_groups(source, trains, together),
        judging={name: _count_classes(source, chosen) for name, chosen in given.items() if chosen.any()},
        exact=tuple(exact_groups),
        near=tuple(near_only),
        leaks=tuple(_group_of(source, rows) for rows in _leaks_of(source, usable, together)),
        conflicts=tuple(conflicts),
        num_rows=len(source),
        num_uniform=_count_uniform(cache, usable),
        facts=_facts_of(source, cache, np.flatnonzero(usable)),
    )


def _group_of(source: Source, rows: Sequence[int]) -> Group:
    """Return what some rows of a source are called, labelled and given to."""
    numbers = [int(row) for row in rows]
    splits = (SPLITS[number] if number != NOT_GIVEN else "" for number in source.splits[numbers])
    labels = tuple(source.label_text(row) for row in numbers)
    return Group(tuple(numbers), tuple(source.paths[row] for row in numbers), labels, tuple(splits))


def _is_one_picture(exact: NDArray[np.int64]) -> bool:
    """Tell whether images of these exact clusters are all copies of one picture."""
    return bool(exact[0] >= 0 and (exact == exact[0]).all())


def _leaks_of(source: Source, usable: NDArray[np.bool_], together: NDArray[np.int64]) -> list[list[int]]:
    """Return the near-duplicates and groups that stand in more than one given split."""
    if (source.splits == NOT_GIVEN).all():
        return []
    return find_leaks(source.splits, np.where(usable, together, -1))


def _count_files(source: Source, cache: ImageCache) -> dict[str, int]:
    """Return the number of files by kind; `total` is their sum."""
    codes = Counter(finding.code for finding in (*source.left_out, *cache.bad) if not finding.used)
    counts = dict.fromkeys(_KINDS, 0) | {"used": int((cache.facts["code"] == 0).sum())}
    for code, number in codes.items():
        counts[_KIND_OF_CODE.get(code, code)] += number
    return {"total": sum(counts.values()), **counts}


def _count_classes(source: Source, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Return the number of chosen images by class; an image of several labels counts for each."""
    labels = source.labels[chosen]
    numbers = labels.sum(axis=0) if source.is_multi_label else np.bincount(labels, minlength=len(source.classes))
    counts = {name: int(number) for name, number in zip(source.classes, numbers, strict=True)}
    return dict(sorted((dict.fromkeys(source.empty_classes, 0) | counts).items()))


def _count_groups(source: Source, chosen: NDArray[np.bool_], together: NDArray[np.int64]) -> dict[str, int]:
    """Return in how many clusters the chosen images of each class are; an image that is in none is its own."""
    clusters, labels = together[chosen], source.labels[chosen]
    images, numbers = np.nonzero(labels) if source.is_multi_label else (slice(None), labels.astype(np.int64))
    clusters = clusters[images]
    is_alone = clusters < 0
    num_clusters = int(clusters.max(initial=-1)) + 1
    pairs = np.unique(numbers[~is_alone] * num_clusters + clusters[~is_alone])
    members = np.concatenate([numbers[is_alone], pairs // max(num_clusters, 1)])
    return dict(zip(source.classes, np.bincount(members, minlength=len(source.classes)).tolist(), strict=True))


def _remarks(source: Source, facts: NDArray[Any]) -> Iterator[Finding]:
    """Yield what the owner of a file should know although it serves: its ending, its frames, its name."""
    for row in range(len(source)):
        path = source.paths[row]
        if odd := odd_name(path):
            yield Finding(path, "odd_name", odd, used=True)
    usable = facts["code"] == 0
    for number, name in enumerate(ALL_FORMATS):
        rows = np.flatnonzero(usable & (facts["format"] == number)) if name in _ENDINGS else ()
        for row in map(int, rows):
            path = source.paths[row]
            ending = path.rpartition(".")[2].lower()
            if ending not in _ENDINGS[name] and ending != path.lower() and _is_file_type(ending):
                yield Finding(path, "wrong_extension", f"holds {name}, is called .{ending}", used=True)
    for row in map(int, np.flatnonzero(usable & (facts["num_frames"] > 1))):
        detail = f"the first of {facts['num_frames'][row]} frames is used"
        yield Finding(source.paths[row], "animated", detail, used=True)


def _is_file_type(ending: str) -> bool:
    """Tell whether what follows the last dot of a name looks like a file type, and not like the end of a date."""
    return 2 <= len(ending) <= 4 and ending[0].isalpha() and ending.isalnum()


def _count_uniform(cache: ImageCache, usable: NDArray[np.bool_]) -> int:
    """Return how many usable images are nearly one colour."""
    rows = np.flatnonzero(usable)
    if not len(rows):
        return 0
    spread, square = np.empty((2, len(rows)), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        mean, squares = cache.moments[rows[part]].transpose(1, 0, 2)
        spread[part] = np.sqrt(np.maximum(squares - mean**2, 0)).max(axis=1)
        square[part] = squares.max(axis=1)
    largest = float(np.sqrt(square.max())) if cache.spec.dtype == "float32" else np.iinfo(cache.spec.dtype).max
    return int((spread <= _UNIFORM_SPREAD * largest).sum())


def _facts_of(source: Source, cache: ImageCache, rows: NDArray[np.int64]) -> ImageFacts:
    """Return what the usable images are like."""
    names = dict(enumerate(SPLITS)) | {NOT_GIVEN: "not_given"}
    heights, widths = cache.facts["height"][rows], cache.facts["width"][rows]
    height, width = _range_of(heights), _range_of(widths)
    return {
        "sizes": {key: {"height": height[key], "width": width[key]} for key in height},
        "aspect": _range_of(widths / np.maximum(heights, 1)),
        "channels": {str(number): count for number, count in counted(cache.facts["bands"][rows]).items()},
        "depths": {str(number): count for number, count in counted(cache.facts["depth"][rows]).items()},
        "formats": {ALL_FORMATS[number]: count for number, count in counted(cache.facts["format"][rows]).items()},
        "brightness": _brightness_of(source, cache, rows),
        "splits": {names[number]: count for number, count in counted(source.splits[rows]).items()},
        "image": asdict(cache.spec),
    }


def counted(column: NDArray[Any]) -> dict[int, int]:
    """Return how often each number occurs, the smallest first."""
    numbers, counts = np.unique(column, return_counts=True)
    return {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}


def _range_of(column: NDArray[Any]) -> dict[str, float]:
    """Return smallest, median and largest number; nothing for an empty column."""
    if not len(column):
        return {}
    numbers = {"min": column.min(), "median": np.median(column), "max": column.max()}
    rounded = {key: round(float(number), 4) for key, number in numbers.items()}
    return {key: int(number) if number.is_integer() else number for key, number in rounded.items()}


def _brightness_of(source: Source, cache: ImageCache, rows: NDArray[np.int64]) -> Brightness:
    """Return the mean of all pixels, and which images are the darkest and the brightest."""
    if not len(rows):
        return {"mean": None, "darkest": [], "brightest": []}
    blocks = (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
    means = np.concatenate([cache.moments[block, 0].mean(axis=1) for block in blocks])
    order = rows[np.argsort(means, kind="stable")]
    dark, bright = order[:_NUM_EXTREMES], order[::-1][:_NUM_EXTREMES]
    return {
        "mean": round(float(means.mean()), 4),
        "darkest": shown([source.paths[row] for row in dark]),
        "brightest": shown([source.paths[row] for row in bright]),
    }
