"""A folder of class folders, or of train/ [val/] test/ of them, becomes labelled images; every file is counted once."""

import errno
import os
import stat
import unicodedata
from array import array
from collections import deque
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from pipeline.data.readers.paths import Paths
from pipeline.data.source import NOT_GIVEN, SPLITS, Files, Finding, Source, encodable
from pipeline.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
HIDDEN = "its name, or that of a folder above it, starts with a dot or is __MACOSX"


@dataclass(frozen=True)
class Listing:
    """What lies below a folder, relative to it, in a fixed order: files by visible folder ("" is the folder itself)."""

    folders: list[tuple[str, Paths]]
    left_out: list[Finding]


class _Walk:
    """A walk that meets each folder below `root` once, whatever links lead to it.

    Folders that lie in the tree come first, then those that links lead to, last the hidden ones (so that a link into a
    hidden folder shows what is there).
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.found = Listing([], [])
        self.seen = {_identity(str(parent)) for parent in Path(os.path.realpath(root)).parents}
        self.real = [""]
        self.linked: deque[str] = deque()
        self.hidden: list[str] = []

    def run(self) -> Listing:
        """Return all that lies below the root."""
        while self.real or self.linked or self.hidden:
            if self.real:
                self.enter(self.real.pop())
            elif self.linked:
                self.enter(self.linked.popleft(), is_link=True)
            else:
                self.enter(self.hidden.pop(), is_hidden=True)
        return self.found

    def enter(self, folder: str, is_link: bool = False, is_hidden: bool = False) -> None:
        """Read one folder unless it was read before; one that cannot be read is left out."""
        try:
            key = _identity(self.full(folder))
            if key not in self.seen:
                self.seen.add(key)
                (self.read_hidden if is_hidden else self.read)(folder)
            elif is_link:
                self.leave_out(folder, "link_loop", "a link to a folder that holds it, or is counted elsewhere")
        except OSError as error:
            if not folder:
                raise DataError(
                    f"{encodable(self.root)}: {error.strerror}; expected a folder that can be read; see to its rights"
                ) from error
            self.leave_out(folder, "unreadable", error.strerror or str(error))

    def read(self, folder: str) -> None:
        """Sort what lies in a visible folder into files, folders to read and what is left out."""
        prefix = folder + "/" if folder else ""
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        self.found.folders.append((folder, found := Paths()))
        with os.scandir(self.full(folder)) as entries:
            for entry in entries:
                path = prefix + entry.name
                if not folder and _is_of_workspace(entry.name):
                    continue
                if is_hidden_name(entry.name):
                    self.hide(path, entry)
                elif entry.is_file(follow_symlinks=False):
                    files.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink():
                    links.append(path)
                else:
                    self.leave_out(path, "not_regular", "a pipe, socket or device")
        for path in sorted(links):
            self.follow(path, files)
        found.extend(sorted(files))
        self.real.extend(sorted(folders, reverse=True))

    def read_hidden(self, folder: str) -> None:
        """Leave out all that lies in a hidden folder."""
        with os.scandir(self.full(folder)) as entries:
            for entry in entries:
                self.hide(f"{folder}/{entry.name}", entry)

    def hide(self, path: str, entry: os.DirEntry[str]) -> None:
        """Leave out a hidden file, or note a hidden folder for later."""
        if entry.is_dir(follow_symlinks=False):
            self.hidden.append(path)
        else:
            self.leave_out(path, "hidden", HIDDEN)

    def follow(self, path: str, files: list[str]) -> None:
        """Put what a link leads to where it belongs: among `files`, among the folders, or out."""
        try:
            mode = os.stat(self.full(path)).st_mode  # noqa: PTH116  (paths stay text: names may not be UTF-8)
        except (FileNotFoundError, NotADirectoryError):
            self.leave_out(path, "missing", "a link that leads nowhere")
        except OSError as error:
            code = "link_loop" if error.errno == errno.ELOOP else "unreadable"
            self.leave_out(path, code, error.strerror or str(error))
        else:
            if stat.S_ISREG(mode):
                files.append(path)
            elif stat.S_ISDIR(mode):
                self.linked.append(path)
            else:
                self.leave_out(path, "not_regular", "a link to a pipe, socket or device")

    def full(self, path: str) -> str:
        """Return where a path below the root lies."""
        return os.path.join(self.root, path)  # noqa: PTH118

    def leave_out(self, path: str, code: str, detail: str) -> None:
        """Record what is no labelled image."""
        self.found.left_out.append(Finding(path, code, detail))


def _identity(path: str) -> tuple[int, int]:
    """Return what names a folder whatever links lead to it."""
    status = os.stat(path)  # noqa: PTH116
    return (status.st_dev, status.st_ino)


def is_hidden_name(name: str) -> bool:
    """Tell whether a file or folder is none of the user's pictures: dot names, and what macOS adds to archives."""
    return name[0] == "." or name == "__MACOSX"


