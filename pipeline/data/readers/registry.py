"""DATA of the command line (a name, a folder, a file, a URL) becomes labelled images; the readers live elsewhere."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.readers import builtin, folders, idx, npz, remote, shards, tables
from pipeline.data.readers.kinds import TABLES
from pipeline.data.source import NOT_GIVEN, SPLITS, Source, encodable, local_path
from pipeline.errors import DataError, InvalidUsage
from pipeline.text import is_url, redacted


def open_source(
    data: str,
    workspace: Path,
    source_folder: str | None = None,
    limit_bytes: int = LIMIT_BYTES,
    hosts: Sequence[str] = (),
) -> Source:
    """Return the labelled images that `data` names: a built-in set, a URL, a folder or a file.

    `source_folder` is where the files of a built-in set lie (`--source`); `limit_bytes` bounds the cache, which arrays
    are unpacked into. A path wins only if it is written as one (`./digits`); a bare built-in name is the built-in set.
    `hosts` are machines that the URLs of a table may reach although their addresses are not public (`--allow-host`).

    Raises:
        DataError: nothing is there, or it does not hold labelled images; the message shows the layouts that do.
        InvalidUsage: a `source_folder` for what is no built-in set.
    """
    if source_folder and data not in builtin.NAMES:
        raise InvalidUsage(
            f"--source {source_folder}: {encodable(redacted(data))} is not a built-in set; expected one of "
            f"{', '.join(builtin.NAMES)}; leave --source out"
        )
    if data in builtin.NAMES:
        return checked(builtin.open_builtin(data, workspace, source_folder, limit_bytes))
    data = local_path(data)
    if is_url(data):
        return checked(remote.from_url(data, source_name(data), hosts))
    is_folder = os.path.isdir(data)  # noqa: PTH112  (Path.is_dir raises where this says no)
    if not is_folder and not os.path.isfile(data):  # noqa: PTH113
        raise _wrong_layout(data, "no such file or folder")
    reader = _reader_of(Path(data), is_folder)
    if reader is None:
        raise _wrong_layout(str(Path(data)), "this is another kind of file")
    return checked(reader.read(_Place(Path(data), workspace, limit_bytes, hosts)))


def names_no_files(data: str) -> bool:
    """Tell whether the images of DATA are known not to be separate files, without opening it."""
    path = Path(local_path(data))
    if data in builtin.NAMES:
        return data != "digits"
    reader = _reader_of(path, is_folder=os.path.isdir(path))  # noqa: PTH112  (see open_source)
    return reader is not None and not reader.reads_files


class _Place(NamedTuple):
    """A folder or file that lies on this machine, and what readers are given beside it, as in `open_source`."""

    path: Path
    workspace: Path
    limit_bytes: int
    hosts: Sequence[str]

    @property
    def name(self) -> str:
        """What the data set is called."""
        return source_name(str(self.path))


class _Reader(NamedTuple):
    """What reads a layout: how the layout is recognised, and whether each image in it is a file of its own."""

    reads_folder: bool
    recognises: Callable[[Path], bool]
    read: Callable[[_Place], Source]
    reads_files: bool = False


_READERS = (
    _Reader(True, idx.has_idx, lambda at: idx.from_idx_folder(at.path, at.workspace, at.limit_bytes)),
    _Reader(True, shards.is_shard_folder, lambda at: shards.from_shards(at.path)),
    _Reader(
        True, lambda path: True, lambda at: folders.from_folder(at.path, at.name, encodable(str(at.path))),
        reads_files=True,
    ),
    _Reader(
        False, lambda path: path.suffix.lower() in TABLES,
        lambda at: remote.guarded(tables.from_table(at.path, at.name), at.hosts), reads_files=True,
    ),
    _Reader(
        False, lambda path: path.suffix.lower() == ".npz",
        lambda at: npz.from_npz(at.path, at.workspace, at.limit_bytes),
    ),
    _Reader(False, shards.is_shard, lambda at: shards.from_shards(at.path)),
)  # fmt: skip
"""The layouts of folders and files; the first that recognises one reads it."""


def _reader_of(path: Path, is_folder: bool) -> _Reader | None:
    """Return what reads a folder or file, None for a file of another kind."""
    readers = (reader for reader in _READERS if reader.reads_folder == is_folder)
    return next((reader for reader in readers if reader.recognises(path)), None)


def _wrong_layout(data: str, found: str) -> DataError:
    """Return the error that shows what DATA may be."""
    return DataError(
        f"{encodable(data)}: {found}; DATA may be a built-in set ({', '.join(builtin.NAMES)}), a folder with a "
        "sub-folder per class, a folder with train/ [val/] test/ of such folders, a folder of .tar shards or idx "
        f"files, a {'/'.join(TABLES)} table with {tables.EXPECTED}, an .npz or .tar file, or a URL (s3://, gs://, "
        "https://) of a table or folder"
    )


def source_name(data: str) -> str:
    """Return the name of the data set that `data` names, without opening it."""
    if data in builtin.NAMES:
        return data
    data = local_path(data)
    # A link keeps its name: abspath follows none.
    path = Path(redacted(data) if is_url(data) else os.path.abspath(data))  # noqa: PTH100
    is_file = path.suffix.lower() in (*TABLES, ".npz", ".tar") and not os.path.isdir(data)  # noqa: PTH112
    return encodable(path.stem if is_file else path.name)


def checked(source: Source) -> Source:
    """Return the source if its labels and splits can be learned from.

    Raises:
        DataError: fewer than two classes, or a class without training images although splits are given.
    """
    if len(source.classes) < 2:
        raise DataError(
            f"{source.origin}: found {len(source.classes)} class ({', '.join(source.classes)}); expected at least 2, "
            "as sub-folders or as labels in the table"
        )
    if (source.splits == NOT_GIVEN).all():
        return source
    labels = source.labels[source.splits == SPLITS.index("train")]
    counts = labels.sum(axis=0) if source.is_multi_label else np.bincount(labels, minlength=len(source.classes))
    untrained = [name for name, count in zip(source.classes, counts, strict=True) if not count]
    if untrained:
        raise DataError(
            f"{source.origin}: no training images of {', '.join(untrained[:5])}; expected every class in train; "
            "add images or remove the class from the other splits"
        )
    return source
