"""Read the bytes of a file, of bounded size; decoding them is done elsewhere."""

import errno
import os
import stat

from pipeline.data.decoding.bands import (
    DecodeError,
)
from pipeline.records import ImageSpec


def read_file(path: str, max_megabytes: int = ImageSpec.max_megabytes) -> bytes:
    """Return the bytes of a regular file of at most `max_megabytes` (of 2**20 bytes); never blocks on a pipe.

    Raises:
        DecodeError: missing, not_regular, unreadable, empty or too_large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise DecodeError("missing", "no such file") from error
    except OSError as error:
        code = "not_regular" if error.errno in (errno.ENXIO, errno.ENODEV) else "unreadable"
        raise DecodeError(code, error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("not_regular", "not a regular file")
        check_bytes(status.st_size, max_megabytes)
        content = _read_all(descriptor, status.st_size)
    except OSError as error:
        raise DecodeError("unreadable", error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    check_bytes(len(content), max_megabytes)  # it may have changed since
    return content


def _read_all(descriptor: int, size: int) -> bytes:
    """Return the bytes of an open file that had `size` bytes a moment ago, and one more if it has grown since."""
    parts: list[bytes] = []
    left = size + 1
    while left and (part := os.read(descriptor, left)):  # sized by the file: a buffer of the limit costs 20 us a file
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_bytes(num_bytes: int, max_megabytes: int) -> None:
    """Refuse no bytes, or more than `max_megabytes`."""
    if num_bytes == 0:
        raise DecodeError("empty", "zero bytes")
    if num_bytes > max_megabytes << 20:
        raise DecodeError("too_large", f"{num_bytes:,} bytes; at most {max_megabytes << 20:,} are read")
