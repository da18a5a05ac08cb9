"""Stamps that change when a file or the content behind a URL does; child processes ask for those of URLs."""

import os
from collections.abc import Callable, Iterator, Sequence

from pipeline.data.chunks import stamp_chunk
from pipeline.data.decoders import Decoders, Killed, chunks_of
from pipeline.data.source import Location


def file_stamp(path: str) -> tuple[int, int, int] | str:
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
