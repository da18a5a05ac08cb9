"""Tar shards in WebDataset naming (key.jpg, key.cls): an index of where each image lies; nothing is extracted."""

import os
import re
import tarfile
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.readers.arrays import padded, readable
from pipeline.data.readers.paths import Paths
from pipeline.data.source import NOT_GIVEN, SPLITS, Finding, Members, Source, encodable
from pipeline.errors import DataError

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "npy")
_ANNOTATIONS = ("json", "txt")
"""Members that belong to a sample and are not read."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SIGNATURES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_MAX_HEADER_BYTES = 1 << 16  # of a long name or pax header: tarfile's patterns take seconds on larger hostile ones
_MAX_LABEL_BYTES = 1024
_BLOCK_BYTES = 1 << 20
# What tarfile raises on hostile headers; RecursionError: long names of long names.
_HEADER_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError)


@dataclass
class _Shard:
    """The members of one tar by key (the path up to the first dot of its last part), as far as they are read."""

    name: str
    images: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # name, offset, size
    labels: dict[str, str] = field(default_factory=dict)
    annotations: list[tuple[str, str]] = field(default_factory=list)  # key, name
    left_out: list[Finding] = field(default_factory=list)

    def leave_out(self, name: str, code: str, detail: str) -> None:
        """Record a member that is no labelled image."""
        self.left_out.append(Finding(f"{self.name}/{name}", code, detail))


def is_shard_folder(folder: Path) -> bool:
    """Tell whether a folder holds .tar files, compressed or not, and no folder that could be a class."""
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "mlruns"]
    except OSError:
        return False
    return any(map(is_shard, visible)) and not any(path.is_dir() for path in visible)


def is_shard(path: Path) -> bool:
    """Tell whether a path is a regular file called like a tar, compressed or not."""
    return path.name.lower().endswith((".tar", *_COMPRESSED)) and path.is_file()


def from_shards(path: Path) -> Source:
    """Index one .tar file, or a folder of them where train-*.tar, val-*.tar and test-*.tar give the split.

    Raises:
        DataError: compressed, damaged, cut off or sparse; a key twice in a shard; a split for some shards only; no
            labelled image.
    """
    shard_paths, left_out = _list_shards(path) if path.is_dir() else ([path], [])
    splits = _given_splits(path, shard_paths) if path.is_dir() else [NOT_GIVEN]
    shard_of, offsets, sizes, codes = array("i"), array("q"), array("q"), array("i")
    paths = Paths()
    names: dict[str, int] = {}
    for number, shard_path in enumerate(shard_paths):
        shard = _read_shard(shard_path)
        left_out += shard.left_out
        for key, (name, offset, size) in shard.images.items():
            if key in shard.labels:
                shard_of.append(number)
                offsets.append(offset)
                sizes.append(size)
                codes.append(names.setdefault(shard.labels[key], len(names)))
                paths.append(f"{shard.name}/{name}")
    if not paths:
        raise unlabelled(path, left_out)
    classes, ranks = _sorted_classes(list(names))
    columns = np.array(shard_of, np.int32), np.array(offsets, np.int64), np.array(sizes, np.int64)
    storage = Members(tuple(map(str, shard_paths)), *columns)
    given = np.array(splits, np.uint8)[storage.shard_of]
    title = encodable(Path(os.path.abspath(path)).name.removesuffix(".tar"))  # noqa: PTH100  a link keeps its name
    labels = ranks[np.array(codes)]
    return Source(title, encodable(str(path)), classes, paths, labels, given, storage, left_out=tuple(left_out))


def unlabelled(path: Path, left_out: Sequence[Finding]) -> DataError:
    """Return the error of shards that hold no labelled image, with the first thing that they hold instead."""
    first = "it is empty"
    if left_out:
        first = f"the first of {len(left_out)} members is {encodable(left_out[0].path)}: {left_out[0].detail}"
    return DataError(
        f"{path}: found no labelled image ({first}); expected key.jpg and key.cls (a text file with the name of the "
        "class) in the same .tar for each; write it so, or unpack it into a folder per class"
    )


def _list_shards(folder: Path) -> tuple[list[Path], list[Finding]]:
    """Return the shards of a folder by name, and its files that are none."""
    shards, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            left_out.append(Finding(path.name, "hidden", "its name starts with a dot"))
        elif is_shard(path):
            shards.append(path)
        elif path.is_file():
            left_out.append(Finding(path.name, "unsupported", "not a .tar file"))
        elif not path.is_dir():
            left_out.append(Finding(path.name, "not_regular", "a pipe, socket, device or broken link"))
    return shards, left_out


def _given_splits(folder: Path, shard_paths: Sequence[Path]) -> list[int]:
    """Return the split that each shard's name starts with (train-, val-, test-): for all of them or for none."""
    prefixes = [path.name.partition("-")[0] for path in shard_paths]
    named = [path.name for path, prefix in zip(shard_paths, prefixes, strict=True) if prefix in SPLITS]
    others = [path.name for path, prefix in zip(shard_paths, prefixes, strict=True) if prefix not in SPLITS]
    if named and others:
        raise DataError(
            f"{folder}: found {encodable(named[0])} beside {encodable(others[0])}; expected all shards to be called "
            "train-*.tar, val-*.tar or test-*.tar, or none of them; rename or move the others"
        )
    return [SPLITS.index(prefix) if named else NOT_GIVEN for prefix in prefixes]


