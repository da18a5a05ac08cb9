"""Small whole files of every format that is read, what reads them, and how they are damaged."""

import copy
import datetime
import decimal
import gzip
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from PIL import Image

from pipeline.bundle import check_layers, read_bundle
from pipeline.data import manifest
from pipeline.data.cache_folder import LIMIT_BYTES
from pipeline.data.cifar import LAYOUTS, from_cifar
from pipeline.data.decode import DecodeError, decode, probe
from pipeline.data.idx import IDX_FILES, from_idx_folder
from pipeline.data.npz import from_npz
from pipeline.data.shards import from_shards
from pipeline.data.tables import from_table
from pipeline.errors import DataError, ModelRefused, SpaceError, StoppedEarly
from pipeline.files import sha256_file
from pipeline.records import ImageSpec
from pipeline.scoring.inputs import find_inputs
from pipeline.space import load_space
from pipeline.space.augmentation import read_augmentation
from tests.data.encoded import encoded, saved, tiff

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 8, 3), np.uint8)
BANDS = RNG.integers(0, 256, (18, 16, 5), np.uint8)
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


def tables(suffix: str) -> tuple[bytes, ...]:
    """Return tables of all kinds of columns."""
    rows = [
        {"path": f"{number}.png", "label": "ab"[number % 2], "split": "train", "group": f"g{number}", "weight": 1.5,
         "site": "north"}
        for number in range(6)
    ]  # fmt: skip
    several = [{"path": f"{number}.png", "label": ["a", "b"][: number % 3], "age": number} for number in range(6)]
    if suffix == ".jsonl":
        return tuple("".join(json.dumps(row) + "\n" for row in each).encode() for each in (rows, several))
    if suffix == ".csv":
        header = ",".join(rows[0])
        lines = [",".join(map(str, row.values())) for row in rows]
        quoted = 'path,label\n"a, ""b"".png","[""x"", ""y""]"\n'
        return "\r\n".join([header, *lines]).encode(), quoted.encode()
    packings: tuple[dict[str, Any], ...] = ({}, {"compression": "zstd", "use_dictionary": False})
    return tuple(parquet(pa.Table.from_pylist(each), **packing) for each in (rows, several) for packing in packings)


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def tar(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def npzs() -> tuple[bytes, ...]:
    """Return .npz files in each layout, stored and packed."""
    labels = np.arange(4, dtype=np.uint8) % 2
    single = {"images": BANDS[:4, :, :3], "labels": labels}
    split = {f"{name}_images": PIXELS[:4] for name in ("train", "test")} | {
        f"{name}_labels": labels[:, None] for name in ("train", "test")
    }
    files = []
    for content in (single, split):
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **content)
            files.append(file.getvalue())
    return tuple(files)


def known() -> tuple[bytes, ...]:
    """Return a memory of splits."""
    file = io.BytesIO()
    np.savez(file, digests=RNG.integers(0, 256, (5, 32), np.uint8), splits=np.array([0, 1, 2, 0, 1], np.uint8))
    return (file.getvalue(),)


def idx(shape: tuple[int, ...], values: np.ndarray) -> bytes:
    """Return an idx file."""
    return bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes() + values.astype(np.uint8).tobytes()


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


def cifar() -> tuple[bytes, ...]:
    """Return an archive of CIFAR-10 with a record in each file."""
    layout = LAYOUTS["cifar10"]
    content = {f"{layout.folder}/{name}": bytes([3]) + bytes(3072) for name in layout.files}
    return gzip.compress(tar(content), 1), tar(content)


def read_cifar(path: Path) -> None:
    """Read an archive, packed if it is not."""
    layout = LAYOUTS["cifar10"]
    content = path.read_bytes()
    place = path.with_name(layout.archive)
    place.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1))
    from_cifar(layout, place, path.parent, LIMIT_BYTES, tuple("abcdefghij"))


def keras_config() -> dict[str, Any]:
    """Return a config like Keras' own."""
    dtype = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 8]}}
    layers = [
        {
            "module": "keras.layers",
            "class_name": name,
            "config": {"name": name.lower(), "dtype": dtype, "units": 3},
            "registered_name": None,
            "inbound_nodes": [{"args": [tensor], "kwargs": {}}],
        }
        for name in ("InputLayer", "Conv2D", "Dense")
    ]
    config = {"name": "functional", "layers": layers, "input_layers": [["a", 0, 0]]}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": config}


def facts() -> dict[str, Any]:
    """Return a model.json."""
    return {
        "schema": 1, "classes": ["cat", "dog"], "image": asdict(ImageSpec(8, 9, 3)), "is_multi_label": False,
        "temperature": {"value": 1.5, "reason": ""}, "params": {"blocks": 2}, "sha256": "0" * 64,
    }  # fmt: skip


