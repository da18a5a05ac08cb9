"""A download is whole and as expected, or an error that says why; never half a file."""

import hashlib
import io
import sys

import pytest

from pipeline.data.cache import download
from pipeline.data.cache.download import fetch
from pipeline.errors import DataError
from tests.data.loopback import dead_address, serve

CONTENT = bytes(range(256)) * 3000  # more than one block
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_a_download_with_the_right_bytes_appears(tmp_path, capsys):
    with serve({"/set.gz": CONTENT}) as address:
        fetch(f"{address}/set.gz", tmp_path / "data" / "set.gz", DIGEST)
    assert (tmp_path / "data" / "set.gz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set.gz"]
    assert capsys.readouterr().err == f"downloading {address}/set.gz (0.8 MB)\n"


def test_two_downloads_of_one_file_at_once_keep_apart(tmp_path, monkeypatch):
    """Both have one process id, as in two containers that share a workspace."""

    class Screen(io.StringIO):
        def write(self, text):
            monkeypatch.undo()
            fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)  # as another process does when the first has begun
            return len(text)

    with serve({"/set.gz": CONTENT}) as address:
        monkeypatch.setattr(sys, "stderr", Screen())
        fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [CONTENT]


def test_a_download_with_the_wrong_bytes_is_refused(tmp_path):
    with (
        serve({"/set.gz": CONTENT}) as address,
        pytest.raises(DataError, match=f"sha256 of the data is {DIGEST}; expected 0{{64}}; fetch it again"),
    ):
        fetch(f"{address}/set.gz", tmp_path / "set.gz", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_ends_early_is_refused(tmp_path):
    with (
        serve({"/set.gz": CONTENT}, missing_bytes=7) as address,
        pytest.raises(DataError, match=r"set\.gz: cannot be downloaded \(it ended after 768000 of 768007 bytes\)"),
    ):
        fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_a_download_without_an_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 300_000)
    with (
        serve({"/set.gz": CONTENT}) as address,
        pytest.raises(DataError, match=r"cannot be downloaded \(more than 0 MiB"),
    ):
        fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["http://[bad", "no address", "unknown://x/y"])
def test_an_address_that_is_none_is_refused(tmp_path, address):
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(address, tmp_path / "set.gz", DIGEST)


def test_a_file_that_the_server_does_not_have_is_refused(tmp_path):
    with serve({}) as address, pytest.raises(DataError, match="HTTP Error 404"):
        fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)


def test_a_dead_address_is_refused_and_an_older_file_stays(tmp_path):
    (tmp_path / "set.gz").write_bytes(b"older")
    with pytest.raises(DataError, match="Connection refused"):
        fetch(f"{dead_address()}/set.gz", tmp_path / "set.gz", DIGEST)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with serve({"/set.gz": CONTENT}) as address:
        fetch(f"{address}/set.gz", tmp_path / "set.gz", DIGEST)
    shown = sys.stderr.getvalue()
    assert "set.gz" in shown
    assert "768.0/768.0 kB" in shown
