"""The only place where URLs of data are opened: which are followed, and what they may reach. Nothing is decoded here.

A row of a table is untrusted text. Its URL needs a scheme of _PROTOCOLS and is never a chain (`a::b`); over http it
reaches only public addresses, and machines that `--allow-host` names. Only child processes open URLs of rows.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pipeline.data.decoding.bands import DecodeError
from pipeline.errors import DataError
from pipeline.text import is_url, redacted

_PROTOCOLS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""The schemes that are followed, each with its fsspec driver; `source.local_path` turns file:// into a path."""
_EXTRAS = ("s3", "gs")
"""Drivers that come with the extra of the same name."""
_CONNECT_SECONDS = 5  # twice, as there is one retry
_ANSWER_SECONDS = 60
_VERSIONS = ("ETag", "LastModified", "Last-Modified", "Content-MD5", "Digest", "md5Hash", "updated", "created")
"""What drivers report about a file that changes with its content."""
_STAMP_BYTES = 64 << 20  # read of a file if its server reports none of _VERSIONS
_IPV6_HOST = re.compile(r"(?<=[/@])\[[0-9A-Fa-f:.]*\]")
_IN_TEXT = re.compile(r"(\burl=)?['\"(<]*\b[A-Za-z][A-Za-z0-9+.-]{,20}://")  # where a URL begins in a message
_SHOWN = 200  # characters of a message
_TRANSLATED = [ipaddress.ip_network(each) for each in ("::/96", "64:ff9b::/96", "::ffff:0:0:0/96")]
"""IPv6 addresses that end in an IPv4 address: compatible (RFC 4291), NAT64 (RFC 6052) and translated (RFC 7915)."""
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215


class AddressRefused(OSError):
    """A connection that was not made, because a row of a table must not reach that address."""


def public_name(path: str) -> str:
    """Return what an image is called: its path, or its URL without secrets.

    A query is replaced by a part of its SHA-256, so that images that differ by their query keep different names.
    """
    if not is_url(path):
        return path
    query = path.partition("?")[2]
    mark = f"?sha256={hashlib.sha256(os.fsencode(query)).hexdigest()[:12]}" if query else ""
    return redacted(path) + mark


def refusal(url: str) -> str | None:
    """Return why a URL is never followed, None if it may be; connects to nothing."""
    scheme = url.partition("://")[0].lower()
    if "::" in _IPV6_HOST.sub("", url):
        return "chained URLs (with ::) are not followed; name the image itself"
    if scheme == "file":
        return "a file:// URL needs an absolute path; write file:///folder/image.png, or a plain path"
    if scheme not in _PROTOCOLS:
        return f"{scheme}:// URLs are not followed; use {', '.join(f'{name}://' for name in _PROTOCOLS)} or a path"
    return None


def check_url(url: str) -> None:
    """Raise DataError unless a URL may be followed and what serves it is installed; connects to nothing."""
    import fsspec

    if reason := refusal(url):
        raise DataError(f"{redacted(url)}: {reason}")
    driver = _PROTOCOLS[url.partition("://")[0].lower()]
    try:
        fsspec.get_filesystem_class(driver)
    except ImportError as error:
        remedy = f'pip install "keras-image-pipeline[{driver}]"' if driver in _EXTRAS else "pip install it"
        raise DataError(f"{redacted(url)}: {told(error, url)}, which {driver}:// needs; {remedy}") from error