def read_facts(path: Path) -> None:
    """Read a model.json beside a model, whose SHA-256 it may hold as 64 zeros."""
    folder = path.parent / "model"
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"model")
    content = path.read_bytes().replace(b"0" * 64, sha256_file(folder / "model.keras").encode())
    (folder / "model.json").write_bytes(content)
    bundle = read_bundle(folder)
    str(bundle.temperature), str(bundle.is_multi_label), "".join(bundle.classes).encode()


def read_known(path: Path) -> None:
    """Read a memory of splits, and ask it."""
    splits = manifest.read_known(path, np.zeros((3, 32), np.uint8))
    assert set(splits.tolist()) <= {0, 1, 2, 255}
    assert set(manifest.load_known(path)[1].tolist()) <= {0, 1, 2}


ODD_BYTES = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-1", b"1e999", b"9" * 5000,
             b"[" * 3000, b'{"a":' * 3000, b"(" * 500, b"-" * 800, b"\n", b",", b'"', b"\xed\xa0\x80", b"\\ud800",
             b"NaN", b"null", b"true", b"!!timestamp x", b"!!bool x", b"&a *a", b"? ", b": ")  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a file with a few places flipped, replaced, cut, inserted or repeated."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 16))
        kind = draw(st.sampled_from(("flip", "replace", "odd", "cut", "remove", "insert", "repeat", "move")))
        if kind == "flip" and place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "replace":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "odd":
            odd = draw(st.sampled_from(ODD_BYTES))
            content[place : place + draw(st.sampled_from((0, len(odd))))] = odd
        elif kind == "cut":
            del content[place:]
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * draw(st.integers(1, 50))
        elif kind == "move":
            content[place : place + length] = content[:length]
    return bytes(content)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from((10**400, -1, 2**31, 2**63, 1e308, "\ud800", "\0", "=1", "x" * 300, 0.0, 1.0, True))
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one or two of its inner values replaced or taken away."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                place = inner
                continue
            if draw(st.integers(0, 4)) or isinstance(place, list):
                place[key] = draw(VALUES)
            else:
                del place[key]
            break
    return value


