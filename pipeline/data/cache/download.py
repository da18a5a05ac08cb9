"""One file from a web address to the disk, whole and checked by its digest; which files there are is not known here."""

import contextlib
import errno
import hashlib
import http.client
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, StoppedEarly
from pipeline.files import replacing

_TIMEOUT_SECONDS = 30.0  # without a byte
MAX_BYTES = 1 << 30  # the largest built-in set is 170 MB; a stream without an end must not fill the disk
_BLOCK_BYTES = 1 << 18


def fetch(url: str, target: Path, digest: str) -> None:
    """Download `url` to `target`, which appears by rename after its SHA-256 was found to be `digest`.

    Shows a bar on stderr if that is a terminal, else one line.

    Raises:
        DataError: not reachable, cut off, larger than MAX_BYTES, or other bytes than expected.
        StoppedEarly: the disk is full.
    """
    found = hashlib.sha256()
    with replacing(target) as temporary:
        try:
            with (
                urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
                temporary.open("wb") as file,
                _progress(url, response.length) as advance,
            ):
                for block in blocks(response):
                    found.update(block)
                    file.write(block)
                    advance(len(block))
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not an address
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoppedEarly(f"{target}: {error.strerror}; expected room for a download; free some") from error
            raise DataError(f"{url}: cannot be downloaded ({error}); try again") from error
        if found.hexdigest() != digest:
            raise DataError(f"{url}: sha256 of the data is {found.hexdigest()}; expected {digest}; fetch it again")


def blocks(response: Any) -> Iterator[bytes]:
    """Yield the bytes of a response; http.client itself does not notice a body that ends early.

    Raises:
        OSError: fewer bytes than announced, or more than MAX_BYTES.
    """
    announced, num_bytes = response.length, 0
    while block := response.read(_BLOCK_BYTES):
        num_bytes += len(block)
        if num_bytes > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES >> 20} MiB")
        yield block
    if announced is not None and num_bytes != announced:
        raise OSError(f"it ended after {num_bytes} of {announced} bytes")


@contextlib.contextmanager
def _progress(url: str, num_bytes: int | None) -> Iterator[Callable[[int], object]]:
    """Show on stderr that a download runs; yield what is to be called with the size of each block."""
    if not sys.stderr.isatty():
        size = "" if num_bytes is None else f" ({num_bytes / 1e6:.1f} MB)"
        sys.stderr.write(f"downloading {url}{size}\n")
        yield lambda num_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(url.rpartition("/")[2], total=num_bytes)
        yield lambda num_bytes: bars.advance(task, num_bytes)
