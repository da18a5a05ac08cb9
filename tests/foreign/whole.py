"""Small whole files of every format that is read."""

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from pipeline.data.readers.cifar import LAYOUTS
from pipeline.records import ImageSpec
from tests.data.encoded import encoded, saved, tiff

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 8, 3), np.uint8)
BANDS = RNG.integers(0, 256, (18, 16, 5), np.uint8)


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


def cifar() -> tuple[bytes, ...]:
    """Return an archive of CIFAR-10 with a record in each file."""
    layout = LAYOUTS["cifar10"]
    content = {f"{layout.folder}/{name}": bytes([3]) + bytes(3072) for name in layout.files}
    return gzip.compress(tar(content), 1), tar(content)


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


def text_of(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


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