def _is_of_workspace(name: str) -> bool:
    """Tell whether a name is what a search in this very folder leaves behind."""
    return name == "mlruns" or name.startswith("mlflow.db")


def from_folder(root: Path, name: str, origin: str) -> Source:
    """Read a folder with a sub-folder per class, or with train/ [val/] test/ of such folders.

    Raises:
        DataError: it cannot be read, or holds no files in class folders; other folders beside the splits.
    """
    return labelled(_Walk(str(root)).run(), origin, name, str(root))


def labelled(listing: Listing, origin: str, name: str, root: str) -> Source:
    """Label files by their folders: CLASS/file or SPLIT/CLASS/file below `root`, a folder or a URL.

    Raises:
        DataError: no files in class folders; other folders beside the splits.
    """
    splits_of = _split_folders(listing, origin)
    depth = 1 if splits_of else 0
    placed = [(_class_of(folder, depth), folder.partition("/")[0], files) for folder, files in listing.folders]
    filled = {(name, top) for name, top, files in placed if name is not None and files}
    _refuse_empty(origin, splits_of, {top for _, top in filled})
    classes = tuple(sorted({name for name, _ in filled}))
    numbers = {name: number for number, name in enumerate(classes)}
    paths = Paths()
    labels, splits, left_out = array("i"), array("B"), list(listing.left_out)
    for label, top, files in placed:
        if label is None:
            left_out.extend(Finding(path, "no_label", "not in a class folder") for path in files)
        elif files:
            paths.extend(files)
            labels.extend(repeat(numbers[label], len(files)))
            splits.extend(repeat(splits_of.get(top, NOT_GIVEN), len(files)))
    return Source(
        name,
        origin,
        classes,
        paths,
        np.array(labels, np.int32),
        np.array(splits, np.uint8),
        Files(root, paths),
        left_out=tuple(sorted(left_out, key=lambda finding: finding.path)),
        empty_classes=tuple(sorted({label for label, _, _ in placed if label is not None} - numbers.keys())),
    )


def _split_folders(listing: Listing, origin: str) -> dict[str, int]:
    """Return the number of the split that each top folder is; nothing if the top folders are classes."""
    names = sorted({folder.partition("/")[0] for folder, _ in listing.folders if folder})
    given = {name: SPLITS.index(SPLIT_NAMES[name.lower()]) for name in names if name.lower() in SPLIT_NAMES}
    if len(given) < len(names) and len(set(given.values())) < 2:  # one of them may be a class: bus, train
        return {}
    others = [encodable(name) for name in names if name not in given]
    if given and (others or SPLITS.index("train") not in given.values()):
        wrong = f"{', '.join(others)} beside {', '.join(given)}" if others else ", ".join(given)
        raise DataError(
            f"{origin}: found {wrong}; expected train/, [val/] and test/ and no other folder; move what is not"
        )
    return given


def _class_of(folder: str, depth: int) -> str | None:
    """Return the class of the files in a folder: its part number `depth`; None if it lies above the classes."""
    parts = folder.split("/", depth + 1)
    return class_name(parts[depth]) if folder and len(parts) > depth else None


def _refuse_empty(origin: str, splits_of: dict[str, int], filled: set[str]) -> None:
    """Raise DataError unless there are files in class folders, in each split."""
    for folder in splits_of:
        if folder not in filled:
            raise DataError(
                f"{origin}/{folder}: found no files in sub-folders; expected a sub-folder per class; sort them, or "
                "take the folder away"
            )
    if not filled:
        raise DataError(
            f"{origin}: found no files in sub-folders; expected {origin}/CLASS/image.jpg (a sub-folder per class) or "
            f"{origin}/train/CLASS/image.jpg"
        )


def class_name(text: str) -> str:
    """Return a label in the one form that two equal-looking names share."""
    return unicodedata.normalize("NFC", encodable(text))


def odd_name(path: str) -> str | None:
    """Return why a name may mislead or harm whoever reads it; None for an ordinary one."""
    if path.isprintable():
        return None
    for character in path:
        category = unicodedata.category(character)
        if category == "Cs":
            return "not UTF-8"
        if "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069":
            return f"holds the bidirectional character U+{ord(character):04X}"
        if category in ("Cc", "Cf"):
            return f"holds the control character U+{ord(character):04X}"
    return None
