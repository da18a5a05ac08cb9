"""The page of `pipeline data check`: what was found, with thumbnails; the finding and judging is in `pipeline.data`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cache.images import ImageCache
from pipeline.data.quality.check import MEANING, Check, two_labels
from pipeline.data.quality.survey import Group
from pipeline.data.source import Source
from pipeline.reports.page import data_uri, render
from pipeline.text import one_line

_CLASS_IMAGES = 12
_MAX_GRIDS = 40
_MAX_BARS = 200
_MAX_GROUPS = 50
_GROUP_IMAGES = 6
_MAX_FILES = 500
_MAX_SIDE = 96  # pixels of a thumbnail
_PAGE_BYTES = 4_000_000  # of thumbnails, even if they do not compress; browsers stay quick, mail takes it
_BLOCK = 128


class Tile(NamedTuple):
    """One image of the page: its row in the source, what it is called, and its split or label, if that is shown."""

    row: int
    path: str
    mark: str


@dataclass(frozen=True)
class Sheet:
    """Images that are shown together, of which `num_more` are not shown."""

    title: str
    tiles: list[Tile]
    num_more: int


def check_page(check: Check, source: Source, cache: ImageCache) -> str:
    """Return an HTML page of less than 5 MB that shows a check, with pictures of classes and of suspicious images."""
    found = check.found
    grids = _class_sheets(source, cache)
    sections = [
        ("leaks", "In more than one split", found.leaks, sheets(found.leaks, "splits")),
        ("conflicts", f"The same under {two_labels(found)}", found.conflicts, _conflict_sheets(found.conflicts)),
        ("exact", "Exact duplicates", found.exact, sheets(found.exact, "splits")),
        ("near", "Near duplicates", found.near, sheets(found.near, "splits")),
    ]
    shown = [sheet for _, _, _, of_section in sections for sheet in of_section]
    most = max(found.classes.values(), default=0)
    return render(
        "check.html",
        check=check,
        meaning=MEANING[check.verdict],
        found=found,
        facts=_facts_table(check),
        bars=[(name, count, 100 * count / max(most, 1)) for name, count in list(found.classes.items())[:_MAX_BARS]],
        num_more_bars=max(0, len(found.classes) - _MAX_BARS),
        grids=grids,
        class_images=_CLASS_IMAGES,
        num_more_grids=sum(count > 0 for count in found.classes.values()) - len(grids),
        sections=sections,
        pictures=_thumbnails(cache, [tile.row for sheet in (*grids, *shown) for tile in sheet.tiles]),
        files=found.bad[:_MAX_FILES],
        num_more_files=max(0, len(found.bad) - _MAX_FILES),
    )


def _class_sheets(source: Source, cache: ImageCache) -> list[Sheet]:
    """Return up to _CLASS_IMAGES usable images of each of the first classes, spread over the class."""
    found: list[Sheet] = []
    usable = cache.facts["code"] == 0
    for number, name in enumerate(source.classes):
        is_member = source.labels[:, number] > 0 if source.is_multi_label else source.labels == number
        members = np.flatnonzero(usable & is_member)
        if len(members) and len(found) < _MAX_GRIDS:
            places = np.linspace(0, len(members) - 1, min(_CLASS_IMAGES, len(members))).round().astype(int)
            found.append(Sheet(name, [Tile(int(row), source.paths[row], "") for row in members[places]], 0))
    return found


def sheets(groups: Sequence[Group], marks: str, title: str = "") -> list[Sheet]:
    """Return the first images of the first groups, each marked with its split or its label."""
    found = []
    for group in groups[:_MAX_GROUPS]:
        tiles = [Tile(*member) for member in group.leading(getattr(group, marks), _GROUP_IMAGES)]
        found.append(Sheet(title, tiles, len(group.rows) - len(tiles)))
    return found


def _conflict_sheets(conflicts: Sequence[tuple[str, Group]]) -> list[Sheet]:
    """Return the first images of the first conflicts, each marked with its label."""
    titles = {"exact": "exact copies", "near": "near-duplicates"}
    return [sheet for kind, group in conflicts[:_MAX_GROUPS] for sheet in sheets([group], "labels", titles[kind])]


def _thumbnails(cache: ImageCache, rows: Sequence[int]) -> dict[int, str]:
    """Return pictures by row, as small as _PAGE_BYTES asks for so many places on the page."""
    channels = 3 if cache.spec.channels >= 3 else 1
    side = int((_PAGE_BYTES * 3 / 4 / channels / max(len(rows), 1)) ** 0.5)
    images, wanted = cache.images(), np.unique(np.array(rows, np.int64))
    pictures: dict[int, str] = {}
    for start in range(0, len(wanted), _BLOCK):
        block = wanted[start : start + _BLOCK]
        stack: NDArray[Any] = np.asarray(images[block])
        pictures |= {int(row): data_uri(pixels, min(side, _MAX_SIDE)) for row, pixels in zip(block, stack, strict=True)}
    return pictures


def _facts_table(check: Check) -> list[tuple[str, str]]:
    """Return names and values of what the images are like, for reading."""
    facts = check.found.facts
    sizes, spec = facts["sizes"], facts["image"]
    table = [(f"{key} size", f"{size['height']} x {size['width']}") for key, size in sizes.items()]
    table += [(key, _counts_text(facts[key])) for key in ("channels", "depths", "formats", "splits")]
    if facts["aspect"]:
        table.append(("aspect (width / height)", " / ".join(str(number) for number in facts["aspect"].values())))
    bright = facts["brightness"]
    table += [
        ("mean brightness", str(bright["mean"])),
        ("darkest", ", ".join(map(one_line, bright["darkest"]))),
        ("brightest", ", ".join(map(one_line, bright["brightest"]))),
        ("a search decodes to", f"{spec['height']} x {spec['width']} x {spec['channels']}, {spec['dtype']}"),
    ]
    return [(name, text) for name, text in table if text]


def _counts_text(counts: dict[str, int]) -> str:
    """Return counts for reading."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