def _read_shard(path: Path) -> _Shard:
    """Index one tar by its headers; of the members only the labels are read.

    Raises:
        DataError: compressed, damaged, cut off, sparse, or a key twice.
    """
    shard = _Shard(path.name)
    with readable(path, "a plain .tar"):
        opened = path.open("rb")
    with opened as file:
        if path.name.lower().endswith(_COMPRESSED) or file.read(5).startswith(_SIGNATURES):
            raise DataError(
                f"{path}: found a compressed tar; expected a plain .tar, whose images are read where they lie; unpack "
                "it (gunzip, unxz, bunzip2 or unzstd)"
            )
        file.seek(0)
        for member in members(file, path, path.stat().st_size):
            name = member.name.removeprefix("./")
            if not member.isreg():
                shard.leave_out(name, "not_regular", "a link, pipe or device inside a tar")
            else:
                _add_member(shard, file, path, name, member)
    _leave_out_unlabelled(shard)
    return shard


def _add_member(shard: _Shard, file: Any, path: Path, name: str, member: tarfile.TarInfo) -> None:
    """Put a regular file where it belongs in `shard` by its extension: all that follows the first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    key, extension = folder + slash + stem, extension.lower()
    same_kind = shard.labels if extension == "cls" else shard.images
    if not stem:
        shard.leave_out(name, "hidden", "its name starts with a dot")
    elif extension in _ANNOTATIONS:
        shard.annotations.append((key, name))
    elif extension != "cls" and extension not in _IMAGES:
        shard.leave_out(name, "unsupported", f"not one of {', '.join(_IMAGES)}")
    elif key in same_kind:
        raise DataError(
            f"{path}: found the key {encodable(key)} twice ({encodable(name)}); expected one image and one .cls for "
            "each key in a shard; write the shard again"
        )
    elif extension == "cls":
        file.seek(member.offset_data)
        content = file.read(member.size) if member.size <= _MAX_LABEL_BYTES else b""
        text = encodable(content.decode("utf-8", "surrogateescape")).strip()
        shard.labels[key] = unicodedata.normalize("NFC", text)
    else:
        shard.images[key] = (name, member.offset_data, member.size)


def _leave_out_unlabelled(shard: _Shard) -> None:
    """Record images without a label, labels without an image and annotations without an image."""
    for key in [key for key, text in shard.labels.items() if not text]:
        del shard.labels[key]
        shard.leave_out(f"{key}.cls", "no_label", f"an empty label, or one of more than {_MAX_LABEL_BYTES} bytes")
    for key, (name, _, _) in shard.images.items():
        if key not in shard.labels:
            shard.leave_out(name, "no_label", "an image without a label beside it (.cls)")
    for key in sorted(shard.labels.keys() - shard.images.keys()):
        shard.leave_out(f"{key}.cls", "no_label", "a label without an image beside it")
    for key, name in shard.annotations:
        if key not in shard.images:
            shard.leave_out(name, "unsupported", "an annotation without an image beside it")


class _Headers:
    """A file as tarfile may read it: in pieces of a header's size, whatever size a header asks for."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            tarfile.ReadError: a negative or absurd number of them.
        """
        if not 0 <= num_bytes <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {num_bytes} bytes")
        content: bytes = self.file.read(num_bytes)
        return content


def members(file: Any, path: Path, num_bytes: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar in order, without its folders; `file` may be read elsewhere between two of them.

    Raises:
        DataError: damaged, cut off (also before `num_bytes`, the length of the file), or sparse members.
    """
    try:
        headers: Any = _Headers(file)
        tar: Any = tarfile.TarFile(fileobj=headers, encoding="utf-8")
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile would keep all of them
            end = member.offset_data + (member.size if member.isreg() else 0)
            if member.size < 0 or (num_bytes is not None and end > num_bytes):
                raise tarfile.ReadError(f"{encodable(member.name)} has {member.size} bytes, which end behind the file")
            if member.issparse():
                raise tarfile.ReadError(f"{encodable(member.name)} is a sparse file")
            if not member.isdir():
                yield member
        _check_end(file, tar.offset)
    except _HEADER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path}: cannot be indexed ({reason}); expected a whole tar of plain files; copy or write it again"
        ) from error


def _check_end(file: Any, offset: int) -> None:
    """Raise ReadError unless only zeros follow from where the headers ended, 512 of them at least."""
    file.seek(offset)
    end = offset
    while block := file.read(_BLOCK_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {end}, nor the end of the archive")
        end += len(block)
    if end - offset < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {end} without the end of the archive")


def _sorted_classes(names: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the sorted classes and, int32 (num_names,), the place of each name among them.

    If all names are numbers, they are padded with zeros so that they sort by number.
    """
    are_numbers = all(re.fullmatch("[0-9]{1,18}", name) for name in names)
    texts = padded(map(int, names)) if are_numbers else names
    classes = tuple(sorted(set(texts)))
    place = {text: number for number, text in enumerate(classes)}
    return classes, np.array([place[text] for text in texts], np.int32)
