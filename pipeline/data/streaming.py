"""Images that do not fit on the disk: decoded whenever they are asked for, from where they lie."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.chunks import decode_content, load
from pipeline.data.decode import DecodeError
from pipeline.data.source import Location, Source, encodable
from pipeline.errors import DataError
from pipeline.machine import num_cores
from pipeline.records import ImageSpec

BLOCK = 2_000  # rows of the index that are built at once; five times as many take 15 MB more


def write_locations(path: Path, source: Source) -> None:
    """Write the index of a cache: id, location, label and weight of each image, one row an image."""
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.binary()), ("path", pa.binary()), ("offset", pa.int64()), ("size", pa.int64()), ("row", pa.int64()),
         ("label", pa.string()), ("weight", pa.float32())]
    )  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(source), BLOCK):
            rows = range(start, min(start + BLOCK, len(source)))
            locations = [source.storage.location(row) for row in rows]
            weights = [1.0] * len(rows) if source.weights is None else source.weights[rows.start : rows.stop]
            columns = [
                [os.fsencode(source.paths[row]) for row in rows],
                [os.fsencode(location.path) for location in locations],
                *([getattr(location, name) for location in locations] for name in ("offset", "size", "row")),
                [encodable(source.label_text(row)) for row in rows],
                weights,
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


class StreamedImages:
    """Images (num_images, height, width, channels) that are decoded by threads at each access; nothing is kept.

    They are decoded in the process that asks, unlike everywhere else: each was decoded once before, in a child that
    may die, and those that killed or stalled it are left out by every user. One that harms now has changed since, and
    costs a trial's process, which is a disposable child itself, or the command that writes a page. `data.decoders`
    would not do here: the children of pebble are daemons, which multiprocessing forbids children of their own.
    """

    def __init__(self, index_path: Path, spec: ImageSpec) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(index_path, columns=["path", "offset", "size", "row"])
        self.paths: Any = table["path"]
        self.places = np.stack([table[name].to_numpy() for name in ("offset", "size", "row")], axis=1)
        self.spec = spec
        self.shape = (table.num_rows, *spec.shape)
        self.pool = ThreadPoolExecutor(num_cores(), thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the images of a slice or of an array of row numbers, decoded now."""
        numbers: Sequence[int] = np.arange(len(self))[rows]
        images = np.empty((len(numbers), *self.spec.shape), self.spec.dtype)
        for place, pixels in enumerate(self.pool.map(self.decode_row, numbers)):
            images[place] = pixels
        return images

    def decode_row(self, row: int) -> NDArray[Any]:
        """Return the pixels of one image.

        Raises:
            DataError: its file has changed since it was checked.
        """
        import os

        path = os.fsdecode(self.paths[int(row)].as_py())
        offset, size, place = (int(value) for value in self.places[row])
        try:
            return decode_content(load(Location(path, offset, size, place), self.spec), self.spec)[0]
        except DecodeError as error:
            raise DataError(
                f"{encodable(path)}: {error.code}, {error.detail}; expected the picture that was there when the search "
                "began; restore it, or begin another study"
            ) from error
