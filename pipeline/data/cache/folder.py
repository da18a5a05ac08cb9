"""The folders of the cache (decoded images, unpacked arrays): built aside, committed by rename, verified when opened,
cleared away when old."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.files import is_at, move_folder, write_json
from pipeline.machine import num_cores

_META = "meta.json"
LOCK = "in-use"
VERSION = 1
_BLOCK_BYTES = 64 << 20
FREE_BYTES = 1 << 30  # what is left free on the disk for everything else
_ATTEMPTS = 3  # to lock a new folder, which the sweep of another process may remove first
LIMIT_BYTES = 20 * 10**9  # of all homes together, unless --cache-limit says otherwise


@dataclass(frozen=True)
class CacheLease:
    """A cache folder that is in use until `close`, or until this process ends."""

    folder: Path
    file: IO[bytes]

    def close(self) -> None:
        """Let the folder go: it may be cleared away now."""
        self.file.close()


def open_or_build(home: Path, key: str, build: Callable[[Path], None]) -> CacheLease:
    """Return the folder `key`: the one that is there and whole, else one that `build` fills.

    Raises:
        OSError: it cannot be written.
    """
    lease = open_whole(home, key)
    return _build_held(home, key, build) if lease is None else lease


def open_whole(home: Path, key: str) -> CacheLease | None:
    """Return the folder `key` if it is there and every byte is as it was written; a damaged one is removed.

    The time of the last use is noted, which decides what is cleared away first.
    """
    folder = home / key
    if not folder.is_dir():
        return None
    lease = take(folder, fcntl.LOCK_SH)
    if lease is None:
        return None
    if _is_whole(folder):
        with contextlib.suppress(OSError):  # it belongs to another user, or its disk can only be read
            os.utime(folder / _META)
        return lease
    lease.close()
    clear(folder)
    return None


def take(folder: Path, kind: int) -> CacheLease | None:
    """Lock a folder, shared or exclusive, without waiting; None if others hold it, it is gone, or may not be locked."""
    try:
        return _lock(folder, kind)
    except OSError:
        return None


def _lock(folder: Path, kind: int) -> CacheLease:
    # NFSv4 wants a descriptor that may read for a shared lock, and one that may write for an exclusive one.
    file = (folder / LOCK).open("rb" if kind == fcntl.LOCK_SH else "a+b")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        if not is_at(file, folder / LOCK):
            raise FileNotFoundError(f"{folder}: removed by another process")
    except OSError:
        file.close()
        raise
    return CacheLease(folder, file)


def _is_whole(folder: Path) -> bool:
    """Tell whether every file of a folder has the digests that were noted when it was written."""
    try:
        meta = read_json(folder / _META)
        return meta["version"] == VERSION and meta["files"] == _digests(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digests(folder: Path) -> dict[str, list[str]]:
    """Return SHA-256 of each block of _BLOCK_BYTES of each file, by name; read by threads."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (_META, LOCK))
    places = [(name, at) for name in names for at in range(0, (folder / name).stat().st_size, _BLOCK_BYTES)]
    with ThreadPoolExecutor(num_cores()) as pool:
        found = pool.map(lambda place: _block_digest(folder / place[0], place[1]), places)
        blocks: dict[str, list[str]] = {name: [] for name in names}
        for (name, _), digest in zip(places, found, strict=True):
            blocks[name].append(digest)
    return blocks


def _block_digest(path: Path, offset: int) -> str:
    """Return the SHA-256 of at most _BLOCK_BYTES of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        left = _BLOCK_BYTES
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _build_held(home: Path, key: str, build: Callable[[Path], None]) -> CacheLease:
    """Let `build` fill a folder that becomes `home/key`; one lock is held from before that until the lease is closed.

    What builders that were killed left behind, here and in the homes beside this one, is removed first.
    """
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home.parent)
    lease = _create_held(home, key)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(_discard, lease)
        build(lease.folder)
        write_json(lease.folder / _META, {"version": VERSION, "files": _digests(lease.folder)})
        committed = _commit(lease, home / key)
        on_failure.pop_all()
    return committed


def _commit(lease: CacheLease, folder: Path) -> CacheLease:
    """Rename a folder that was built to `folder` and return it, or the one that another process built first.

    A damaged one that is in use stays; the new one is then used under its temporary name, and swept away later.
    """
    if move_folder(lease.folder, folder):
        return CacheLease(folder, lease.file)
    quicker = open_whole(folder.parent, folder.name)
    if quicker is not None:
        _discard(lease)
        return quicker
    return CacheLease(folder, lease.file) if clear(folder) and move_folder(lease.folder, folder) else lease


def _create_held(home: Path, key: str) -> CacheLease:
    """Create and lock a temporary folder; try again if another process sweeps it away before it is locked."""
    for _ in range(_ATTEMPTS):
        folder = home / f".{key}.tmp-{secrets.token_hex(8)}"
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            (folder / LOCK).touch()
            return _lock(folder, fcntl.LOCK_SH)
    raise OSError(f"{home}: a file there cannot be locked; expected a file system with locks; work in another folder")


def _discard(lease: CacheLease) -> None:
    lease.close()
    clear(lease.folder)


def _sweep(homes: Path) -> None:
    for folder in homes.glob("*/.*.tmp-*"):
        clear(folder)
    for folder in homes.glob("*/.old-*"):
        shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> bool:
    """Remove a folder unless a live process uses it; tell whether it is gone."""
    lease = take(folder, fcntl.LOCK_EX)
    if lease is None:
        return not folder.exists()
    doomed = folder.with_name(f".old-{secrets.token_hex(8)}")  # which nobody opens
    try:
        folder.rename(doomed)
    finally:
        lease.close()  # before the file is deleted: NFS keeps an open one, and with it the folder
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def make_room(home: Path, num_bytes: int, limit_bytes: int) -> bool:
    """Clear the folders away that were not used for longest, here and in the homes beside this one, until `num_bytes`
    more fit; tell whether they do."""
    if num_bytes > limit_bytes:
        return False
    sizes = _folder_sizes(home.parent)
    for folder in list(sizes):
        if sum(sizes.values()) + num_bytes <= limit_bytes and num_bytes + FREE_BYTES <= shutil.disk_usage(home).free:
            return True
        if clear(folder):
            del sizes[folder]
    fits = num_bytes + FREE_BYTES <= shutil.disk_usage(home).free
    return fits and sum(sizes.values()) + num_bytes <= limit_bytes


def _folder_sizes(homes: Path) -> dict[Path, int]:
    """Return the bytes of each folder, the one that was not used for longest first."""
    found = []
    for meta in homes.glob(f"*/[!.]*/{_META}"):
        with contextlib.suppress(FileNotFoundError):  # another process clears it away
            size = sum(path.stat().st_size for path in meta.parent.iterdir())
            found.append((meta.stat().st_mtime, meta.parent, size))
    return {folder: size for _, folder, size in sorted(found)}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
