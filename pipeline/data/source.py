"""What labelled images are before anything is decoded: columns, and where each image lies. The readers fill it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from pipeline.text import is_url

SPLITS = ("train", "val", "test")
_FILE_URL = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
_BLOCK = 1000  # rows of labels that are looked at together
NOT_GIVEN = 255
"""The number that stands in a column of splits (indices into SPLITS) where no split was given."""


def local_path(text: str) -> str:
    """Return the path that a file:// URL of this machine stands for (RFC 8089); any other text as it is."""
    found = _FILE_URL.match(text)
    return os.fsdecode(unquote_to_bytes(os.fsencode(text[found.end() :]))) if found else text


class FileLocation(NamedTuple):
    """An image that is a file, or lies at a URL.

    `hosts` are the machines that a URL may reach although their addresses are not public.
    """

    path: str
    hosts: tuple[str, ...] = ()


class MemberLocation(NamedTuple):
    """An image that is `size` bytes at `offset` of a file."""

    path: str
    offset: int
    size: int


class RowLocation(NamedTuple):
    """An image that is a row of a .npy file."""

    path: str
    row: int


Location = FileLocation | MemberLocation | RowLocation
"""Where one image lies."""


class Storage(Protocol):
    """Where the images of a source lie."""

    def location(self, index: int) -> Location:
        """Return where image `index` lies."""


@dataclass(frozen=True)
class Files:
    """Each image is a file below `root`, or has an absolute path or a URL (scheme://...) of its own.

    `hosts` are the machines that URLs may reach although their addresses are not public.
    """

    root: str
    paths: Sequence[str]
    hosts: tuple[str, ...] = ()

    def location(self, index: int) -> Location:
        """Return the file or URL of image `index`."""
        return FileLocation(self.place(self.paths[index]), self.hosts)

    def place(self, path: str) -> str:
        """Return the file or URL that one of `paths` stands for."""
        return local_path(path) if is_url(path) else os.path.join(self.root, path)  # noqa: PTH118


@dataclass(frozen=True)
class Members:
    """Each image is a member of an uncompressed tar: `sizes` bytes at `offsets` of shards[shard_of]."""

    shards: tuple[str, ...]
    shard_of: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def location(self, index: int) -> Location:
        """Return shard, offset and size of image `index`."""
        return MemberLocation(self.shards[self.shard_of[index]], int(self.offsets[index]), int(self.sizes[index]))


@dataclass(frozen=True)
class Rows:
    """Each image is a row of a .npy file (num_images, height, width[, bands]) of uint8, uint16 or float32.

    `lease` keeps its folder from being cleared away: it is held as long as the source is, and not used.
    """

    array_path: str
    lease: object = None

    def location(self, index: int) -> Location:
        """Return the row of image `index`."""
        return RowLocation(self.array_path, index)


@dataclass(frozen=True)
class Finding:
    """Something about one file that its owner should know; `used` tells whether the file serves nevertheless.

    `code` is a key of `decode.ERROR_CODES`, or "hidden", "no_label", "link_loop", or (with `used`) "wrong_extension",
    "animated", "odd_name".
    """

    path: str
    code: str
    detail: str
    used: bool = False


@dataclass(frozen=True)
class Source:
    """Labelled images that are not decoded yet, as columns of one length.

    `paths` is what each image is called, relative to where the source lies; names that are not UTF-8 hold surrogate
    escapes. `labels` is int32 (num_images,), an index into `classes`, or uint8 (num_images, num_classes) of 0 and 1
    when an image has several labels. `splits` is uint8 (num_images,), an index into SPLITS or NOT_GIVEN. `slices` are
    a table's other columns. `left_out` are files that are no labelled image; `empty_classes` are folders without one.
    `is_official` marks a published set, whose split is kept though it may leak.
    """

    name: str
    origin: str
    classes: tuple[str, ...]
    paths: Sequence[str]
    labels: NDArray[np.int32] | NDArray[np.uint8]
    splits: NDArray[np.uint8]
    storage: Storage
    groups: Sequence[str] | None = None
    weights: NDArray[np.float32] | None = None
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: tuple[Finding, ...] = ()
    empty_classes: tuple[str, ...] = ()
    is_official: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    def class_counts(self) -> dict[str, int]:
        """Images by class; an image of several labels counts for each, an empty class counts 0."""
        numbers = (
            self.labels.sum(axis=0) if self.is_multi_label else np.bincount(self.labels, minlength=len(self.classes))
        )
        counts = dict.fromkeys(self.empty_classes, 0)
        return counts | {name: int(number) for name, number in zip(self.classes, numbers, strict=True)}

    def label_text(self, index: int) -> str:
        """Return the label of image `index`; several are joined by |, and none is said in words."""
        if not self.is_multi_label:
            return self.classes[self.labels[index]]
        return "|".join(self.classes[number] for number in np.flatnonzero(self.labels[index])) or "no label"

    def strata(self) -> NDArray[np.int32]:
        """Return int32 (num_images,): the class that an image is stratified by, of several labels the rarest."""
        if not self.is_multi_label:
            return np.asarray(self.labels, np.int32)
        counts, strata = self.labels.sum(axis=0), np.full(len(self), len(self.classes), np.int32)
        for first in range(0, len(self), _BLOCK):  # of all rows at once it is eight times the labels
            labels = self.labels[first : first + _BLOCK]
            rarity = np.where(labels > 0, counts, np.iinfo(np.int64).max)
            strata[first : first + _BLOCK][labels.any(axis=1)] = rarity.argmin(axis=1)[labels.any(axis=1)]
        return strata


def encodable(text: str) -> str:
    """Return a text that is valid UTF-8: bytes of a file name that are not become visible escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
