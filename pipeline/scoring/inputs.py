"""Which files are to be scored: files, folders and manifests become an ordered list of byte paths."""

# pathlib takes no bytes, and names are bytes here.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH120, PTH123

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

PATH_COLUMN = "path"


@dataclass(frozen=True)
class Inventory:
    """The paths to score, as the bytes that the system knows, and how many hidden names were skipped."""

    paths: list[bytes]
    num_hidden: int


def find_inputs(inputs: Sequence[str], skipped_folder: Path | None = None) -> Inventory:
    """Return every file that the inputs name, in their order; a folder is read recursively, sorted by name.

    A file that is named twice is there twice. `skipped_folder` (the output) is left out of every folder.

    Raises:
        DataError: an input does not exist, or a manifest cannot be read.
    """
    paths: list[bytes] = []
    num_hidden = 0
    for text in inputs:
        path = os.fsencode(text)
        if not os.path.exists(path):
            raise DataError(
                f"{text}: no such file or folder; expected an image, a folder or a manifest; check the path"
            )
        if os.path.isdir(path):
            inside, hidden = walk(path, skipped_folder)
            paths += inside
            num_hidden += hidden
        elif Path(text).suffix.lower() in READERS:
            paths += read_manifest(text)
        else:
            paths.append(path)
    return Inventory(paths, num_hidden)


def walk(root: bytes, skipped_folder: Path | None) -> tuple[list[bytes], int]:
    """Return all files below `root`, sorted, and the number of hidden files and folders that were skipped.

    Links to folders are followed; each folder is read once, so that a loop of links ends. Pipes, sockets and
    dangling links are among the files, and so is a folder that cannot be read: each gets a row that says why.
    """
    visited = set()
    if skipped_folder is not None and skipped_folder.exists():
        visited.add(identity(os.fsencode(skipped_folder)))
    paths: list[bytes] = []
    num_hidden = 0
    waiting = [(root, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            paths.append(path)
            continue
        try:
            if (key := identity(path)) in visited:
                continue
            visited.add(key)
            with os.scandir(path) as entries:
                found = [(entry.name, safe_is_dir(entry)) for entry in entries]
        except OSError:
            paths.append(path)
            continue
        visible = [(os.path.join(path, name), inner) for name, inner in found if not name.startswith(b".")]
        num_hidden += len(found) - len(visible)
        waiting += sorted(visible, reverse=True)
    return paths, num_hidden


def identity(path: bytes) -> tuple[int, int]:
    """Return what names a folder whatever links lead to it."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino)


def safe_is_dir(entry: os.DirEntry[bytes]) -> bool:
    """Tell whether an entry is a folder or a link to one; a link in a loop is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_manifest(text: str) -> list[bytes]:
    """Return the column `path` of a .csv, .parquet or .jsonl file; relative paths start at its folder.

    Raises:
        DataError: the file cannot be parsed, has no such column, or a cell of it is empty.
    """
    folder = os.path.dirname(os.fsencode(text))
    paths = []
    try:
        for number, value in enumerate(READERS[Path(text).suffix.lower()](text), start=1):
            if not isinstance(value, str | bytes) or not value:
                raise DataError(f"{text}: row {number}: path is {value!r:.80}; expected a path; correct the row")
            paths.append(os.path.join(folder, os.fsencode(value)))
    except (OSError, ValueError, csv.Error) as error:  # ValueError: json, pyarrow and the codecs
        raise DataError(
            f"{text}: {str(error)[:200]}; expected a .csv, .parquet or .jsonl table with a"
            f" column {PATH_COLUMN!r}; correct the file"
        ) from error
    return paths


def missing_column(text: str, found: Sequence[str]) -> DataError:
    """Return the error of a manifest without the column."""
    names = ", ".join(found) or "none"
    return DataError(f"{text}: its columns are {names}; expected one named {PATH_COLUMN!r}; rename the column")


def read_csv_paths(text: str) -> Iterator[Any]:
    """Yield the cells of a CSV file with a header; names that are not UTF-8 survive."""
    with open(text, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        if PATH_COLUMN not in (rows.fieldnames or ()):
            raise missing_column(text, rows.fieldnames or ())
        for row in rows:
            yield row[PATH_COLUMN]


def read_jsonl_paths(text: str) -> Iterator[Any]:
    """Yield the cells of a file with one JSON object a line."""
    with open(text, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict) or PATH_COLUMN not in row:
                raise missing_column(text, list(row) if isinstance(row, dict) else ())
            yield row[PATH_COLUMN]


def read_parquet_paths(text: str) -> Iterator[Any]:
    """Yield the cells of a Parquet file, batch by batch."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(text) as file:
        if PATH_COLUMN not in file.schema_arrow.names:
            raise missing_column(text, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[PATH_COLUMN]):
            yield from batch.column(0).to_pylist()


READERS: dict[str, Callable[[str], Iterator[Any]]] = {
    ".csv": read_csv_paths,
    ".jsonl": read_jsonl_paths,
    ".parquet": read_parquet_paths,
}
