"""Files that are whole or absent: atomic writes, hashes and locks. Nothing here knows what a file means."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.crashpoints import crashpoint
from pipeline.errors import StoppedEarly

PROBE_SECONDS = 0.2  # a lock is asked for that long: `is_locked` of another process holds it for some microseconds


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path` that becomes `path`, by rename, when the block ends without an exception.

    Its name is random: processes in containers that share a folder may have the same process id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(8)}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        crashpoint("before-rename")
        temporary.replace(path)
        crashpoint("after-rename")
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is lost in a power cut without it)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_folder(folder: Path, target: Path) -> bool:
    """Rename a folder; return False if another one that is not empty has the name already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    _sync_folder(target.parent)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file by rename."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file by rename; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` for the length of the block; the kernel frees it when the process dies.

    Raises:
        StoppedEarly: another live process holds it; the message names that process and its host. Or it has moved
            the lock file away, as `pipeline score --overwrite` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            _acquire(file)
        except BlockingIOError as error:
            raise StoppedEarly(
                f"{what} is in use by {lock_owner(path)}; wait for it, or stop it and try again"
            ) from error
        if not is_at(file, path):
            raise StoppedEarly(f"{what} has just been moved by another process; try again")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _acquire(file: IO[str]) -> None:
    """Take the exclusive lock on an open file.

    Raises:
        BlockingIOError: another process keeps it.
    """
    end = time.monotonic() + PROBE_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(0.01)


def is_at(file: IO[Any], path: Path) -> bool:
    """Tell whether an open file still lies at `path`: it was neither moved nor removed since."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def lock_owner(path: Path) -> str:
    """Return who holds, or held last, the lock on `path`, as `process PID on HOST`."""
    with contextlib.suppress(FileNotFoundError):
        if owner := path.read_text(encoding="utf-8", errors="replace").strip():
            return owner
    return "an unknown process"


def is_locked(path: Path) -> bool:
    """Tell whether a live process holds the lock on `path`; nothing is written, so a read-only folder will do."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an exception means that the disk, or the user's share of it, is full.

    SQLite and NumPy (`1000 requested and 80 written`) give no number of an error.
    """
    is_named = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return is_named or any(text in str(error) for text in ("disk is full", " requested and "))


_NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "9p")


def is_network_folder(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Tell whether a folder lies on a network file system, as far as the kernel says; False where it does not."""
    if not mounts.exists():
        return False
    found = ("/", "")
    place = str(folder.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        point, kind = line.split()[1:3]
        point = point.replace("\\040", " ")
        if (place + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1].removeprefix("fuse.") in (*_NETWORK_FILESYSTEMS, "sshfs")
