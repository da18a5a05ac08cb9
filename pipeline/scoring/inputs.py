"""Which files are to be scored: files, folders and manifests become an ordered list of byte paths."""

# pathlib takes no bytes, and names are bytes here.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH120, PTH123

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.readers.kinds import TABLES, read_rows
from pipeline.data.readers.rows import MAX_TABLE_BYTES, TABLE_ERRORS, Row
from pipeline.errors import DataError, InvalidUsage
from pipeline.scoring.output import PLAN_FILE
from pipeline.text import is_url, redacted

_PATH_COLUMN = "path"
_PATH_BYTES = 50  # what a path takes in a list beside its own bytes
# What a search leaves in the current folder.
_WORKSPACE_NAMES = (b"mlruns", b"mlflow.db", b"mlflow.db-wal", b"mlflow.db-shm", b"mlflow.db-journal")
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
    own = _own_names(csv_path)
    paths: list[bytes] = []
    num_skipped = 0
    for text in inputs:
        path = os.fsencode(text)
        if not os.path.exists(path):
            raise DataError(
                f"{redacted(text)}: no such file or folder; expected an image, a folder or a manifest; check the path"
            )
        if os.path.isdir(path):
            inside, skipped = walk(path, out, own)
            paths += inside
            num_skipped += skipped
        elif Path(text).suffix.lower() in TABLES:
            paths += _read_manifest(text)
        else:
            paths.append(path)
    if out is not None:
        given = [os.path.join(text, b"") if os.path.isdir(text) else text for text in map(os.fsencode, inputs)]
        _check_outside(out, given + paths)
    return Inventory(paths, num_skipped)


def _own_names(csv_path: Path | None) -> dict[Identity, set[bytes]]:
    """Return the names that this program writes beside a user's files, by the identity of their folder."""
    names = {_identity(b"."): set(_WORKSPACE_NAMES)}
    if csv_path is not None and csv_path.parent.is_dir():
        names.setdefault(_identity(os.fsencode(csv_path.parent)), set()).add(os.fsencode(csv_path.name))
    return names


def _check_outside(out: Path, paths: Sequence[bytes]) -> None:
    """Make sure that no path lies in the output, which --overwrite moves away; links to folders are followed.

    Raises:
        InvalidUsage: one does.
    """
    home = _real_folder(os.fsencode(out))
    is_inside: dict[bytes, bool] = {}
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in is_inside:
            is_inside[folder] = _real_folder(folder).startswith(home)
        if is_inside[folder]:
            raise InvalidUsage(
                f"{os.fsdecode(path)}: lies inside the output {out}; expected inputs outside of it;"
                " choose another folder with -o"
            )


def _real_folder(path: bytes) -> bytes:
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
        visited.add(_identity(os.fsencode(out)))
    paths: list[bytes] = []
    num_skipped = 0
    waiting = [(root, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            paths.append(path)
            continue
        try:
            if (key := _identity(path)) in visited:
                continue
            visited.add(key)
            with os.scandir(path) as entries:
                found = [(entry.name, _safe_is_dir(entry)) for entry in entries]
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


def _identity(path: bytes) -> Identity:
    """Return what names a folder whatever links lead to it."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino)


def _safe_is_dir(entry: os.DirEntry[bytes]) -> bool:
    """Tell whether an entry is a folder or a link to one; a link in a loop is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _read_manifest(text: str) -> list[bytes]:
    """Return the column `path` of a .csv, .parquet or .jsonl file; relative paths start at its folder.

    Raises:
        DataError: the file cannot be parsed, has no rows or no such column, or a cell of it is empty.
    """
    from pipeline.data.source import local_path  # imports NumPy, which a mistyped command need not wait for

    folder = os.path.dirname(os.fsencode(text))
    paths = []
    num_bytes = 0
    try:
        with open(text, "rb") as file:
            rows = read_rows(file, Path(text).suffix.lower(), (_PATH_COLUMN,), with_others=False)
            for number, row in enumerate(rows, start=1):
                path = _path_of(text, number, row)
                path = os.fsencode(local_path(os.fsdecode(path)))
                path = path if is_url(os.fsdecode(path)) else os.path.join(folder, path)
                num_bytes += _PATH_BYTES + len(path)
                if num_bytes > MAX_TABLE_BYTES:
                    limit = f"{MAX_TABLE_BYTES / 2**30:g} GiB"
                    raise DataError(f"{text}: row {number}: the paths take more than {limit}; split the table")
                paths.append(path)
    except TABLE_ERRORS as error:
        raise DataError(
            f"{text}: {str(error)[:200]}; expected a .csv, .parquet or .jsonl table with a"
            f" column {_PATH_COLUMN!r}; correct the file"
        ) from error
    if not paths:
        raise DataError(f"{text}: found no rows; expected one for each image, with a column {_PATH_COLUMN!r}")
    return paths


def _path_of(text: str, number: int, row: Row) -> bytes:
    """Return the path in a row of the manifest `text`.

    Raises:
        DataError: the manifest has no such column, or the cell is empty.
    """
    if _PATH_COLUMN not in row:
        names = ", ".join(row) or "none"
        raise DataError(f"{text}: its columns are {names:.200}; expected one named {_PATH_COLUMN!r}; rename the column")
    value = row[_PATH_COLUMN]
    if not isinstance(value, str | bytes) or not value:
        raise DataError(f"{text}: row {number}: path is {value!r:.80}; expected a path; correct the row")
    return os.fsencode(value)
