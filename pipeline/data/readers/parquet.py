"""The rows of a Parquet file, unpacked in a child process: a few KB can unpack to any size, or crash the reader.

The child may take _MEMORY_BYTES, opens nothing itself (the parent reads the file for it, which may be a URL), and sends
Arrow batches of at most MAX_ROW bytes.
"""

import contextlib
import io
import multiprocessing
import os
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.data.readers.rows import MAX_COLUMNS, MAX_ROW, Row, refuse_double_columns
from pipeline.machine import (
    ctrl_c_held_back,
    describe_exit,
    end_with_parent,
    leave_ctrl_c_to_parent,
    limit_memory,
)

_MEMORY_BYTES = 1 << 30  # beside what pyarrow takes; columns of a row group of 1,000,000 images take 0.1 GB
_BATCH_ROWS = 256  # unpacked before their size is seen
_BUFFER_BYTES = 1 << 20  # of a column, read at once
TIMEOUT_SECONDS = 120

# What the child says, in the first byte of a message.
_READ = b"r"  # which bytes of the file it wants: where they begin, and how many
_BATCH = b"b"
_FAILED = b"f"  # why it stopped
END = b"e"
_SPAN = struct.Struct("<qq")


def parquet_rows(file: BinaryIO, columns: tuple[str, ...], with_others: bool = True) -> Iterator[Row]:
    """Yield the rows of a Parquet file with `columns`, and, `with_others`, all further ones of single short values.

    Raises:
        ValueError: it cannot be read, at least not within the memory limit of the child.
    """
    for batch in _batches(file, columns, with_others):
        names = batch.schema.names
        for cells in zip(*map(_cells_of, names, batch.columns), strict=True):
            yield dict(zip(names, cells, strict=True))


def _cells_of(name: str, column: Any) -> list[Any]:
    """Return the values of an Arrow column; ValueError names one with dates or zones that Python does not know."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, KeyError) as error:
        raise ValueError(
            f"the column {name!r} holds values that Python cannot represent ({error}); leave it out"
        ) from error
    return values


def _batches(file: BinaryIO, columns: tuple[str, ...], with_others: bool) -> Iterator[Any]:
    """Yield what a child makes of a file, as small Arrow batches."""
    import pyarrow

    context = multiprocessing.get_context("spawn")
    connection, end_of_child = context.Pipe()
    num_bytes = file.seek(0, os.SEEK_END)
    child = context.Process(target=_unpack, args=(end_of_child, num_bytes, columns, with_others), daemon=True)
    with ctrl_c_held_back():
        child.start()
    end_of_child.close()
    try:
        while (message := _next_message(connection, child)) != END:
            kind, content = message[:1], message[1:]
            if kind == _FAILED:
                raise ValueError(content.decode("utf-8", "replace"))
            if kind == _READ:
                _hand_over(connection, file, content)
            else:
                yield from pyarrow.ipc.open_stream(content)
    finally:
        connection.close()
        child.kill()
        child.join()


def _next_message(connection: "Connection[bytes, bytes]", child: BaseProcess) -> bytes:
    """Return what the child says next; ValueError if it is dead or says nothing."""
    if not connection.poll(TIMEOUT_SECONDS):
        raise ValueError(f"the process that unpacks it has sent nothing for {TIMEOUT_SECONDS} s")
    try:
        return connection.recv_bytes()
    except (EOFError, ConnectionError) as error:
        child.join()
        raise ValueError(f"the process that unpacks it died ({describe_exit(child.exitcode)})") from error


def _hand_over(connection: "Connection[bytes, bytes]", file: BinaryIO, span: bytes) -> None:
    """Send the bytes of the file that the child asked for; if it died since, that is seen at its next message."""
    start, num_bytes = _SPAN.unpack(span)
    file.seek(start)
    content = file.read(num_bytes)
    with contextlib.suppress(ConnectionError):
        connection.send_bytes(content)


class _FileOfParent(io.RawIOBase):
    """The file that the parent holds open, as pyarrow reads it."""

    def __init__(self, connection: "Connection[bytes, bytes]", num_bytes: int) -> None:
        self.connection = connection
        self.num_bytes = num_bytes
        self.position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.num_bytes}[whence]
        return self.position

    def read(self, num_bytes: int = -1) -> bytes:
        left = max(0, self.num_bytes - self.position)
        wanted = left if num_bytes < 0 else min(left, num_bytes)
        self.connection.send_bytes(_READ + _SPAN.pack(self.position, wanted))
        content = self.connection.recv_bytes()
        self.position += len(content)
        return content


def _unpack(
    connection: "Connection[bytes, bytes]", num_bytes: int, columns: tuple[str, ...], with_others: bool
) -> None:
    """Run as the child: send the batches of the parent's file, then END, or why that cannot be done."""
    end_with_parent()
    leave_ctrl_c_to_parent()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # mimalloc reserves 1 GiB at once
    import pyarrow.parquet

    limit_memory(_MEMORY_BYTES)
    try:
        file = _FileOfParent(connection, num_bytes)
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        _send_batches(connection, table, _chosen_columns(table.schema_arrow, columns, with_others))
        connection.send_bytes(END)
    except MemoryError:
        limit = f"{_MEMORY_BYTES >> 20} MiB"
        reason = f"unpacking it takes more than {limit} of memory (write smaller row groups, pages or cells)"
        connection.send_bytes(_FAILED + reason.encode())
    except Exception as error:  # noqa: BLE001  border: what a foreign file makes pyarrow raise is told to the parent
        connection.send_bytes(_FAILED + str(error)[:1000].encode("utf-8", "replace"))


def _send_batches(connection: "Connection[bytes, bytes]", table: Any, names: list[str]) -> None:
    """Send the columns `names` of a Parquet file."""
    import pyarrow

    for batch in table.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
        for part in _parts_of(_plain(batch)):
            sink = pyarrow.BufferOutputStream()
            with pyarrow.ipc.new_stream(sink, part.schema) as stream:
                stream.write_batch(part)
            connection.send_bytes(_BATCH + sink.getvalue())


def _chosen_columns(schema: Any, columns: tuple[str, ...], with_others: bool) -> list[str]:
    """Return the names of the columns to read: if none of `columns` is there, all, so that an error can list them.

    Raises:
        ValueError: two of one name, or too many.
    """
    from pyarrow.types import is_binary, is_fixed_size_binary, is_large_binary, is_nested

    refuse_double_columns(schema.names)
    unfit = (is_nested, is_binary, is_large_binary, is_fixed_size_binary)
    known = [name for name in schema.names if name in columns]
    if known and not with_others:
        return known
    names = [
        field.name for field in schema if field.name in known or not any(is_unfit(field.type) for is_unfit in unfit)
    ]
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"found {len(names)} columns; expected at most {MAX_COLUMNS}")
    return names


def _plain(batch: Any) -> Any:
    """Return a batch whose columns each hold their own values, where Parquet may share them with all rows."""
    import pyarrow

    columns = [
        column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column
        for column in batch.columns
    ]
    return pyarrow.RecordBatch.from_arrays(columns, batch.schema.names)


def _parts_of(batch: Any) -> Iterator[Any]:
    """Yield a batch in parts of at most MAX_ROW bytes.

    Raises:
        ValueError: a row of more.
    """
    if batch.nbytes <= MAX_ROW:
        yield batch
    elif len(batch) == 1:
        raise ValueError(f"a row has more than {MAX_ROW:,} bytes")
    else:
        half = len(batch) // 2
        yield from _parts_of(batch.slice(0, half))
        yield from _parts_of(batch.slice(half))
