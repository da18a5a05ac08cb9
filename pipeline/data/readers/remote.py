"""A table or a folder behind a URL becomes labelled images; which URLs are followed is decided in `urls`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from pipeline.data.decoding.urls import check_url, host_of, open_store, public_name, refusal, told
from pipeline.data.readers.folders import HIDDEN, Listing, is_hidden_name, labelled
from pipeline.data.readers.kinds import TABLES
from pipeline.data.readers.paths import Paths
from pipeline.data.readers.tables import read_table
from pipeline.data.source import Files, Finding, Source, local_path
from pipeline.errors import DataError
from pipeline.text import is_url, redacted

_FILES = (".npz", ".npy", ".tar", ".tar.gz", ".tgz", ".zip")
"""What is read from the disk only."""


def guarded(source: Source, hosts: Sequence[str]) -> Source:
    """Return a source whose URLs may be opened, `hosts` even at private addresses; connects to nothing.

    The names of its images hold no password and no signature; `storage` keeps the URLs as they are.

    Raises:
        DataError: the URL of a row is not followed, or there is no driver for it.
    """
    refuse_unserved(source)
    if not isinstance(source.storage, Files):
        return source
    names = Paths(map(public_name, source.paths)) if any(map(is_url, source.paths)) else source.paths
    return replace(source, paths=names, storage=replace(source.storage, hosts=tuple(hosts)))


def refuse_unserved(source: Source) -> None:
    """Raise DataError if the URL of a row is not followed, or there is no driver for it."""
    first_of: dict[str, str] = {}
    for row, path in enumerate(map(local_path, source.paths), start=1):
        if not is_url(path):
            continue
        if reason := refusal(path):
            raise DataError(f"{source.origin}, row {row}: {redacted(path):.200}: {reason}")
        first_of.setdefault(path.partition("://")[0], path)
    for url in first_of.values():
        try:
            check_url(url)
        except DataError as error:
            raise DataError(f"{source.origin}: {error}") from error


def from_url(url: str, name: str, hosts: Sequence[str] = ()) -> Source:
    """Read the table behind a URL, whose relative paths start where it lies, or a folder of class or split folders.

    The user gave this URL, so it may name any host; the rows are untrusted, and reach only public hosts and `hosts`.

    Raises:
        DataError: it cannot be reached, or does not hold labelled images.
    """
    address = url.partition("?")[0]  # a query may follow, such as a signature
    kind = next((ending for ending in TABLES if address.lower().endswith(ending)), None)
    if address.lower().endswith(_FILES):
        raise DataError(
            f"{redacted(url)}: found the address of an array or archive; expected that of a table "
            f"({'/'.join(TABLES)}) or folder; fetch the file and give its path"
        )
    try:
        store, path = open_store(url, [host_of(url), *hosts])
        if kind is None:
            return guarded(labelled(list_store(store, path), redacted(url), name, address.rstrip("/")), hosts)
        with store.open(path, "rb") as file:
            source = read_table(file, kind, redacted(url), name, address[: address.rindex("/") + 1])
        return guarded(source, hosts)
    except DataError:
        raise
    except Exception as error:  # border: see urls.read_url
        raise DataError(
            f"{redacted(url)}: cannot be read ({told(error, url)}); "
            "check the address, the connection and your credentials"
        ) from error


def list_store(store: Any, top: str) -> Listing:
    """Return what lies below a folder of a store."""
    found = store.find(top, detail=True)
    if not found:
        raise FileNotFoundError(top)
    skipped = len(top.rstrip("/")) + 1
    names = sorted(name[skipped:] for name, info in found.items() if info["type"] == "file")
    is_hidden = {name: any(map(is_hidden_name, filter(None, name.split("/")))) for name in names}
    shown = sorted((name for name in names if not is_hidden[name]), key=lambda name: (_folder_of(name), name))
    return Listing(
        [(folder, Paths(files)) for folder, files in groupby(shown, key=_folder_of)],
        [Finding(name, "hidden", HIDDEN) for name in names if is_hidden[name]],
    )


def _folder_of(name: str) -> str:
    """Return the folder of a name in a store."""
    return name.rpartition("/")[0]
