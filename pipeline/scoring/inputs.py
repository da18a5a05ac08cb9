"""Which files are to be scored: files, folders and manifests become an ordered list of byte paths."""

# pathlib takes no bytes, and names are bytes here.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH120, PTH123

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, InvalidUsage
from pipeline.scoring.output import PLAN_FILE

PATH_COLUMN = "path"
# What a search leaves in the current folder.
WORKSPACE_NAMES = (b"mlruns", b"mlflow.db", b"mlflow.db-wal", b"mlflow.db-shm", b"mlflow.db-journal")
Identity = tuple[int, int]


@dataclass(frozen=True)
class Inventory:
    """The paths to score, as the bytes that the system knows, and how many entries of folders were skipped."""

    paths: list[bytes]
    num_skipped: int


def find_inputs(inputs: Sequence[str], out: Path | None = None, csv_path: Path | None = None) -> Inventory:
    """Return every file that the inputs name, in their order; a folder is read recursively, sorted by name.

    A file that is named twice is there twice. What this program wrote is left out of every folder: the output `out`,
    earlier outputs, the file of --csv, and the MLflow store of the current folder.

    Raises:
        DataError: an input does not exist, or a manifest cannot be read.
        InvalidUsage: an input lies inside `out`.
    """
    own = own_names(csv_path)
    paths: list[bytes] = []
    num_skipped = 0
    for text in inputs:
        path = os.fsencode(text)
        if not os.path.exists(path):
            raise DataError(
                f"{text}: no such file or folder; expected an image, a folder or a manifest; check the path"
            )
        if os.path.isdir(path):
            inside, skipped = walk(path, out, own)
            paths += inside
            num_skipped += skipped
        elif Path(text).suffix.lower() in READERS:
            paths += read_manifest(text)
        else:
            paths.append(path)
    if out is not None:
        given = [os.path.join(text, b"") if os.path.isdir(text) else text for text in map(os.fsencode, inputs)]
        check_outside(out, given + paths)
    return Inventory(paths, num_skipped)


def own_names(csv_path: Path | None) -> dict[Identity, set[bytes]]:
    """Return the names that this program writes beside a user's files, by the identity of their folder."""
    names = {identity(b"."): set(WORKSPACE_NAMES)}
    if csv_path is not None and csv_path.parent.is_dir():
        names.setdefault(identity(os.fsencode(csv_path.parent)), set()).add(os.fsencode(csv_path.name))
    return names


def check_outside(out: Path, paths: Sequence[bytes]) -> None:
    """Make sure that no path lies in the output, which --overwrite moves away; links to folders are followed.

    Raises:
        InvalidUsage: one does.
    """
    home = real_folder(os.fsencode(out))
    is_inside: dict[bytes, bool] = {}
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in is_inside:
            is_inside[folder] = real_folder(folder).startswith(home)
        if is_inside[folder]:
            raise InvalidUsage(
                f"{os.fsdecode(path)}: lies inside the output {out}; expected inputs outside of it;"
                " choose another folder with -o"
            )


def real_folder(path: bytes) -> bytes:
    """Return a folder's path without links and with a slash at its end."""
    try:
        return os.path.join(os.path.realpath(path), b"")
    except ValueError:  # a NUL in the name: it gets a row that says so
        return path


def walk(root: bytes, out: Path | None, own: Mapping[Identity, set[bytes]]) -> tuple[list[bytes], int]:
    """Return all files below `root`, sorted, and the number of entries that were skipped.

    Skipped are hidden names, the names in `own`, and folders that hold the plan of an earlier output.
    Links to folders are followed; each folder is read once, so that a loop of links ends. Pipes, sockets and
    dangling links are among the files, and so is a folder that cannot be read: each gets a row that says why.
    """
    visited = set()
    if out is not None and out.exists():
        visited.add(identity(os.fsencode(out)))
    paths: list[bytes] = []
    num_skipped = 0
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
        names = {name for name, _ in found}
        if os.fsencode(PLAN_FILE) in names:
            num_skipped += 1
            continue
        skipped = own.get(key, set()) & names | {name for name in names if name.startswith(b".")}
        num_skipped += len(skipped)
        waiting += sorted(
            ((os.path.join(path, name), inner) for name, inner in found if name not in skipped), reverse=True
        )
    return paths, num_skipped


def identity(path: bytes) -> Identity:
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
    from pipeline.data.remote import is_url  # imports NumPy, which a mistyped command need not wait for

    folder = os.path.dirname(os.fsencode(text))
    paths = []
    try:
        for number, value in enumerate(READERS[Path(text).suffix.lower()](text), start=1):
            if not isinstance(value, str | bytes) or not value:
                raise DataError(f"{text}: row {number}: path is {value!r:.80}; expected a path; correct the row")
            paths.append(os.fsencode(value) if is_url(os.fsdecode(value)) else os.path.join(folder, os.fsencode(value)))
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
