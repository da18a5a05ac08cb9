"""The kinds of tables, by their endings, and what yields their rows; no NumPy, as in `rows`."""

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.data.readers.parquet import parquet_rows
from pipeline.data.readers.rows import Row, csv_rows, jsonl_rows

TABLES = (".csv", ".parquet", ".jsonl")


def read_rows(file: BinaryIO, kind: str, columns: tuple[str, ...], with_others: bool = True) -> Iterator[Row]:
    """Yield the rows of a table of one of the kinds in TABLES.

    Of Parquet the `columns` are read, and the further ones only `with_others`; of text always all that there are.
    """
    if kind == ".parquet":
        return parquet_rows(file, columns, with_others)
    return csv_rows(file) if kind == ".csv" else jsonl_rows(file)
