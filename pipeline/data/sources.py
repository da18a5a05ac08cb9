"""DATA of the command line (a name, a folder, a table) becomes a list of labelled images; nothing is decoded here."""

import csv
import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data import builtin
from pipeline.errors import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
TABLES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Example:
    """One labelled image: a file, or row `index` of an array. `split` is train, val, test or "" when none is given."""

    path: str
    label: str
    split: str
    index: int = -1


@dataclass(frozen=True)
class Source:
    """Labelled images that are not decoded yet. `arrays` holds uint8 (num_images, height, width) for array sources."""

    name: str
    origin: str
    examples: tuple[Example, ...]
    root: str = ""
    arrays: NDArray[np.uint8] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted: the index of a name is the label that networks are trained with."""
        return tuple(sorted({example.label for example in self.examples}))


def open_source(data: str, workspace: Path, idx_folder: str | None = None) -> Source:
    """Return the labelled images that `data` names: a built-in set, a folder or a table.

    `idx_folder` is where idx files of a built-in set lie (`--source`). A path wins only if it is written as one
    (`./digits`); a bare built-in name is the built-in set.

    Raises:
        DataError: nothing is there, or it does not hold labelled images; the message shows the layouts that do.
    """
    if data == "digits":
        return from_folder(builtin.write_digits(workspace / "data"), data, f"built-in set {data}")
    if data == "fashion-mnist":
        images, labels, splits = builtin.read_fashion_mnist(workspace / "data" / data, idx_folder)
        examples = (
            Example("", label, split, index) for index, (label, split) in enumerate(zip(labels, splits, strict=True))
        )
        return checked(Source(data, f"built-in set {data}", tuple(examples), arrays=images))
    path = Path(data)
    if path.is_dir():
        return from_folder(path, source_name(data), str(path))
    if path.is_file() and path.suffix.lower() in TABLES:
        return from_table(path)
    found = "a file of another kind" if path.is_file() else "nothing"
    raise DataError(
        f"{data}: found {found}; expected a built-in set ({', '.join(builtin.NAMES)}), a folder with a sub-folder per "
        f"class, a folder with train/ [val/] test/ of such folders, or a {'/'.join(TABLES)} table with the columns "
        "path,label[,split]"
    )


def source_name(data: str) -> str:
    """Return the name of the data set that `data` names, without opening it."""
    if data in builtin.NAMES:
        return data
    path = Path(os.path.abspath(data))  # noqa: PTH100  a link keeps its name
    return encodable(path.stem if path.suffix.lower() in TABLES and not path.is_dir() else path.name)


def from_folder(root: Path, name: str, origin: str) -> Source:
    """Read a folder with a sub-folder per class, or with train/ [val/] test/ of such folders."""
    names = sorted(entry.name for entry in os.scandir(root) if is_class_folder(entry))
    given = {folder: SPLIT_NAMES[folder.lower()] for folder in names if folder.lower() in SPLIT_NAMES}
    if (given and len(given) == len(names)) or len(set(given.values())) > 1:  # one of them may be a class: bus, train
        examples = from_splits(root, names, given)
    else:
        examples = list(scan_classes(root, root, ""))
    if not examples:
        raise DataError(
            f"{root}: found no files in sub-folders; expected {root}/CLASS/image.jpg (a sub-folder per class) or "
            f"{root}/train/CLASS/image.jpg"
        )
    return checked(Source(name, origin, tuple(examples), str(root)))


def from_splits(root: Path, names: list[str], given: dict[str, str]) -> list[Example]:
    """Read train/ [val/] test/ folders of class folders."""
    others = [name for name in names if name not in given]
    if "train" not in given.values() or others:
        wrong = f"{', '.join(others)} beside {', '.join(given)}" if others else ", ".join(given)
        raise DataError(
            f"{root}: found {wrong}; expected train/, [val/] and test/ and no other folder; move what is not"
        )
    examples = []
    for folder, split in given.items():
        found = list(scan_classes(root / folder, root, split))
        if not found:
            raise DataError(
                f"{root / folder}: found no files in sub-folders; expected a sub-folder per class; sort them, or take "
                "the folder away"
            )
        examples += found
    return examples


def is_class_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether a folder may be a class: visible, and not where a search in this very folder keeps its studies."""
    return entry.is_dir() and not entry.name.startswith(".") and entry.name != "mlruns"


def encodable(text: str) -> str:
    """Return a text that is valid UTF-8: bytes of a file name that are not become visible escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def class_name(text: str) -> str:
    """Return a label in the one form that two equal-looking names share."""
    return unicodedata.normalize("NFC", encodable(text))


def scan_classes(folder: Path, root: Path, split: str) -> Iterator[Example]:
    """Yield the visible files below each visible sub-folder of `folder`, in a fixed order."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_class_folder(entry):
            for path in walk(entry.path):
                yield Example(os.path.relpath(path, root), class_name(entry.name), split)


def walk(folder: str) -> Iterator[str]:
    """Yield the visible files below a folder in a fixed order, each real folder once (so that link loops end)."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        status = os.stat(current)  # noqa: PTH116  (paths stay text: names may not be UTF-8)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = sorted((e for e in os.scandir(current) if not e.name.startswith(".")), key=lambda entry: entry.name)
        yield from (entry.path for entry in entries if not entry.is_dir())
        waiting.extend(entry.path for entry in reversed(entries) if entry.is_dir())


def from_table(path: Path) -> Source:
    """Read a table with the columns path,label[,split]; relative paths start at the folder of the table."""
    rows = read_table(path)
    examples = []
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("path", "label") if row.get(key) in (None, "")]
        if missing:
            raise DataError(
                f"{path}, row {number}: found {sorted(map(str, row))} with no {' and no '.join(missing)}; expected the "
                "columns path,label[,split]"
            )
        split = str(row.get("split") or "").lower()
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{path}, row {number}: split is {split!r}; expected one of {', '.join(SPLITS)} or nothing")
        examples.append(Example(str(row["path"]), class_name(str(row["label"])), SPLIT_NAMES.get(split, "")))
    if not examples:
        raise DataError(f"{path}: found no rows; expected one row per image with the columns path,label[,split]")
    without = sum(not example.split for example in examples)
    if 0 < without < len(examples):
        raise DataError(
            f"{path}: {without} of {len(examples)} rows have no split; expected a split in every row or in none"
        )
    return checked(Source(source_name(str(path)), str(path), tuple(examples), str(path.parent)))


def read_table(path: Path) -> list[dict[str, object]]:
    """Return the rows of a .csv, .jsonl or .parquet file as dictionaries.

    Raises:
        DataError: the file cannot be read as what its ending says.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return [dict(row) for row in csv.DictReader(file)]
        if path.suffix.lower() == ".jsonl":
            with path.open(encoding="utf-8") as file:
                return [dict(json.loads(line)) for line in file if line.strip()]
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]}: {error}; expected path,label[,split]") from error


def checked(source: Source) -> Source:
    """Return the source if its labels and splits can be learned from.

    Raises:
        DataError: fewer than two classes, a class without training images, or a class that only appears in test.
    """
    classes = source.classes
    if len(classes) < 2:
        raise DataError(
            f"{source.origin}: found {len(classes)} class ({', '.join(classes)}); expected at least 2, "
            "as sub-folders or as labels in the table"
        )
    if any(example.split for example in source.examples):
        trained = {example.label for example in source.examples if example.split == "train"}
        untrained = sorted(set(classes) - trained)
        if untrained:
            raise DataError(
                f"{source.origin}: no training images of {', '.join(untrained[:5])}; expected every class in train; "
                "add images or remove the class from the other splits"
            )
    return source