def open_store(url: str, hosts: Sequence[str] = ()) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it.

    `hosts` are names or addresses of machines that may be reached although their addresses are not public.

    Raises:
        DataError: the URL is not followed, or what serves it is not installed.
    """
    check_url(url)
    scheme, mark, place = url.partition("://")
    driver = _PROTOCOLS[scheme.lower()]
    store = _http_store(tuple(hosts)) if driver == "http" else _object_store(driver)
    return store, store._strip_protocol(scheme.lower() + mark + place)


def _object_store(driver: str) -> Any:
    """Return the store of a provider; its address and credentials come from the environment, never from a table."""
    import fsspec

    if driver != "s3":
        return fsspec.filesystem(driver)
    return fsspec.filesystem(
        driver, config_kwargs={"connect_timeout": _CONNECT_SECONDS, "retries": {"max_attempts": 1}}
    )


@lru_cache(maxsize=8)
def _http_store(hosts: tuple[str, ...]) -> Any:
    """Return a store whose connections, also those of redirects, are checked one by one.

    aiohttp takes no proxy and no password from the environment unless it is told to.
    """
    import aiohttp
    import fsspec

    resolve, make_socket = _guard(hosts)

    class Resolver(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            return resolve(host, await super().resolve(host, port, family))

    async def client(**options: Any) -> Any:
        connector = aiohttp.TCPConnector(resolver=Resolver(), socket_factory=make_socket)
        return aiohttp.ClientSession(connector=connector, **options)

    limit = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
    return fsspec.filesystem("http", get_client=client, client_kwargs={"timeout": limit}, skip_instance_cache=True)


def _guard(hosts: tuple[str, ...]) -> tuple[Callable[[str, Any], Any], Callable[[Any], socket.socket]]:
    """Return a function that records the addresses of a name, and one that makes sockets for allowed addresses.

    Addresses are checked when a socket is made, so a name cannot resolve to another one in between.
    """
    allowed = {_plain_host(host) for host in hosts}
    names: dict[str, str] = {}

    def resolve(host: str, found: Any) -> Any:
        names.update({each["host"]: host for each in found})
        if _plain_host(host) in allowed:
            allowed.update(_plain_host(each["host"]) for each in found)
        return found

    def make_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, (address, *_) = info
        if _plain_host(address) not in allowed and not is_public(address):
            name = names.get(address, address)
            raise AddressRefused(
                f"the address is on this machine or a private network; if you trust it, add --allow-host {name}"
            )
        return socket.socket(family, kind, protocol)

    return resolve, make_socket


def host_of(url: str) -> str:
    """Return the name of the machine in a URL, "" without one."""
    return urlsplit(url).hostname or ""


def _plain_host(host: str) -> str:
    """Return a host in the form in which names and addresses are compared."""
    plain = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(plain))
    except ValueError:
        return plain


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public internet, even as an IPv4 address inside an IPv6 one."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local or found in _LOCAL_NAT64:
            return False
        if any(found in network for network in _TRANSLATED):
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast


def read_url(url: str, max_bytes: int, hosts: Sequence[str] = ()) -> bytes:
    """Return the bytes behind a URL, at most `max_bytes`; little more is ever held in memory.

    Raises:
        DecodeError: refused, missing, unreadable, empty or too_large.
    """
    if reason := refusal(url):
        raise DecodeError("refused", reason)
    try:
        store, path = open_store(url, hosts)
        content = _fetch(store, path, max_bytes + 1)
    except FileNotFoundError as error:
        raise DecodeError("missing", "no such file") from error
    except Exception as error:  # border: each driver raises what its transport does
        code = "refused" if isinstance(error.__cause__, AddressRefused) else "unreadable"
        raise DecodeError(code, told(error, url)) from error
    if len(content) > max_bytes:
        raise DecodeError("too_large", f"more than {max_bytes} bytes")
    if not content:
        raise DecodeError("empty", "zero bytes")
    return content


def _fetch(store: Any, path: str, num_bytes: int) -> bytes:
    """Return the first bytes of a file: by a range request from an object store, as a stream from a web server, which
    may not support ranges."""
    if "http" in store.protocol:
        # Passing a size saves a request for it; the stream does not use it.
        with store.open(path, block_size=0, size=num_bytes) as file:
            parts = []
            while num_bytes > 0 and (part := file.read(min(num_bytes, 1 << 20))):
                parts.append(part)
                num_bytes -= len(part)
            return b"".join(parts)
    try:
        return bytes(store.cat_file(path, start=0, end=num_bytes))
    except FileNotFoundError:
        raise
    except Exception:
        with contextlib.suppress(Exception):
            if store.info(path)["size"] == 0:  # object stores refuse a range of an empty file
                return b""
        raise


def url_stamp(url: str, hosts: Sequence[str] = ()) -> str:
    """Return a stamp that changes when the file behind a URL does, or a word such as "missing" if there is none.

    If the server reports no version of the file, its first _STAMP_BYTES are read.
    """
    if refusal(url):
        return "refused"
    try:
        store, path = open_store(url, hosts)
        info = store.info(path)
        found = [str(info[key]) for key in ("size", *_VERSIONS) if key in info]
        if not info.keys() & set(_VERSIONS):
            found.append(hashlib.sha256(_fetch(store, path, _STAMP_BYTES)).hexdigest())
    except FileNotFoundError:
        return "missing"
    except Exception:  # noqa: BLE001  border: see read_url
        return "unreadable"
    return " ".join(found)


def told(error: Exception, url: str) -> str:
    """Return what the cause of an exception says, in one short line without URLs and secrets."""
    cause = error.__cause__ or error
    if isinstance(cause, FileNotFoundError):
        return "nothing is there"
    text = _IN_TEXT.split(" ".join(str(cause)[: 10 * _SHOWN].split()), maxsplit=1)[0].rstrip(" ,:;")
    place, _, query = url.partition("?")
    user_info = place.partition("://")[2].partition("/")[0].rpartition("@")[0]
    for secret in filter(None, (user_info, user_info.partition(":")[2], query)):
        text = text.replace(secret, "***")
    return text[:_SHOWN] or type(cause).__name__
