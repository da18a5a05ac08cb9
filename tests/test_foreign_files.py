"""Whatever a file of any format holds, it is read, or refused by the error that is documented for it."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.foreign.formats import FORMATS

IN_CHILDREN = [name for name in FORMATS if name.endswith("parquet")]
IN_PROCESS = [name for name in FORMATS if name not in IN_CHILDREN]
HEAVY = [pytest.param(name, marks=pytest.mark.heavy) for name in IN_CHILDREN]
SLOW_SECONDS = 10
ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def libtiff_silenced() -> Iterator[None]:
    """Drop what libtiff prints, as the children do that decode."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def check_outcome(name: str, content: bytes) -> None:
    """Read a file; any other exception than its own, and a long wait, is a failure."""
    form = FORMATS[name]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, libtiff_silenced(), suppress(*form.errors):
        path = Path(folder, "file" + form.suffix)
        path.write_bytes(content)
        form.read(path)
    assert time.monotonic() - start < SLOW_SECONDS


@pytest.mark.parametrize("name", [*IN_PROCESS, *HEAVY])
def test_whole_files_are_read(name):
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(FORMATS[name].wholes):
            path = Path(folder, str(number), "file" + FORMATS[name].suffix)
            path.parent.mkdir()
            path.write_bytes(content)
            FORMATS[name].read(path)


def check_many(name: str, num_examples: int, is_repeatable: bool) -> None:
    """Read damaged files of a format, the same ones at each call if that is wanted."""
    amount = settings(ANY, max_examples=num_examples, derandomize=is_repeatable)
    amount(given(FORMATS[name].contents())(lambda content: check_outcome(name, content)))()


@pytest.mark.parametrize("name", [*IN_PROCESS, *HEAVY])
def test_damaged_files_are_read_or_refused(name):
    check_many(name, 12 if name in IN_CHILDREN else 60, is_repeatable=True)


@pytest.mark.faults
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_are_read_or_refused(name):
    check_many(name, 300 if name in IN_CHILDREN else 3000, is_repeatable=False)
