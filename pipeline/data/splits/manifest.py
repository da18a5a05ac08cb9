"""Tables that this program writes of its images (and reads again as DATA), and the memory of earlier splits."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding.urls import public_name
from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.data.readers.kinds import TABLES
from pipeline.data.readers.rows import Row, listed
from pipeline.data.source import NOT_GIVEN, SPLITS, Files, Source, encodable
from pipeline.errors import DataError
from pipeline.files import replacing
from pipeline.text import is_formula, is_url, one_line

BATCH = 50_000
_OTHER_TABLES = "a .csv cannot hold that safely; write .jsonl or .parquet instead"


def write_manifest(
    path: Path,
    source: Source,
    rows: NDArray[np.int64],
    splits: NDArray[np.uint8] | None = None,
    digests: NDArray[np.uint8] | None = None,
) -> None:
    """Write a .csv, .jsonl or .parquet table of the images `rows`, by rename: DATA that can be searched.

    `splits` uint8 and `digests` (SHA-256, uint8 (num_images, 32)) are columns of the whole source. Paths are relative
    to the folder of the table where the images lie below it, else absolute.

    Raises:
        DataError: an ending that is not a table's, images that are not separate files, or what is unsafe in a CSV.
    """
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: expected a name that ends with {', '.join(TABLES)}; rename it")
    if not isinstance(source.storage, Files):
        raise DataError(
            f"{source.origin}: its images are no files of their own (an array, or members of a shard), so no table can "
            "name them; expected a folder or a table; make the change where the array or shard is made"
        )
    if path.suffix.lower() == ".csv" and not source.is_multi_label:
        _refuse_for_csv(path, source.classes)
    _write_rows(path, _table_rows(source, rows, splits, digests, Path(os.path.abspath(path.parent))))  # noqa: PTH100


def _refuse_for_csv(path: Path, classes: Sequence[str]) -> None:
    """Raise DataError for a class that would be read again as a list."""
    for name in classes:
        if isinstance(listed(name), list):
            raise DataError(
                f"{path}: the class {name} would be read as a list of labels; {_OTHER_TABLES}, or rename the class"
            )


def write_record(path: Path, source: Source, splits: NDArray[np.uint8], digests: NDArray[np.uint8]) -> None:
    """Write the split of every usable image as .parquet; that of arrays and shards cannot be searched."""
    rows = np.flatnonzero(splits != NOT_GIVEN)
    _write_rows(path, _table_rows(source, rows, splits, digests, None))


def _table_rows(
    source: Source,
    rows: NDArray[np.int64],
    splits: NDArray[np.uint8] | None,
    digests: NDArray[np.uint8] | None,
    home: Path | None,
) -> Iterator[Row]:
    """Yield one dictionary a row; paths are relative to `home` where they lie below it."""
    has_splits = splits is not None and len(rows) > 0 and bool((splits[rows] != NOT_GIVEN).all())
    for row in map(int, rows):
        cells: Row = {"path": _table_path(source, row, home), "label": _table_label(source, row)}
        if has_splits and splits is not None:
            cells["split"] = SPLITS[splits[row]]
        if source.groups is not None:
            cells["group"] = source.groups[row]
        if source.weights is not None:
            cells["weight"] = float(source.weights[row])
        if digests is not None:
            cells["sha256"] = digests[row].tobytes().hex()
        yield cells | {name: column[row] for name, column in source.slices.items() if name not in cells}


def _table_path(source: Source, row: int, home: Path | None) -> str:
    """Return the path of an image as a table names it; the record of a study (no `home`) holds no secret of a URL."""
    if not isinstance(source.storage, Files):
        return source.paths[row]
    path = source.storage.location(row).path
    if is_url(path):
        return path if home else public_name(path)
    path = os.path.abspath(path)  # noqa: PTH100
    inside = home is not None and path.startswith(os.path.join(home, ""))  # noqa: PTH118
    if not inside:
        return path
    relative = os.path.relpath(path, home)
    return f"./{relative}" if is_formula(relative) else relative


def _table_label(source: Source, row: int) -> str | list[str]:
    """Return the label of an image, a list of them where an image may have several."""
    if not source.is_multi_label:
        return source.classes[source.labels[row]]
    return [source.classes[number] for number in np.flatnonzero(source.labels[row])]


def _write_rows(path: Path, rows: Iterator[Row]) -> None:
    """Write dictionaries of the same keys as the ending of `path` says, by rename."""
    with replacing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            _write_parquet(temporary, rows)
            return
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            if path.suffix.lower() == ".jsonl":
                file.writelines(json.dumps(cells, ensure_ascii=False) + "\n" for cells in rows)
            else:
                _write_csv(file, path, rows)


def _write_csv(file: TextIO, path: Path, rows: Iterator[Row]) -> None:
    """Write dictionaries as CSV.

    Raises:
        DataError: a name or cell that a spreadsheet would compute; to change it would change the data, which is read
            again, and could make two groups one.
    """
    writer = None
    for number, cells in enumerate(rows, start=1):
        if writer is None:
            writer = csv.writer(file)
            _refuse_formulas(path, "the header", {name: name for name in cells})
            writer.writerow(cells)
        texts = {name: json.dumps(value) if isinstance(value, list) else str(value) for name, value in cells.items()}
        _refuse_formulas(path, f"row {number}", texts)
        writer.writerow(texts.values())


def _refuse_formulas(path: Path, where: str, cells: Mapping[str, str]) -> None:
    """Raise DataError for a cell that a spreadsheet would compute."""
    for name, text in cells.items():
        if is_formula(text):
            raise DataError(
                f"{path}, {where}, column {one_line(name)}: a spreadsheet would run {one_line(text)} as a formula; "
                f"{_OTHER_TABLES}"
            )


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    """Write dictionaries as Parquet, in batches; paths are bytes, since names need not be UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    while batch := [cells | {"path": os.fsencode(cells["path"])} for cells in islice(rows, BATCH)]:
        writer = writer or pq.ParquetWriter(path, _parquet_schema(batch[0]))
        writer.write_table(pa.Table.from_pylist(batch, schema=writer.schema))
    if writer is None:
        pq.write_table(pa.table({"path": pa.array([], pa.binary()), "label": pa.array([], pa.string())}), path)
    else:
        writer.close()


