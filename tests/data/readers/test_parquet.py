"""Parquet tables are unpacked in a child of little memory: what is small as a file may be of any size, or kill it."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.readers import parquet
from pipeline.data.readers.parquet import parquet_rows
from pipeline.data.readers.tables import COLUMNS, from_table
from pipeline.errors import DataError
from pipeline.scoring.inputs import find_inputs

pytestmark = pytest.mark.heavy  # a child process each
PEAKS = """
import re, resource, sys
from pathlib import Path
from pipeline.data.readers.tables import from_table
from pipeline.errors import DataError
if __name__ == "__main__":
    try:
        from_table(Path(sys.argv[1]), "bomb")
    except DataError as error:
        print(error)
    # Not ru_maxrss, which begins with what the process had that started this one.
    own = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(int(own) >> 10, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def write_repeated(path, num_columns, num_characters, num_rows=8192):
    """Write a table whose further columns hold one long text, which Parquet stores once for all rows."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array(["x" * num_characters]))
    columns = {"path": [f"{row}.png" for row in range(num_rows)], "label": ["ab"[row % 2] for row in range(num_rows)]}
    pq.write_table(pa.table(columns | {f"c{n}": text for n in range(num_columns)}), path, compression="zstd")
    return path


def rows_of(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return list(parquet_rows(file, COLUMNS))


@pytest.mark.parametrize(
    ("num_columns", "num_characters", "message"),
    [
        (6, 250_000, "row 1: cannot be read as parquet: a row has more than 1,048,576 bytes"),
        (1, 8 << 20, "row 1: cannot be read as parquet: unpacking it takes more than 1024 MiB of memory"),
    ],
)
def test_a_small_file_of_gigabytes_is_refused_in_little_memory(tmp_path, num_columns, num_characters, message):
    table = write_repeated(tmp_path / "bomb.parquet", num_columns, num_characters)
    assert table.stat().st_size < 50_000
    script = tmp_path / "peaks.py"
    script.write_text(PEAKS)
    done = subprocess.run([sys.executable, script, table], capture_output=True, text=True, check=True)
    found, peaks = done.stdout.splitlines()
    assert message in found
    own, of_child = map(int, peaks.split())  # MiB
    assert own < 300
    assert of_child < 1400


def test_scoring_reads_the_paths_of_such_a_file_alone(tmp_path):
    table = write_repeated(tmp_path / "bomb.parquet", 6, 250_000)
    assert len(find_inputs([str(table)]).paths) == 8192


def test_long_cells_arrive_in_small_batches(tmp_path):
    texts = [f"{row}".rjust(100_000) for row in range(40)]
    table = pa.table({"path": [f"{row}.png" for row in range(40)], "label": ["x"] * 40, "caption": texts})
    pq.write_table(table, tmp_path / "set.parquet")
    assert from_table(tmp_path / "set.parquet", "set").slices == {"caption": texts}


def test_categories_arrive_as_texts_however_many_there_are():
    groups = [f"patient {row // 2:0100d}" for row in range(40_000)]
    frame = pandas.DataFrame({"path": [f"{row}.png" for row in range(40_000)], "label": "x", "group": groups})
    frame["group"] = frame["group"].astype("category")
    rows = rows_of(pa.Table.from_pandas(frame))
    assert [row["group"] for row in rows] == groups


def test_columns_of_pictures_are_not_unpacked(tmp_path):
    pictures = [{"bytes": bytes(2 << 20), "path": "a.png"}] * 3
    table = pa.table({"path": list("abc"), "label": list("xxy"), "image": pictures, "raw": [bytes(2 << 20)] * 3})
    assert rows_of(table) == [{"path": path, "label": label} for path, label in zip("abc", "xxy", strict=True)]


def test_too_many_columns_are_refused(tmp_path):
    table = pa.table({"path": ["a"], "label": ["x"]} | {f"c{number}": [1] for number in range(1000)})
    with pytest.raises(ValueError, match="found 1002 columns; expected at most 1000"):
        rows_of(table)


def test_a_table_without_rows_or_columns_has_none():
    assert rows_of(pa.table({"path": pa.array([], pa.string())})) == []
    assert rows_of(pa.table({"image": [b"x"]})) == []


class Deadly(io.BytesIO):
    """A file at whose second reading the child that asked for it is killed, as the system kills what takes memory."""

    reads = 0

    def read(self, *size):
        self.reads += 1
        if self.reads == 2:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
        return super().read(*size)


def test_a_child_that_dies_is_told():
    file = Deadly()
    pq.write_table(pa.table({"path": ["a"], "label": ["x"]}), file)
    with pytest.raises(ValueError, match=r"the process that unpacks it died \(signal 9, which the kernel sends"):
        list(parquet_rows(file, COLUMNS))


class Stopped(io.BytesIO):
    """A file that stops the child that asks for it."""

    def read(self, *size):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSTOP)
        return super().read(*size)


def test_a_child_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(parquet, "TIMEOUT_SECONDS", 1)
    file = Stopped()
    pq.write_table(pa.table({"path": ["a"], "label": ["x"]}), file)
    with pytest.raises(ValueError, match="the process that unpacks it has sent nothing for 1 s"):
        list(parquet_rows(file, COLUMNS))
    assert multiprocessing.active_children() == []


class Unreachable(io.BytesIO):
    """A file of a store that breaks off."""

    def read(self, *size):
        raise ConnectionResetError("the store broke off")


def test_an_error_of_the_file_itself_is_not_taken_for_a_death():
    file = Unreachable()
    pq.write_table(pa.table({"path": ["a"], "label": ["x"]}), file)
    with pytest.raises(ConnectionResetError, match="the store broke off"):
        list(parquet_rows(file, COLUMNS))
    assert multiprocessing.active_children() == []


def test_a_reader_that_stops_leaves_no_child_behind(tmp_path):
    table = write_repeated(tmp_path / "set.parquet", 1, 10)
    rows = parquet_rows(table.open("rb"), COLUMNS)
    assert next(rows)["path"] == "0.png"
    rows.close()
    assert multiprocessing.active_children() == []


def test_a_row_that_is_refused_leaves_no_child_behind(tmp_path):
    pq.write_table(pa.table({"path": ["a", "b"], "label": ["", "x"]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"row 1: found .* with no label"):
        from_table(tmp_path / "set.parquet", "set")
    assert multiprocessing.active_children() == []
