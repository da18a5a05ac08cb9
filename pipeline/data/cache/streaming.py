"""Images that do not fit on the disk: decoded whenever they are asked for, from where they lie."""

import json
import os
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.chunks import decode_chunk
from pipeline.data.decoding.decoders import CHUNK, Decoders, Killed, chunks_of
from pipeline.data.decoding.urls import public_name
from pipeline.data.source import FileLocation, Location, MemberLocation, RowLocation, Source, encodable
from pipeline.errors import DataError
from pipeline.records import ImageSpec
from pipeline.text import redacted

_ABSENT = -1  # what stands in an index where a location has no offset, size or row
_HOSTS = b"hosts"  # where the metadata of an index says which machines may be reached
_BLOCK = 2_000  # rows of the index that are built at once; five times as many take 15 MB more


def write_locations(path: Path, source: Source, is_streamed: bool = True) -> None:
    """Write the index of a cache: id, location, label and weight of each image, one row an image.

    Secrets in URLs are kept only where the images are read again, and then only the owner of the file can read it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = (source.storage.location(row).path for row in range(len(source)))
    has_secrets = is_streamed and any(redacted(place) != place for place in places)
    path.touch(0o600 if has_secrets else 0o666)
    hosts = getattr(source.storage.location(0), "hosts", ())
    schema = pa.schema(
        [("id", pa.binary()), ("path", pa.binary()), ("offset", pa.int64()), ("size", pa.int64()), ("row", pa.int64()),
         ("label", pa.string()), ("weight", pa.float32())]
    ).with_metadata({_HOSTS: json.dumps(hosts)})  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(source), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(source)))
            locations = [source.storage.location(row) for row in rows]
            weights = [1.0] * len(rows) if source.weights is None else source.weights[rows.start : rows.stop]
            columns = [
                [os.fsencode(source.paths[row]) for row in rows],
                [os.fsencode(location.path if is_streamed else public_name(location.path)) for location in locations],
                *([getattr(location, name, _ABSENT) for location in locations] for name in ("offset", "size", "row")),
                [encodable(source.label_text(row)) for row in rows],
                weights,
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


class StreamedImages:
    """Images (num_images, height, width, channels) that are decoded by children at each access; nothing is kept.

    The children start with the first access and end with this object, or with the process that asked.
    """

    def __init__(self, index_path: Path, spec: ImageSpec) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(index_path, columns=["path", "offset", "size", "row"])
        self.hosts = tuple(json.loads((table.schema.metadata or {}).get(_HOSTS, b"[]")))
        self.paths: Any = table["path"]
        self.places = np.stack([table[name].to_numpy() for name in ("offset", "size", "row")], axis=1)
        self.spec = spec
        self.shape = (table.num_rows, *spec.shape)
        self.decoders: Decoders | None = None
        self.lock = Lock()  # batches are asked for by the threads of Keras

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the images of a slice or of an array of row numbers, decoded now.

        Raises:
            DataError: a file has changed since it was checked.
        """
        numbers: Sequence[int] = np.arange(len(self))[rows]
        images = np.empty((len(numbers), *self.spec.shape), self.spec.dtype)
        with self.lock:
            if self.decoders is None:
                self.decoders = Decoders()
                weakref.finalize(self, self.decoders.stop)
            size = min(CHUNK, -(-len(numbers) // self.decoders.num_workers))
            chunks = chunks_of(self.location, numbers, self.spec.num_bytes, max(1, size))
            for chunk, decoded in self.decoders.map(partial(decode_chunk, spec=self.spec), chunks):
                for place, pixels in enumerate([decoded] if isinstance(decoded, Killed) else decoded):
                    if not isinstance(pixels, np.ndarray):
                        raise DataError(changed(chunk.locations[place], pixels))
                    images[chunk.first + place] = pixels
        return images

    def location(self, row: int) -> Location:
        """Return where an image lies."""
        path = os.fsdecode(self.paths[int(row)].as_py())
        offset, size, number = (int(value) for value in self.places[row])
        if number >= 0:
            return RowLocation(path, number)
        return MemberLocation(path, offset, size) if offset >= 0 else FileLocation(path, self.hosts)


def changed(location: Location, reason: DecodeError | Killed) -> str:
    """Return the message on an image that can no longer be decoded."""
    detail = f"killed, {reason}" if isinstance(reason, Killed) else f"{reason.code}, {reason.detail}"
    return (
        f"{encodable(public_name(location.path))}: {detail}; expected the picture that was there when the search "
        "began; restore it, or begin another study"
    )