def _parquet_schema(cells: Row) -> Any:
    """Return the types of the columns of which `cells` is a row; a batch may hold no label that would tell."""
    import pyarrow as pa

    kinds = {"path": pa.binary(), "weight": pa.float64()}
    if isinstance(cells["label"], list):
        kinds["label"] = pa.list_(pa.string())
    return pa.schema([(name, kinds.get(name, pa.string())) for name in cells])


def read_paths(path: Path) -> list[str]:
    """Return the paths of a table that `write_record` wrote."""
    import pyarrow.parquet as pq

    return [os.fsdecode(value) for value in pq.read_table(path, columns=["path"])["path"].to_pylist()]


def read_digests(path: Path) -> NDArray[np.uint8]:
    """Return the SHA-256 of the images of a table that `write_record` wrote, uint8 (num_images, 32)."""
    import pyarrow.parquet as pq

    texts = pq.read_table(path, columns=["sha256"])["sha256"].to_pylist()
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, 32)


def sha256_of(column: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(column).view(np.uint8).data).hexdigest()


def write_known(path: Path, digests: NDArray[np.uint8], splits: NDArray[np.uint8]) -> None:
    """Remember the split of each content: `digests` uint8 (num_images, 32), `splits` uint8 (num_images,); by rename.

    What was remembered before and is not among them stays: a file that is away for one search keeps its split.

    Raises:
        DataError: the memory is damaged.
    """
    if path.exists():
        old_digests, old_splits = load_known(path)
        is_gone = ~np.isin(_as_names(old_digests), _as_names(digests))
        digests = np.concatenate([digests, old_digests[is_gone]])
        splits = np.concatenate([splits, old_splits[is_gone]])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, digests=digests, splits=splits)


def read_known(path: Path, digests: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the remembered split of each content, uint8 (num_images,), NOT_GIVEN for one that is new.

    Raises:
        DataError: the memory is damaged.
    """
    known, splits = load_known(path)
    places = places_of(known, digests)
    found = np.full(len(digests), NOT_GIVEN, np.uint8)
    found[places >= 0] = splits[places[places >= 0]]
    return found


def load_known(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what `write_known` wrote."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            digests, splits = np.asarray(stored["digests"]), np.asarray(stored["splits"])
        if (
            digests.shape != (splits.size, 32)
            or splits.ndim != 1
            or {digests.dtype, splits.dtype} != {np.dtype(np.uint8)}
        ):
            raise ValueError(f"found {digests.dtype} {digests.shape} and {splits.dtype} {splits.shape}")
        if (splits >= len(SPLITS)).any():
            raise ValueError(f"found the split {splits.max()}")
    except NPZ_ERRORS as error:
        raise DataError(
            f"{encodable(str(path))}: cannot be read ({error}); expected the splits of earlier searches; restore it, "
            "or remove it, and images may stand in another split than before"
        ) from error
    return digests, splits


def places_of(known: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the place of each digest among the known ones, int64 (num_wanted,), -1 for one that is not there.

    Both are uint8 (num_images, 32).
    """
    names, searched = _as_names(known), _as_names(wanted)
    order = np.argsort(names, kind="stable")
    places = np.searchsorted(names[order], searched)
    found = np.full(len(searched), -1, np.int64)
    is_within = np.flatnonzero(places < len(names))
    candidates = order[places[is_within]]
    is_same = names[candidates] == searched[is_within]
    found[is_within[is_same]] = candidates[is_same]
    return found


def _as_names(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return each digest as one value that can be sorted and compared."""
    return np.ascontiguousarray(digests).view("V32").ravel()
