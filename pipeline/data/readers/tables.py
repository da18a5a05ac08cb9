"""A table with a row per image (.csv, .parquet, .jsonl) becomes labelled images; it is read row by row, never whole."""

import math
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding.urls import public_name
from pipeline.data.readers.folders import SPLIT_NAMES, class_name
from pipeline.data.readers.kinds import read_rows
from pipeline.data.readers.paths import Paths
from pipeline.data.readers.rows import MAX_COLUMNS, MAX_TABLE_BYTES, TABLE_ERRORS, Row
from pipeline.data.source import NOT_GIVEN, SPLITS, Files, Source, encodable
from pipeline.errors import DataError
from pipeline.text import redacted

COLUMNS = ("path", "label", "split", "group", "weight")
EXPECTED = "the columns path,label[,split,group,weight]"
_ROW_CELLS = 4  # what a row takes beside its path and slices, in cells
_CELL_BYTES = 8
_CHECKED_ROWS = 16  # after which their size is added up; each has at most MAX_ROW characters
_TEXT_BYTES = 150  # what a text takes in a dict beside its characters
_MAX_WEIGHT = float(np.finfo(np.float32).max)


class _Columns:
    """The columns of a table while its rows come in."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.paths = Paths()
        self.classes: dict[str, int] = {}
        self.labels = array("i")  # of all rows, one after the other
        self.num_labels = array("i")
        self.is_multi_label = False
        self.splits = array("B")
        self.groups: list[str] = []
        self.weights = array("d")
        self.slices: dict[str, list[str]] = {}
        self.shared: dict[str, str] = {}
        self.text_bytes = 0  # of classes and shared texts

    def add(self, row: Row) -> None:
        """Take one row.

        Raises:
            DataError: a cell that cannot be used; the message names the row.
        """
        missing = [key for key in ("path", "label") if _is_empty(row.get(key))]
        if missing:
            found = str(sorted(str(key) for key, value in row.items() if not _is_empty(value)))
            raise self.error(f"found {found[:200]} with no {' and no '.join(missing)}", EXPECTED)
        values = row["label"] if isinstance(row["label"], list) else [row["label"]]
        if any(_is_empty(value) or isinstance(value, list | dict | tuple) for value in values):
            raise self.error(f"label is {row['label']!r:.80}", "a text, or a list of texts")
        names = {class_name(_text_of(value)) for value in values}
        split, weight = self.split(row.get("split")), self.weight(row.get("weight"))
        path = self.path(row["path"])
        self.add_slices(row)
        self.labels.extend(self.number(name) for name in sorted(names))
        self.num_labels.append(len(names))
        self.is_multi_label |= isinstance(row["label"], list)
        self.splits.append(split)
        self.weights.append(weight)
        self.groups.append(self.share(row.get("group")))
        self.paths.append(path)
        if len(self.splits) % _CHECKED_ROWS == 0:
            self.refuse_size()

    def refuse_size(self) -> None:
        """Raise DataError if the rows take too much memory."""
        if self.num_bytes() > MAX_TABLE_BYTES:
            raise self.error(
                f"the rows take more than {MAX_TABLE_BYTES / 2**30:g} GiB of memory", "less; split the table"
            )

    def num_bytes(self) -> int:
        """Return about how much memory the table takes."""
        cells = len(self.slices) + _ROW_CELLS + (len(self.classes) // _CELL_BYTES if self.is_multi_label else 0)
        return len(self.paths.content) + self.text_bytes + _CELL_BYTES * (len(self.paths) * cells + len(self.labels))

    def number(self, name: str) -> int:
        """Return the number of a class, the next one for a new name."""
        if (found := self.classes.get(name)) is not None:
            return found
        self.text_bytes += _TEXT_BYTES + len(name)
        return self.classes.setdefault(name, len(self.classes))

    def path(self, value: Any) -> str:
        """Return a path as it is; bytes that are not UTF-8 become surrogate escapes."""
        try:
            path = os.fsdecode(value)
            os.fsencode(path)  # JSON can hold half of a surrogate pair, which no file name can
        except (TypeError, UnicodeEncodeError) as error:
            raise self.error(f"path is {value!r:.80}", "the name of a file") from error
        if "\0" in path:
            raise self.error(f"path is {redacted(path)!r:.80}, with a NUL in it", "the name of a file")
        return path

    def split(self, value: Any) -> int:
        """Return the number of a split, NOT_GIVEN for an empty cell."""
        text = _text_of(value).lower()
        if text and text not in SPLIT_NAMES:
            raise self.error(f"split is {text!r:.80}", f"one of {', '.join(SPLITS)} or nothing")
        return SPLITS.index(SPLIT_NAMES[text]) if text else NOT_GIVEN

    def weight(self, value: Any) -> float:
        """Return a weight, NaN for an empty cell."""
        if _is_empty(value):
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number <= _MAX_WEIGHT:
            raise self.error(f"weight is {value!r:.80}", "a number of 0 or more")
        return number

    def add_slices(self, row: Row) -> None:
        """Take the other cells of a row; a list or an object is no slice."""
        for key, value in row.items():
            if key not in COLUMNS and not isinstance(value, list | dict):
                self.refuse_more_columns(key)
                column = self.slices.setdefault(key, [])
                column.extend([""] * (len(self.paths) - len(column)))  # rows that had no such column
                column.append(self.share(value))

    def refuse_more_columns(self, key: str) -> None:
        """Raise DataError for a column that is one too many, before the rows that lack it take memory for it."""
        if key not in self.slices and len(self.slices) == MAX_COLUMNS:
            raise self.error(f"found more than {MAX_COLUMNS} columns", "fewer; leave some out")

    def share(self, value: Any) -> str:
        """Return a cell as text, the same object for equal texts: there are many rows and few groups."""
        text = encodable(_text_of(value))
        if (found := self.shared.get(text)) is not None:
            return found
        self.text_bytes += _TEXT_BYTES + len(text)
        return self.shared.setdefault(text, text)

    def error(self, found: str, expected: str) -> DataError:
        """Return the error of the row that is being read."""
        return DataError(encodable(f"{self.origin}, row {len(self.paths) + 1}: {found}; expected {expected}"))

    def source(self, name: str, root: str) -> Source:
        """Return the labelled images of all rows.

        Raises:
            DataError: no rows, too many of them, the same path twice, or a split or weight in some rows only.
        """
        self.refuse_size()
        self.refuse_gaps()
        self.refuse_doubles()
        for column in self.slices.values():
            column.extend([""] * (len(self.paths) - len(column)))
        weights = np.array(self.weights, np.float32)
        if not weights.any():
            raise DataError(f"{self.origin}: found no weight above 0; expected some; correct them, or take them out")
        classes = tuple(sorted(self.classes))
        return Source(
            name,
            self.origin,
            classes,
            self.paths,
            self.label_column(classes),
            np.array(self.splits, np.uint8),
            Files(root, self.paths),
            groups=self.groups if any(self.groups) else None,
            weights=None if np.isnan(weights).any() else weights,
            slices={encodable(key): column for key, column in self.slices.items()},
        )

    def label_column(self, classes: Sequence[str]) -> NDArray[np.int32] | NDArray[np.uint8]:
        """Return int32 (num_rows,), or uint8 (num_rows, num_classes) if any row holds a list."""
        ranks = np.empty(len(classes), np.int32)
        ranks[[self.classes[name] for name in classes]] = np.arange(len(classes))
        labels = ranks[np.array(self.labels, np.int32)]
        if not self.is_multi_label:
            return labels
        matrix = np.zeros((len(self.paths), len(classes)), np.uint8)
        matrix[np.repeat(np.arange(len(self.paths)), self.num_labels), labels] = 1
        return matrix

    def refuse_gaps(self) -> None:
        """Raise DataError unless there are rows, and a split and a weight in all of them or in none."""
        total = len(self.paths)
        if not total:
            raise DataError(f"{self.origin}: found no rows; expected one row per image with {EXPECTED}")
        without = {"split": self.splits.count(NOT_GIVEN), "weight": int(np.isnan(self.weights).sum())}
        for column, count in without.items():
            if 0 < count < total:
                raise DataError(
                    f"{self.origin}: {count} of {total} rows have no {column}; expected a {column} in every row or in "
                    "none"
                )

    def refuse_doubles(self) -> None:
        """Raise DataError if two rows have the same path."""
        hashes = np.fromiter(map(hash, self.paths), np.int64, len(self.paths))
        if len(np.unique(hashes)) == len(hashes):
            return
        rows: dict[str, int] = {}
        for row, path in enumerate(self.paths, start=1):
            if (first := rows.setdefault(path, row)) != row:
                raise DataError(
                    f"{self.origin}, rows {first} and {row}: both have the path {encodable(public_name(path)):.200}; "
                    "expected one row per image; take one out, or give the image a list of labels"
                )


def from_table(path: Path, name: str) -> Source:
    """Read a table that lies on disk; relative paths in it start at its folder.

    Raises:
        DataError: it cannot be read, or a row cannot be used.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{encodable(str(path))}: {error.strerror}; expected a table that can be read") from error
    with file:
        return read_table(file, path.suffix.lower(), encodable(str(path)), name, str(path.parent))


def read_table(file: BinaryIO, kind: str, origin: str, name: str, root: str) -> Source:
    """Read an open table; `kind` is one of TABLES, and relative paths in it start at `root`, a folder or a URL.

    Raises:
        DataError: it is not of that kind, or a row cannot be used.
    """
    columns = _Columns(origin)
    rows = read_rows(file, kind, COLUMNS)
    while (row := _next_row(rows, columns, kind)) is not None:
        columns.add(row)
    return columns.source(name, root)


def _next_row(rows: Iterator[Row], columns: _Columns, kind: str) -> Row | None:
    """Return the next row, None after the last.

    Raises:
        DataError: the next line is not a row of such a table.
    """
    try:
        return next(rows, None)
    except TABLE_ERRORS as error:
        raise columns.error(f"cannot be read as {kind[1:]}: {str(error)[:200]}", EXPECTED) from error


def _is_empty(value: Any) -> bool:
    """Tell whether a cell holds nothing: no value, an empty text or NaN."""
    return value is None or value in ("", b"") or value != value


def _text_of(value: Any) -> str:
    """Return a cell as text; an empty one is an empty text."""
    if isinstance(value, str):
        return value
    if _is_empty(value):
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
