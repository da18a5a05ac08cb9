"""What reads a file of each format, and the errors in which a damaged one may end."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from pipeline.bundle import check_layers, read_bundle
from pipeline.card import ModelCard
from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.decode import decode, probe
from pipeline.data.readers.cifar import LAYOUTS, from_cifar
from pipeline.data.readers.idx import IDX_FILES, from_idx_folder
from pipeline.data.readers.npz import from_npz
from pipeline.data.readers.shards import from_shards
from pipeline.data.readers.tables import from_table
from pipeline.data.splits import manifest
from pipeline.errors import DataError, ModelRefused, SpaceError, StoppedEarly
from pipeline.files import sha256_file
from pipeline.json_records import from_json, to_json
from pipeline.records import ImageSpec
from pipeline.scoring.inputs import find_inputs
from pipeline.space import load_space
from pipeline.space.augmentation import read_augmentation
from tests.foreign.damage import changed, damaged, odd_npy, odd_npz, odd_parquet, odd_rows, odd_tar, odd_tiff, odd_zip
from tests.foreign.whole import (
    AUGMENTATION,
    IMAGES,
    KERAS,
    LABELS,
    METHODS,
    NPYS,
    PICTURES,
    SHARDS,
    SPACE,
    TIFFS,
    archive,
    cifar,
    facts,
    idx,
    keras_config,
    known,
    npzs,
    tables,
    text_of,
    yaml_text,
)

SPECS = (ImageSpec(4, 4, 3), ImageSpec(4, 4, 1, "float32"), ImageSpec(4, 4, 5, "float32", max_megapixels=1))


@dataclass(frozen=True)
class Format:
    """A kind of file: whole ones, what reads one at a path, and the errors in which a damaged one may end."""

    wholes: tuple[bytes, ...]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]
    suffix: str = ""
    made: st.SearchStrategy[bytes] | None = None
    """Files that are sound on the outside and hold odd values."""

    def contents(self) -> st.SearchStrategy[bytes]:
        """Return damaged and odd files of this kind."""
        broken = st.sampled_from(self.wholes).flatmap(damaged)
        return broken if self.made is None else broken | self.made


def read_picture(path: Path) -> None:
    """Read a picture under some specifications, of which one will do for it, and its header alone."""
    content = path.read_bytes()
    refusals = []
    for spec in SPECS:
        try:
            decode(content, spec)
        except DecodeError as error:
            refusals.append(error)
    probe(content, 1)
    if len(refusals) == len(SPECS):
        raise refusals[0]


def read_idx(path: Path) -> None:
    """Read a set of which one file, images or labels by its length, is the one at `path`."""
    content = path.read_bytes()
    images, labels = idx((4, 6, 5), np.arange(120)), idx((4,), np.arange(4))
    folder = path.parent / "idx"
    folder.mkdir()
    for name, whole in zip(IDX_FILES, (images, labels) * 2, strict=True):
        (folder / name).write_bytes(whole)
    (folder / IDX_FILES[path.stat().st_size < 60]).write_bytes(content)
    from_idx_folder(folder, path.parent, LIMIT_BYTES)


def read_cifar(path: Path) -> None:
    """Read an archive, packed if it is not."""
    layout = LAYOUTS["cifar10"]
    content = path.read_bytes()
    place = path.with_name(layout.archive)
    place.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1))
    from_cifar(layout, place, path.parent, LIMIT_BYTES, tuple("abcdefghij"))


def read_facts(path: Path) -> None:
    """Read a model.json beside a model, whose SHA-256 it may hold as 64 zeros."""
    folder = path.parent / "model"
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"model")
    content = path.read_bytes().replace(b"0" * 64, sha256_file(folder / "model.keras").encode())
    (folder / "model.json").write_bytes(content)
    bundle = read_bundle(folder)
    assert from_json(ModelCard, json.loads(json.dumps(to_json(bundle.card)))) == bundle.card


def read_known(path: Path) -> None:
    """Read a memory of splits, and ask it."""
    splits = manifest.read_known(path, np.zeros((3, 32), np.uint8))
    assert set(splits.tolist()) <= {0, 1, 2, 255}
    assert set(manifest.load_known(path)[1].tolist()) <= {0, 1, 2}


def read_table(path: Path) -> None:
    """Read a table as DATA."""
    from_table(path, "set")


def read_inputs(path: Path) -> None:
    """Read a table as the inputs of scoring."""
    find_inputs([str(path)])


def read_npz(path: Path) -> None:
    """Read an .npz as DATA."""
    from_npz(path, path.parent)


def read_space(path: Path) -> None:
    """Read a search space."""
    load_space(str(path))


ARRAYS = (DataError, StoppedEarly)
FORMATS = {
    "model.json": Format((text_of(facts()),), read_facts, (ModelRefused,), made=changed(facts()).map(text_of)),
    "model.keras": Format(
        tuple(archive({"config.json": KERAS, "metadata.json": b"{}"}, method) for method in METHODS[:2]),
        check_layers, (ModelRefused,), ".keras", changed(keras_config()).map(text_of).flatmap(odd_zip),
    ),
    "npz": Format(npzs(), read_npz, ARRAYS, ".npz", odd_npz(("images", "labels"))),
    "known.npz": Format(known(), read_known, (DataError,), ".npz", odd_npz(("digests", "splits"))),
    "idx": Format((IMAGES, LABELS, gzip.compress(IMAGES)), read_idx, ARRAYS, made=damaged(IMAGES).map(gzip.compress)),
    "cifar": Format(cifar(), read_cifar, ARRAYS, made=odd_tar(cifar()[1:])),
    "tar": Format(SHARDS, from_shards, (DataError,), ".tar", odd_tar(SHARDS)),
    "npy": Format(NPYS, read_picture, (DecodeError,), made=odd_npy()),
    "tiff": Format(TIFFS, read_picture, (DecodeError,), made=odd_tiff()),
    "pictures": Format(PICTURES, read_picture, (DecodeError,)),
    "yaml": Format((SPACE,), read_space, (SpaceError,), ".yaml", changed(yaml.safe_load(SPACE)).map(yaml_text)),
    "augmentation": Format((AUGMENTATION,), read_augmentation, (SpaceError,), ".yaml",
                           changed(yaml.safe_load(AUGMENTATION)).map(yaml_text)),
    "table.csv": Format(tables(".csv"), read_table, (DataError,), ".csv"),
    "table.jsonl": Format(tables(".jsonl"), read_table, (DataError,), ".jsonl", odd_rows()),
    "table.parquet": Format(tables(".parquet"), read_table, (DataError,), ".parquet", odd_parquet()),
    "inputs.csv": Format(tables(".csv"), read_inputs, (DataError,), ".csv"),
    "inputs.jsonl": Format(tables(".jsonl"), read_inputs, (DataError,), ".jsonl", odd_rows()),
    "inputs.parquet": Format(tables(".parquet"), read_inputs, (DataError,), ".parquet", odd_parquet()),
}  # fmt: skip
