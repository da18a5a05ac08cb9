"""The rows of tables as dictionaries, one at a time and each bounded; what their columns mean is not known here.

No NumPy: scoring reads its inputs before anything heavy is imported.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

Row = dict[str, Any]
"""The cells of a row by column; a reader does not know what they should be."""

MAX_ROW = 1 << 20  # characters or bytes: a row of a table of images is a path and some words
MAX_COLUMNS = 1000  # each costs eight bytes a row
MAX_TABLE_BYTES = 4 << 30  # of memory: some KB of a file can hold any number of rows
# What csv, json and pyarrow raise on files that are not what their ending says; RecursionError: JSON of deep brackets.
TABLE_ERRORS = (ValueError, TypeError, OSError, csv.Error, NotImplementedError, RecursionError)


def csv_rows(file: BinaryIO) -> Iterator[Row]:
    """Yield the rows of a CSV file; a label may be a JSON list."""
    records = _csv_records(file)
    header = next(records, [])
    _refuse_odd_header(header)
    for cells in records:
        if len(cells) > len(header):
            raise ValueError(f"{len(cells)} cells under {len(header)} columns (a comma inside a cell needs quotes)")
        cells += [""] * (len(header) - len(cells))
        row: Row = dict(zip(header, cells, strict=True))
        if "label" in row:
            row["label"] = listed(row["label"])
        yield row


def _csv_records(file: BinaryIO) -> Iterator[list[str]]:
    """Yield the cells of each row of a CSV file, the header first; empty lines are left out."""
    length = 0

    def counted() -> Iterator[str]:
        nonlocal length
        for line in lines(file):
            length += len(line)
            if length > MAX_ROW:  # quoted cells go on over any number of lines
                raise ValueError(f"a row has more than {MAX_ROW:,} characters")
            yield line

    for cells in csv.reader(counted(), strict=True):
        length = 0
        if cells:
            yield cells


def _refuse_odd_header(header: Sequence[str]) -> None:
    """Raise ValueError for what a spreadsheet writes that is not comma-separated UTF-8, and for double columns."""
    refuse_double_columns(header)
    if any("\0" in name for name in header):
        raise ValueError("it is not UTF-8 text (perhaps UTF-16, or not text at all); save it as CSV UTF-8")
    for separator in ";\t|":
        if len(header) == 1 and separator in header[0] and "path" in header[0].split(separator):
            raise ValueError(f"its columns are separated by {separator!r}; save it with commas")


def listed(cell: str) -> str | list[Any]:
    """Return the list that a cell holds as JSON, else the cell."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return cell
    try:
        return list(json.loads(cell))
    except (ValueError, RecursionError):
        return cell


def jsonl_rows(file: BinaryIO) -> Iterator[Row]:
    """Yield the rows of a file with a JSON object a line."""
    for line in lines(file):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{line.strip()[:80]!r} is not an object ({{...}})")
            yield row


def lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends; bytes that are not UTF-8 become surrogate escapes."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    while line := text.readline(MAX_ROW + 1):
        if len(line) > MAX_ROW:
            raise ValueError(f"a line has more than {MAX_ROW:,} characters")
        yield line


def refuse_double_columns(names: Sequence[str]) -> None:
    """Raise ValueError if two columns have the same name."""
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ValueError(f"the column {name!r} occurs {count} times")
