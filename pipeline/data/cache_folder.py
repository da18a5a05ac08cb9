"""The folders of the cache (decoded images, unpacked arrays): built aside, committed by rename, verified when opened,
cleared away when old."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.files import sync_folder, write_json
from pipeline.machine import num_cores

META = "meta.json"
LOCK = "in-use"
VERSION = 1
BLOCK_BYTES = 64 << 20
FREE_BYTES = 1 << 30  # what is left free on the disk for everything else
LIMIT_BYTES = 20 * 10**9  # of all homes together, unless --cache-limit says otherwise


@dataclass(frozen=True)
class Hold:
    """A cache folder that is in use until `close`, or until this process ends."""

    folder: Path
    file: IO[bytes]

    def close(self) -> None:
        """Let the folder go: it may be cleared away now."""
        self.file.close()


def home_of(workspace: Path, kind: str) -> Path:
    """Return where the cache folders of a kind lie, "images" or "arrays"; homes side by side share one limit."""
    return Path(os.path.abspath(workspace)) / "mlruns" / "cache" / kind  # noqa: PTH100


def open_or_build(home: Path, key: str, build: Callable[[Path], None]) -> Hold:
    """Return the folder `key`: the one that is there and whole, else one that `build` fills.

    Raises:
        OSError: it cannot be written, or was damaged or cleared away at once.
    """
    hold = open_whole(home, key)
    if hold is None:
        with building(home, key) as temporary:
            build(temporary)
            built = temporary.stat().st_ino
        is_own = (home / key).stat().st_ino == built  # which need not be read again
        hold = take(home / key, fcntl.LOCK_SH) if is_own else open_whole(home, key)
        if hold is None:
            raise OSError(f"{home / key}: cannot be read back after it was written; check the disk")
    return hold


def open_whole(home: Path, key: str) -> Hold | None:
    """Return the folder `key` if it is there and every byte is as it was written; a damaged one is removed.

    The time of the last use is noted, which decides what is cleared away first.
    """
    folder = home / key
    if not folder.is_dir():
        return None
    hold = take(folder, fcntl.LOCK_SH)
    if hold is None:
        return None
    if is_whole(folder):
        with contextlib.suppress(OSError):  # it belongs to another user, or its disk can only be read
            os.utime(folder / META)
        return hold
    hold.close()
    clear(folder)
    return None


def take(folder: Path, kind: int) -> Hold | None:
    """Lock a folder, shared or exclusive, without waiting; None if others hold it, it is gone, or may not be locked."""
    try:
        # NFSv4 wants a descriptor that may read for a shared lock, and one that may write for an exclusive one.
        file = (folder / LOCK).open("rb" if kind == fcntl.LOCK_SH else "a+b")
    except OSError:
        return None
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat())  # not cleared away meanwhile
    except OSError:
        is_there = False
    if not is_there:
        file.close()
        return None
    return Hold(folder, file)


def is_whole(folder: Path) -> bool:
    """Tell whether every file of a folder has the digests that were noted when it was written."""
    try:
        meta = read_json(folder / META)
        return meta["version"] == VERSION and meta["files"] == digests(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def digests(folder: Path) -> dict[str, list[str]]:
    """Return SHA-256 of each block of BLOCK_BYTES of each file, by name; read by threads."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (META, LOCK))
    places = [(name, at) for name in names for at in range(0, (folder / name).stat().st_size, BLOCK_BYTES)]
    with ThreadPoolExecutor(num_cores()) as pool:
        found = pool.map(lambda place: block_digest(folder / place[0], place[1]), places)
        blocks: dict[str, list[str]] = {name: [] for name in names}
        for (name, _), digest in zip(places, found, strict=True):
            blocks[name].append(digest)
    return blocks


def block_digest(path: Path, offset: int) -> str:
    """Return the SHA-256 of at most BLOCK_BYTES of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        left = BLOCK_BYTES
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


@contextlib.contextmanager
def building(home: Path, key: str) -> Iterator[Path]:
    """Yield an empty folder that becomes `home/key` when the block ends without an exception.

    What builders that were killed left behind, here and in the homes beside this one, is removed first.
    """
    home.mkdir(parents=True, exist_ok=True)
    for folder in (*home.parent.glob("*/.*.tmp-*"), *home.parent.glob("*/.*.old-*")):
        clear(folder)
    temporary, hold = create_held(home, f".{key}")
    try:
        yield temporary
        write_json(temporary / META, {"version": VERSION, "files": digests(temporary)})
        if not (home / key).exists():  # else another process was quicker
            temporary.rename(home / key)
            sync_folder(home)
    finally:
        hold.close()
        shutil.rmtree(temporary, ignore_errors=True)


def create_held(home: Path, name: str) -> tuple[Path, Hold]:
    """Create a temporary folder that no one else sees before it is locked."""
    unseen = home / f"{name}.new-{os.getpid()}"
    shutil.rmtree(unseen, ignore_errors=True)
    unseen.mkdir()
    file = (unseen / LOCK).open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return (temporary := unseen.rename(home / f"{name}.tmp-{os.getpid()}")), Hold(temporary, file)


def clear(folder: Path) -> bool:
    """Remove a folder unless a live process uses it; tell whether it is gone."""
    hold = take(folder, fcntl.LOCK_EX)
    if hold is None:
        return not folder.exists()
    try:
        doomed = folder.with_name(f".{folder.name.strip('.')}.old-{os.getpid()}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    finally:
        hold.close()
    return True


def make_room(home: Path, num_bytes: int, limit_bytes: int) -> bool:
    """Clear the folders away that were not used for longest, here and in the homes beside this one, until `num_bytes`
    more fit; tell whether they do."""
    if num_bytes > limit_bytes:
        return False
    others = sorted((path.stat().st_mtime, path.parent) for path in home.parent.glob(f"*/[!.]*/{META}"))
    sizes = {folder: sum(path.stat().st_size for path in folder.iterdir()) for _, folder in others}
    for _, folder in others:
        if sum(sizes.values()) + num_bytes <= limit_bytes and num_bytes + FREE_BYTES <= shutil.disk_usage(home).free:
            return True
        if clear(folder):
            del sizes[folder]
    fits = num_bytes + FREE_BYTES <= shutil.disk_usage(home).free
    return fits and sum(sizes.values()) + num_bytes <= limit_bytes


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