def text_of(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


DESCRIPTIONS = (
    "'|u1'", "'<f8'", "'>u2'", "'|O'", "'|V9'", "'<U9'", "'|b1'", "'<c8'", "[('a', '|u1')]", "'|V0'", "'|S99999999999'",
    "'<M8[s]'", "0", "None", "('|u1', (2, 2))", "'" + "(" * 300 + "'", "-" * 700 + "1",
)  # fmt: skip
SHAPES = (
    "(4, 9, 8)", "(4,)", "()", "(0,)", "(-1,)", "(4, 9, 8, 3)", "(10**6, 10**6)", "(2**70,)", "(True,)", "(1.5,)",
    "None", "4", "[4]", "(4, 1)", "(4, 2)", "(999999999999,)", "('a',)", "(" * 190 + ")" * 190,
)  # fmt: skip


@st.composite
def odd_npy(draw: st.DrawFn) -> bytes:
    """Return a .npy file with an odd header, or damaged."""
    if draw(st.booleans()):
        return draw(damaged(draw(st.sampled_from(NPYS))))
    descr, shape = draw(st.sampled_from(DESCRIPTIONS)), draw(st.sampled_from(SHAPES))
    order = draw(st.sampled_from(("False", "True", "0", "None")))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(118) + b"\n"
    version = draw(st.sampled_from((b"\1\0", b"\2\0", b"\3\0", b"\0\0")))
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + draw(st.sampled_from((b"", bytes(4), bytes(288), bytes(864))))


@st.composite
def odd_npz(draw: st.DrawFn, names: tuple[str, ...]) -> bytes:
    """Return an .npz whose members are odd, twice there, away, packed in any way, or said to be encrypted."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name in (*names, *draw(st.lists(st.sampled_from(names), max_size=1))):
            content = draw(odd_npy() | st.sampled_from((saved(np.arange(4) % 2), saved(PIXELS[:4]))))
            packed.writestr(f"{name}.npy", content, draw(st.sampled_from(METHODS)))
    return draw(st.just(file.getvalue()) | flagged(file.getvalue()))


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@st.composite
def flagged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a zip whose members are said to be encrypted, patched, or packed in a way that no one knows."""
    content = bytearray(whole)
    flag, method = draw(st.sampled_from(((1, None), (0x20, None), (0x40, None), (0, 99), (0, 1), (0, 8), (0, 14))))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= flag
            if method is not None:
                content[start + place + 2] = method
            start = content.find(mark, start + 4)
    return bytes(content)


@st.composite
def odd_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a zip with a config.json, flagged in some way or not."""
    whole = archive({"config.json": content}, draw(st.sampled_from(METHODS)))
    return draw(st.just(whole) | flagged(whole))


@st.composite
def odd_tar(draw: st.DrawFn, wholes: tuple[bytes, ...]) -> bytes:
    """Return a damaged tar whose headers have right checksums."""
    content = bytearray(draw(damaged(draw(st.sampled_from(wholes)))))
    start = content.find(b"ustar")
    while start >= 257:
        head = start - 257
        content[head + 148 : head + 156] = b" " * 8
        content[head + 148 : head + 156] = b"%06o\0 " % sum(content[head : head + 512])
        start = content.find(b"ustar", start + 5)
    return bytes(content)


@st.composite
def odd_tiff(draw: st.DrawFn) -> bytes:
    """Return a TIFF of which a few tags have other numbers, types, counts or values."""
    content = bytearray(draw(st.sampled_from(TIFFS)))
    order = "little" if content[:2] == b"II" else "big"
    is_big = b"+" in content[2:4]
    place = int.from_bytes(content[8:16] if is_big else content[4:8], order)
    size, head, width = (20, 8, 8) if is_big else (12, 2, 4)
    number = int.from_bytes(content[place : place + head], order)
    for _ in range(draw(st.integers(1, 3))):
        entry = place + head + size * draw(st.integers(0, number - 1))
        start, length = draw(st.sampled_from(((0, 2), (2, 2), (4, width), (4 + width, width))))
        value = draw(
            st.sampled_from((0, 1, 2, 3, 5, 8, 16, 64, 255, 65535, 32997, 322, 2**31, 2**32 - 1))
            | st.integers(0, 70000)
        )
        content[entry + start : entry + start + length] = (value % 256**length).to_bytes(length, order)
    return bytes(content)


COLUMNS = (
    ["a", "b"], [b"a", b"\xff"], [1, 2], [1.5, None], [["x"], []], [{"k": 1}, None], [True, False], [None, None],
    [datetime.date(2026, 1, 1), None], [decimal.Decimal("1.5"), None], ["train", "test"],
)  # fmt: skip


@st.composite
def odd_parquet(draw: st.DrawFn) -> bytes:
    """Return a sound Parquet file of columns of any type."""
    others = draw(st.lists(st.sampled_from(("split", "group", "weight", "site")), unique=True))
    columns = {name: pa.array(draw(st.sampled_from(COLUMNS))) for name in ("path", "label", *others)}
    return parquet(pa.table(columns))


@st.composite
def odd_rows(draw: st.DrawFn) -> bytes:
    """Return JSON lines of rows with odd values."""
    rows = [
        {"path": f"{number}.png", "label": "a", "split": "train", "group": "g", "weight": 1, "x": 2}
        for number in range(2)
    ]
    return b"\n".join(text_of(draw(changed(row))) for row in rows)


def yaml_text(value: Any) -> bytes:
    """Return a value as YAML."""
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


SPACE = b"""schema: 1
description: a space
params:
  depth: {type: int, min_value: 1, max_value: 3}
  filters: {type: choice, values: [8, 16]}
  learning_rate: {type: float, min_value: 1.0e-4, max_value: 1.0e-2, sampling: log}
"""
AUGMENTATION = b"shift: 0.1\nflip: true\ncutout: 0.25\n"
TIFFS = (
    encoded(Image.fromarray(PIXELS), "TIFF"),
    encoded(Image.fromarray(PIXELS), "TIFF", compression="tiff_lzw"),
    tiff(BANDS, photometric="minisblack", planarconfig="contig"),
    tiff(BANDS.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate", compression="zlib", predictor=2),
    tiff(BANDS.astype(np.float64), photometric="minisblack", planarconfig="contig", tile=(16, 16), compression="lzma"),
    tiff(BANDS, photometric="minisblack", planarconfig="contig", bigtiff=True, byteorder=">"),
    tiff(np.stack([BANDS[..., 0]] * 3), metadata=None, photometric="minisblack"),
)
PICTURES = tuple(encoded(Image.fromarray(PIXELS), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"))
NPYS = (saved(PIXELS), saved(BANDS.astype(np.float32)), saved(np.asfortranarray(BANDS[..., 0].astype(np.uint16))))
GNU = tarfile.GNU_FORMAT
SHARD = {"a.jpg": b"image", "a.cls": b"cat", "b.jpg": b"image", "b.cls": b"dog", "b.json": b"{}"}

IMAGES, LABELS = idx((4, 6, 5), np.arange(120)), idx((4,), np.arange(4))
KERAS = json.dumps(keras_config()).encode()
SHARDS = (
    tar(SHARD),
    tar({"x" * 200 + name: content for name, content in SHARD.items()}),
    tar({"y" * 200 + name: content for name, content in SHARD.items()}, GNU),
)


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
