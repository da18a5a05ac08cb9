"""The rows of an output, read back in the order of the inputs, and as one CSV file."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.data.readers.rows import Row
from pipeline.files import replacing
from pipeline.text import NEW_CELL, is_formula


def read_rows(out: Path) -> Iterator[Row]:
    """Yield the rows of all parts, in the order of the inputs; one batch is held at a time."""
    import pyarrow.parquet

    for part in sorted(out.glob("part-*.parquet")):
        with pyarrow.parquet.ParquetFile(part) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()


def first_errors(out: Path, limit: int) -> list[tuple[str, str]]:
    """Return (path, reason) of the first rows without a label."""
    found: list[tuple[str, str]] = []
    for row in read_rows(out):
        if len(found) == limit:
            break
        if row["status"] == "error":
            found.append((row["path"], f"{row['error_code']}: {row['error_detail']}"))
    return found


def export_csv(out: Path, path: Path) -> int:
    """Write all rows as one CSV file and return their number; formulas for a spreadsheet are disarmed."""
    num_rows = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in read_rows(out):
            if num_rows == 0:
                writer.writerow(row)
            writer.writerow([_csv_cell(value) for value in row.values()])
            num_rows += 1
    return num_rows


def _csv_cell(value: Any) -> str:
    """Return one value as CSV text: floats with the 7 digits that float32 has, lists as JSON, formulas disarmed."""
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps([float(f"{each:.7g}") if isinstance(each, float) else each for each in value])
    if isinstance(value, float):
        return f"{value:.7g}"
    text = str(value)
    return "'" + NEW_CELL.sub(r"\g<0>'", text) if is_formula(text) else text
