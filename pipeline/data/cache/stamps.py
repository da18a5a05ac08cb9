"""Stamps that change when a file or the content behind a URL does, and the key of a source that is made of them."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipeline.data.decoding.chunks import stamp_chunk
from pipeline.data.decoding.decoders import Decoders, Killed, chunks_of
from pipeline.data.source import Files, Location, Members, Rows, Source
from pipeline.text import is_url

_BLOCK = 10_000  # images whose stamps are held at once


def _file_stamp(path: str) -> tuple[int, int, int] | str:
    """Return size and times of a file, "missing" if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  (paths stay text: names may not be UTF-8)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return "missing"
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def url_stamps(location: Callable[[int], Location], rows: Sequence[int]) -> Iterator[str]:
    """Yield what `urls.url_stamp` says of the URL of each row; the children that ask start with the first one."""
    if not rows:
        return
    with Decoders() as decoders:
        for _, stamps in decoders.map(stamp_chunk, chunks_of(location, rows, image_bytes=1)):
            yield from ["unreadable"] if isinstance(stamps, Killed) else stamps


def source_key(source: Source) -> str:
    """Return a SHA-256, in hexadecimal, that changes when an image or what is known of it does; no image is read.

    It covers class, split, group and weight of each image, and the size and the times of its file (of its shard or
    array; of a URL the size and the version that the store tells).
    """
    columns = {"labels": source.labels, "splits": source.splits, "weights": source.weights}
    given = {key: (column.dtype.str, column.shape) for key, column in columns.items() if column is not None}
    digest = hashlib.sha256(json.dumps([source.classes, given, source.groups is not None]).encode())
    for column in columns.values():
        if column is not None:
            digest.update(np.ascontiguousarray(column).data)
    for first in range(0, len(source), _BLOCK):
        if source.groups is not None:
            digest.update(json.dumps(source.groups[first : first + _BLOCK]).encode())
    for block in stamps(source):
        digest.update(block)
    return digest.hexdigest()


def stamps(source: Source) -> Iterator[bytes]:
    """Yield what tells whether the files of a source changed, in blocks."""
    storage = source.storage
    if isinstance(storage, Members):
        yield json.dumps([_file_stamp(shard) for shard in storage.shards]).encode()
        for column in (storage.shard_of, storage.offsets, storage.sizes):
            yield np.ascontiguousarray(column).tobytes()
    elif isinstance(storage, Rows):
        yield json.dumps(_file_stamp(storage.array_path)).encode()
    elif isinstance(storage, Files):
        may_be_urls = is_url(storage.root)  # so are relative paths then
        rows = [
            row
            for row, path in enumerate(storage.paths)
            if (may_be_urls or is_url(path)) and is_url(storage.place(path))
        ]
        asked = url_stamps(storage.location, rows)
        for first in range(0, len(source), _BLOCK):
            paths = storage.paths[first : first + _BLOCK]
            places = map(storage.place, paths)
            found = [next(asked) if is_url(place) else _file_stamp(place) for place in places]
            yield json.dumps(list(zip(paths, found, strict=True))).encode()
