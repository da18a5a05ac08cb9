"""The binary version of CIFAR-10 and CIFAR-100, streamed from the archive or a folder into a .npy file."""

import contextlib
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.readers.arrays import byte_blocks, open_array, readable, rows_source, write_array
from pipeline.data.readers.shards import members
from pipeline.data.source import SPLITS, Source
from pipeline.errors import DataError

_BANDS_FIRST = (3, 32, 32)  # an image in a record, after its label bytes
_PIXEL_BYTES = 3 * 32 * 32
_RECORDS_PER_BLOCK = 1000
_COLUMNS = "columns.npy"  # uint8 (num_images, 2): label and index into SPLITS


class Layout(NamedTuple):
    """How a set is packed: files of records in `folder`, in `archive`; the last of `label_bytes` is the fine label."""

    archive: str
    folder: str
    label_bytes: int
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files of records, those of train first."""
        return self.train + self.test

    @property
    def expected(self) -> str:
        """What is expected in a folder, in words."""
        return f"{self.archive} (the binary version), or {', '.join(self.files)} from it"


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        1,
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        ("test_batch.bin",),
    ),
    "cifar100": Layout("cifar-100-binary.tar.gz", "cifar-100-binary", 2, ("train.bin",), ("test.bin",)),
}


class _Stretch(NamedTuple):
    """The records of one split that lie together: `size` bytes at `offset` of an open file called `path`."""

    path: Path
    file: Any
    split: str
    offset: int
    size: int


def find_files(layout: Layout, folder: Path) -> Path | None:
    """Return the archive in `folder`, or the folder that holds what is packed in it."""
    if (folder / layout.archive).is_file():
        return folder / layout.archive
    return next((place for place in (folder, folder / layout.folder) if _holds_records(layout, place)), None)


def _holds_records(layout: Layout, folder: Path) -> bool:
    """Tell whether all files of records are in a folder."""
    return all((folder / name).is_file() for name in layout.files)


def from_cifar(layout: Layout, place: Path, workspace: Path, limit_bytes: int, classes: Sequence[str]) -> Source:
    """Read a CIFAR set from its archive or from a folder with what is packed in it; `classes` are the names by number.

    Raises:
        DataError: a file is missing, damaged, or does not hold whole records of this set.
        StoppedEarly: no room for the array on the disk, or within `limit_bytes` of cache.
    """
    files = [place] if place.is_file() else [place / name for name in layout.files]
    lease = open_array(workspace, files, lambda folder: _unpack(layout, place, folder, limit_bytes))
    columns = np.load(lease.folder / _COLUMNS)
    counts = {split: int((columns[:, 1] == SPLITS.index(split)).sum()) for split in ("train", "test")}
    return rows_source(place, lease, counts, columns[:, 0], classes)


def _unpack(layout: Layout, place: Path, folder: Path, limit_bytes: int) -> None:
    """Write the images, bands last, as one array, and _COLUMNS beside it."""
    columns: list[NDArray[np.uint8]] = []
    record_bytes = layout.label_bytes + _PIXEL_BYTES
    with contextlib.ExitStack() as stack:
        stretches = _list_stretches(stack, layout, place)
        for stretch in stretches:
            if stretch.size == 0 or stretch.size % record_bytes:
                raise DataError(
                    f"{stretch.path}: found {stretch.size} bytes; expected records of {record_bytes} bytes each; fetch "
                    "the file again"
                )
        shape = (sum(stretch.size for stretch in stretches) // record_bytes, 32, 32, 3)
        blocks = (block for stretch in stretches for block in _read_records(layout, stretch, columns))
        write_array(folder, shape, np.uint8, blocks, limit_bytes)
    np.save(folder / _COLUMNS, np.concatenate(columns))


def _list_stretches(stack: contextlib.ExitStack, layout: Layout, place: Path) -> list[_Stretch]:
    """Return where the records of train and then of test lie, in files that `stack` closes."""
    splits = dict.fromkeys(layout.train, "train") | dict.fromkeys(layout.test, "test")
    with readable(place, layout.expected):
        if place.is_dir():
            paths = [place / name for name in splits]
            opened = [stack.enter_context(path.open("rb")) for path in paths]
            return [
                _Stretch(path, file, splits[path.name], 0, path.stat().st_size)
                for path, file in zip(paths, opened, strict=True)
            ]
        archive = stack.enter_context(gzip.open(place))  # noqa: SIM115  closed by the stack
        found = {Path(member.name).name: member for member in members(archive, place) if member.isreg()}
    if lacking := [name for name in splits if name not in found]:
        raise DataError(f"{place}: found no {lacking[0]} in it; expected {layout.expected}; fetch the archive again")
    return [
        _Stretch(place / name, archive, split, found[name].offset_data, found[name].size)
        for name, split in splits.items()
    ]


def _read_records(layout: Layout, stretch: _Stretch, columns: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield images uint8 (num_records, 32, 32, 3) and append their labels and split to `columns`."""
    record_bytes = layout.label_bytes + _PIXEL_BYTES
    split = SPLITS.index(stretch.split)
    with readable(stretch.path, layout.expected):
        stretch.file.seek(stretch.offset)
        for content in byte_blocks(stretch.file, stretch.size, _RECORDS_PER_BLOCK * record_bytes):
            records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
            labels = records[:, layout.label_bytes - 1]
            columns.append(np.stack([labels, np.full_like(labels, split)], axis=1))
            yield records[:, layout.label_bytes :].reshape(-1, *_BANDS_FIRST).transpose(0, 2, 3, 1)
