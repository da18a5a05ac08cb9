"""CIFAR's binary records become a source, from the archive or a folder; other files are refused by name."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.readers.cifar import LAYOUTS, find_files, from_cifar
from pipeline.errors import DataError

CLASSES = {"cifar10": tuple("abcdefghij"), "cifar100": tuple(f"class{number:02d}" for number in range(100))}


def records(layout, count, first):
    """Records whose image has the number of the record as red, 1 as green, and as blue the column."""
    image = np.zeros((count, 3, 32, 32), np.uint8)
    image[:, 0] = first + np.arange(count)[:, None, None]
    image[:, 1], image[:, 2] = 1, np.arange(32)
    labels = np.full((count, layout.label_bytes), 9, np.uint8)
    labels[:, -1] = np.arange(count) % 10
    return np.concatenate([labels, image.reshape(count, -1)], axis=1).tobytes()


def files_of(name, count=4):
    """The files of a small set: `count` records in each."""
    layout = LAYOUTS[name]
    return {file: records(layout, count, 10 * number) for number, file in enumerate(layout.files)}


def write_archive(folder, name, files):
    """Write the archive; the files lie in it backwards, since the published ones are in no order either."""
    layout = LAYOUTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / layout.archive, "w:gz") as tar:
        for file, content in [*reversed(files.items()), ("readme.html", b"<p>")]:
            info = tarfile.TarInfo(f"{layout.folder}/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / layout.archive


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def read(name, place, workspace):
    return from_cifar(LAYOUTS[name], place, workspace, LIMIT_BYTES, CLASSES[name])


def array_of(source):
    return np.load(source.storage.array_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_and_folder_give_the_same_source(tmp_path, name):
    archive = write_archive(tmp_path / "archive", name, files_of(name))
    folder = write_folder(tmp_path / "folder" / LAYOUTS[name].folder, files_of(name))
    assert find_files(LAYOUTS[name], tmp_path / "archive") == archive
    assert find_files(LAYOUTS[name], tmp_path / "folder") == folder
    assert find_files(LAYOUTS[name], folder) == folder
    packed, unpacked = read(name, archive, tmp_path), read(name, folder, tmp_path)
    num_train = 4 * len(LAYOUTS[name].train)
    for source in (packed, unpacked):
        assert source.splits.tolist() == [0] * num_train + [2] * 4
        assert source.paths[num_train] == "test/00000"
        assert [source.label_text(index) for index in range(4)] == list(CLASSES[name][:4])
    images = array_of(packed)
    assert (images.shape, images.dtype) == ((num_train + 4, 32, 32, 3), np.uint8)
    assert images[-1, 5, 7].tolist() == [10 * len(LAYOUTS[name].train) + 3, 1, 7]
    assert (images == array_of(unpacked)).all()


def test_an_array_that_was_lost_or_cut_is_unpacked_again(tmp_path):
    archive = write_archive(tmp_path, "cifar10", files_of("cifar10"))
    first = read("cifar10", archive, tmp_path)
    expected, labels, path = array_of(first), first.labels, Path(first.storage.array_path)
    written = path.stat().st_mtime_ns
    assert Path(read("cifar10", archive, tmp_path).storage.array_path).stat().st_mtime_ns == written
    del first  # which lets the array go
    path.unlink()
    assert (array_of(read("cifar10", archive, tmp_path)) == expected).all()
    os.truncate(path, 200)
    assert (array_of(read("cifar10", archive, tmp_path)) == expected).all()
    os.truncate(path.with_name("columns.npy"), 20)
    again = read("cifar10", archive, tmp_path)
    assert (again.labels == labels).all()
    assert (array_of(again) == expected).all()
    del again
    np.save(path.with_name("columns.npy"), np.zeros(len(labels), np.uint8))  # of another shape
    assert (read("cifar10", archive, tmp_path).labels == labels).all()


def without(name, file):
    files = files_of(name)
    del files[file]
    return files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without("cifar10", "data_batch_3.bin"), "found no data_batch_3.bin in it; expected cifar-10-binary.tar.gz"),
        (
            files_of("cifar10") | {"test_batch.bin": b"x" * 100},
            "test_batch.bin: found 100 bytes; expected records of 3073",
        ),
        (files_of("cifar10") | {"test_batch.bin": b""}, "test_batch.bin: found 0 bytes"),
        (files_of("cifar10") | {"test_batch.bin": b"\x0b" * 3073}, "found labels up to 11; expected 0 to 9"),
    ],
)
def test_an_archive_of_other_files_is_refused_by_name(tmp_path, files, message):
    archive = write_archive(tmp_path, "cifar10", files)
    with pytest.raises(DataError) as caught:
        read("cifar10", archive, tmp_path)
    assert message in str(caught.value)
    assert str(archive) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda content: content[:-200], lambda content: b"no gzip", lambda content: b""])
def test_a_damaged_archive_is_refused_by_name(tmp_path, damage):
    archive = write_archive(tmp_path, "cifar10", files_of("cifar10"))
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: cannot be"):
        read("cifar10", archive, tmp_path)
    assert not any(path.is_file() for path in (tmp_path / "mlruns").rglob("*"))


def test_a_flipped_bit_in_the_archive_is_refused(tmp_path):
    archive = write_archive(tmp_path, "cifar10", files_of("cifar10"))
    content = bytearray(gzip.compress(gzip.decompress(archive.read_bytes()), compresslevel=0))
    content[5000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="CRC check failed"):
        read("cifar10", archive, tmp_path)


def test_a_folder_that_lacks_a_file_is_none(tmp_path):
    assert find_files(LAYOUTS["cifar10"], write_folder(tmp_path, without("cifar10", "data_batch_5.bin"))) is None
