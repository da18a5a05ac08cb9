"""Images, tables and folders behind URLs (s3://, gs://, https://, whatever fsspec knows); nothing is decoded here."""

import contextlib
import re
from itertools import groupby
from typing import Any

from pipeline.data.decode import DecodeError
from pipeline.data.folders import HIDDEN, Listing, is_hidden_name, labelled
from pipeline.data.paths import Paths
from pipeline.data.source import URL, Finding, Source
from pipeline.data.tables import TABLES, read_table
from pipeline.errors import DataError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Which extra of this package brings the driver of a scheme."""
FILES = (".npz", ".npy", ".tar", ".tar.gz", ".tgz", ".zip")
"""What is read from the disk only."""
CONNECT_SECONDS = 5  # twice, as there is one retry
ANSWER_SECONDS = 60
STAMPS = ("size", "ETag", "LastModified", "md5Hash", "updated", "mtime", "created")
USER_INFO = re.compile(r"(?<=://)[^/\s]*@")
QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")
PARTS = re.compile(r"[^:]*://(?:([^/]*)@)?[^?]*(?:\?(.*))?", re.DOTALL)


def is_url(text: str) -> bool:
    """Tell whether a text is a URL rather than a path."""
    return URL.match(text) is not None


def redacted(text: str) -> str:
    """Return a text whose URLs hold no password and no query, which may be a signature."""
    return QUERY.sub(r"\1", USER_INFO.sub("", text))


def open_store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it.

    Raises:
        DataError: nothing serves this scheme, or what does is not installed.
    """
    import fsspec

    check_driver(url)
    scheme, mark, place = url.partition("://")
    return fsspec.core.url_to_fs(scheme.lower() + mark + place, **patience(scheme.lower()))


def check_driver(url: str) -> None:
    """Raise DataError unless what serves the scheme of a URL is known and installed; connects to nothing."""
    import fsspec

    scheme = url.partition("://")[0].lower()
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        remedy = f'pip install "keras-image-pipeline[{EXTRAS[scheme]}]"' if scheme in EXTRAS else "pip install it"
        raise DataError(f"{redacted(url)}: {told(error, url)}, which {scheme}:// needs; {remedy}") from error
    except ValueError as error:
        raise DataError(
            f"{redacted(url)}: {told(error, url)}; expected a URL such as s3://bucket/photos.csv, gs://... or https://..."
        ) from error


def patience(scheme: str) -> dict[str, Any]:
    """Return the options of a driver that make it give up within seconds on a store that is not there."""
    if scheme in ("s3", "s3a"):
        return {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "retries": {"max_attempts": 1}}}
    if scheme in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        return {"client_kwargs": {"timeout": limit}}
    return {}


def refuse_unserved(source: Source) -> None:
    """Raise DataError if there is no driver for the URLs among the paths of a table."""
    for url in {path.partition("://")[0]: path for path in source.paths if is_url(path)}.values():
        try:
            check_driver(url)
        except DataError as error:
            raise DataError(f"{source.origin}: {error}") from error


def read_url(url: str, max_bytes: int) -> bytes:
    """Return the bytes behind a URL, at most `max_bytes`.

    Raises:
        DecodeError: missing, not_regular, unreadable, empty or too_large.
    """
    try:
        store, path = open_store(url)
        content = fetch(store, path, max_bytes + 1)
    except DecodeError:
        raise
    except FileNotFoundError as error:
        raise DecodeError("missing", "no such file") from error
    except Exception as error:  # border: each driver raises what its transport does
        raise DecodeError("unreadable", told(error, url)) from error
    if len(content) > max_bytes:
        raise DecodeError("too_large", f"more than {max_bytes} bytes")
    if not content:
        raise DecodeError("empty", "zero bytes")
    return content


def fetch(store: Any, path: str, num_bytes: int) -> bytes:
    """Return the first bytes of a file."""
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(store, LocalFileSystem) and store.info(path)["type"] != "file":
        raise DecodeError("not_regular", "not a regular file")  # opening a pipe would block
    try:
        content: bytes = store.cat_file(path, start=0, end=num_bytes)
    except FileNotFoundError:
        raise
    except Exception:
        with contextlib.suppress(Exception):
            if store.info(path)["size"] == 0:  # object stores refuse a range of an empty file
                return b""
        raise
    return content


def url_stamp(url: str) -> str:
    """Return what changes when the file behind a URL does; "missing" or "unreadable" if it cannot be asked for."""
    try:
        store, path = open_store(url)
        info = store.info(path)
    except FileNotFoundError:
        return "missing"
    except Exception:  # noqa: BLE001  border: see read_url
        return "unreadable"
    return " ".join(str(info[key]) for key in STAMPS if key in info)


def from_url(url: str, name: str) -> Source:
    """Read the table behind a URL, whose relative paths start where it lies, or a folder of class or split folders.

    Raises:
        DataError: it cannot be reached, or does not hold labelled images.
    """
    address = url.partition("?")[0]  # a query may follow, such as a signature
    kind = next((ending for ending in TABLES if address.lower().endswith(ending)), None)
    if address.lower().endswith(FILES):
        raise DataError(
            f"{redacted(url)}: found the address of an array or archive; expected that of a table "
            f"({'/'.join(TABLES)}) or folder; fetch the file and give its path"
        )
    try:
        store, path = open_store(url)
        if kind is None:
            return labelled(list_store(store, path), redacted(url), name, address.rstrip("/"))
        with store.open(path, "rb") as file:
            source = read_table(file, kind, redacted(url), name, address[: address.rindex("/") + 1])
        refuse_unserved(source)
        return source
    except DataError:
        raise
    except Exception as error:  # border: see read_url
        raise DataError(
            f"{redacted(url)}: cannot be read ({told(error, url)}); see to address, connection and credentials"
        ) from error


def list_store(store: Any, top: str) -> Listing:
    """Return what lies below a folder of a store."""
    found = store.find(top, detail=True)
    if not found:
        raise FileNotFoundError(top)
    skipped = len(top.rstrip("/")) + 1
    names = sorted(name[skipped:] for name, info in found.items() if info["type"] == "file")
    is_hidden = {name: any(map(is_hidden_name, filter(None, name.split("/")))) for name in names}
    shown = sorted((name for name in names if not is_hidden[name]), key=lambda name: (folder_of(name), name))
    return Listing(
        [(folder, Paths(files)) for folder, files in groupby(shown, key=folder_of)],
        [Finding(name, "hidden", HIDDEN) for name in names if is_hidden[name]],
    )


def folder_of(name: str) -> str:
    """Return the folder of a name in a store."""
    return name.rpartition("/")[0]


def told(error: Exception, url: str) -> str:
    """Return what the cause of an exception says, in one short line without the secrets of the URL."""
    cause = error.__cause__ or error
    text = "nothing is there" if isinstance(cause, FileNotFoundError) else redacted(" ".join(str(cause).split()))
    parts = PARTS.match(url)
    for secret in filter(None, parts.groups() if parts else ()):
        text = text.replace(secret, "***")
    return text[:200] or type(cause).__name__
