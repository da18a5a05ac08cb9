"""What the rows of an output depend on: the files and their stamps, the model, the options."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import sha256_json
from pipeline.text import is_url

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """All that the rows depend on; the same plan gives the same rows. A changed file is another plan."""

    paths_sha256: str
    num_paths: int
    shard_size: int
    model_sha256: str
    classes_sha256: str
    decoder_version: int
    top_k: int
    temperature: float = 1.0
    is_multi_label: bool = False

    @property
    def plan_id(self) -> str:
        """SHA-256 of the plan, in hexadecimal."""
        return sha256_json({"schema": SCHEMA, **asdict(self)})

    @property
    def num_parts(self) -> int:
        """How many shards the paths fall into."""
        return -(-self.num_paths // self.shard_size)


def hash_paths(paths: Sequence[bytes], hosts: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 of the ordered paths and their stamps, which change with the content.

    Relative paths count with the folder that they start at. `hosts` are as in `FileLocation`.
    """
    from pipeline.data.cache.stamps import url_stamps
    from pipeline.data.source import FileLocation

    digest = hashlib.sha256()
    if not all(path.startswith(b"/") for path in paths):
        digest.update(os.fsencode(Path.cwd()))
    urls = [row for row, path in enumerate(paths) if _is_remote(path)]
    asked = url_stamps(lambda row: FileLocation(os.fsdecode(paths[row]), hosts=hosts), urls)
    for path in paths:
        state = f"{next(asked)};".encode() if _is_remote(path) else _state_of(path)
        digest.update(b"%d:" % len(path) + path + state)
    return digest.hexdigest()


def _is_remote(path: bytes) -> bool:
    """Tell whether a path of the inventory is a URL."""
    return b"://" in path and is_url(os.fsdecode(path))


def _state_of(path: bytes) -> bytes:
    """Return what changes when a file does: size and time of change (ns)."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes no bytes
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return b"missing"
    return b"%d,%d;" % (status.st_size, status.st_mtime_ns)
