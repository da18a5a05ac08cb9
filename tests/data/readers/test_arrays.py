"""Arrays (.npz, idx files) become sources whose images lie in one .npy file; damaged and odd ones are named."""

import gzip
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.cache import folder as cache_folder
from pipeline.data.readers import arrays
from pipeline.data.readers.idx import from_idx_folder, is_idx_folder
from pipeline.data.readers.npz import from_npz
from pipeline.errors import DataError, StoppedEarly
from pipeline.workspace import Workspace

RNG = np.random.default_rng(0)


def images(*shape, dtype=np.uint8):
    return RNG.integers(0, 255, shape).astype(dtype)


def medmnist(train=6, val=3, test=3, side=(5, 4), **changes):
    """Arrays as MedMNIST names them; labels are (n, 1), as there."""
    counts = {"train": train, "val": val, "test": test}
    content = {f"{split}_images": images(count, *side) for split, count in counts.items()}
    content |= {f"{split}_labels": np.arange(count, dtype=np.uint8)[:, None] % 3 for split, count in counts.items()}
    return {name: array for name, array in (content | changes).items() if array is not None}


def write_npz(path, content):
    np.savez_compressed(path, **content)
    return path


def stored(source):
    """All images of a source, in the order of its columns."""
    locations = [source.storage.location(index) for index in range(len(source))]
    array = np.load(locations[0].path, mmap_mode="r")
    return np.stack([array[location.row] for location in locations])


def test_an_npz_in_medmnists_layout_keeps_its_splits_and_pixels(tmp_path):
    content = medmnist()
    source = from_npz(write_npz(tmp_path / "blood.npz", content), tmp_path)
    assert (source.name, source.origin) == ("blood", str(tmp_path / "blood.npz"))
    assert source.classes == ("0", "1", "2")
    assert source.splits.tolist() == [0] * 6 + [1] * 3 + [2] * 3
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert (source.paths[0], source.paths[6], source.paths[11]) == ("train/00000", "val/00000", "test/00002")
    assert (stored(source) == np.concatenate([content[f"{split}_images"] for split in ("train", "val", "test")])).all()
    assert (source.labels.dtype, source.splits.dtype) == (np.int32, np.uint8)
    assert not source.is_official


def test_an_npz_may_do_without_val(tmp_path):
    path = write_npz(tmp_path / "a.npz", medmnist(val_images=None, val_labels=None))
    assert from_npz(path, tmp_path).splits.tolist() == [0] * 6 + [2] * 3


def test_an_npz_with_images_and_labels_has_no_split(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"images": images(4, 5, 5, 3), "labels": np.array([1, 0, 1, 0])})
    source = from_npz(path, tmp_path)
    assert source.splits.tolist() == [255] * 4
    assert source.paths == ["00000", "00001", "00002", "00003"]
    assert stored(source).shape == (4, 5, 5, 3)


def test_class_names_of_more_than_ten_classes_sort_as_numbers(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"images": images(12, 2, 2), "labels": np.arange(12)[::-1]})
    source = from_npz(path, tmp_path)
    assert source.classes == ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11")
    assert [source.label_text(index) for index in (0, 11)] == ["11", "00"]


def test_labels_of_several_columns_are_multi_label(tmp_path):
    labels = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.int64)
    source = from_npz(write_npz(tmp_path / "chest.npz", {"images": images(3, 2, 2), "labels": labels}), tmp_path)
    assert source.is_multi_label
    assert (source.labels.dtype, source.labels.tolist()) == (np.uint8, labels.tolist())
    assert source.label_text(0) == "1|2"


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [("uint8", "uint8"), (">u2", "uint16"), ("float32", "float32"), ("<f8", "float32"), (">f8", "float32")],
)
def test_images_keep_their_depth_and_doubles_become_floats(tmp_path, dtype, becomes):
    pixels = images(4, 3, 3).astype(dtype)
    path = write_npz(tmp_path / "a.npz", {"images": pixels, "labels": np.array([0, 1, 0, 1])})
    found = stored(from_npz(path, tmp_path))
    assert found.dtype == np.dtype(becomes)
    assert (found == pixels).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": images(3, 2, 2)}, "found x; expected train_images, train_labels"),
        ({"images": images(3, 2, 2)}, "found images; expected train_images"),
        (medmnist(test_labels=None), "found test_images, train_images, train_labels, val_images, val_labels; expected"),
        (
            medmnist(test_images=None, test_labels=None),
            "expected train_images, train_labels, [val_images, val_labels,]",
        ),
        (medmnist(train_labels=np.zeros(5, int)), "train_images: found 6 images and 5 labels"),
        (medmnist(test_images=images(3, 5, 5)), "test holds images (5, 5) of uint8, train (5, 4) of uint8"),
        (medmnist(test_images=images(3, 5, 4, dtype="uint16")), "test holds images (5, 4) of uint16"),
        (medmnist(test_labels=np.zeros((3, 2), int)), "expected one size, dtype and kind of label"),
        (medmnist(train_images=images(6, 5, 4, dtype="int32")), "found values of int32; expected uint8, uint16, float"),
        (
            medmnist(train_images=images(6, 20)),
            "found the shape (6, 20); expected (num_images, height, width[, bands])",
        ),
        (medmnist(train_images=images(6, 3, 32, 32)), "bands first; expected (num_images, height, width, bands)"),
        (medmnist(train_labels=np.zeros(6)), "train_labels: found float64 of the shape (6,); expected integers"),
        (
            medmnist(train_labels=np.array(list("abcdef"))),
            "train_labels: found <U1 of the shape (6,); expected integers",
        ),
        (medmnist(train_labels=np.arange(6) - 1), "found labels from -1 to 4; expected numbers from 0"),
        (medmnist(train_labels=np.full(6, 2**64 - 1, np.uint64)), "expected numbers from 0 to 2147483647"),
        (medmnist(train_labels=np.full((6, 2), 2)), "found labels from 2 to 2; expected 0 and 1 in each column"),
        (medmnist(train_images=np.asfortranarray(images(6, 5, 4))), "found columns first (Fortran order)"),
        (medmnist(train_images=np.array([None] * 6)), "found pickled objects; expected a plain array"),
        (medmnist(train_images=images(0, 5, 4), train_labels=images(0)), "found the shape (0, 5, 4)"),
    ],
)
def test_an_npz_that_cannot_be_used_is_refused_with_the_array_and_the_reason(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        from_npz(write_npz(tmp_path / "a.npz", content), tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))
    assert list(tmp_path.rglob("*.npy")) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_that_could_unpack_to_any_size_at_once_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", method) as archive:
        for name, array in {"images": images(4, 5, 4), "labels": np.arange(4)}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    with pytest.raises(DataError, match=f"images: found zip compression method {method}; expected stored or deflate"):
        from_npz(tmp_path / "set.npz", tmp_path)


def test_more_images_than_memory_holds_the_names_of_are_refused_before_their_labels_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_IMAGES", 5)
    path = write_npz(tmp_path / "set.npz", {"images": images(6, 1, 1), "labels": np.full(6, -1)})
    with pytest.raises(DataError, match=r"found 6 images and 6 labels; expected the same number of both, at most 5;"):
        from_npz(path, tmp_path)
    (tmp_path / "idx").mkdir()
    folder = write_idx_folder(tmp_path / "idx", counts=(6, 6))
    with pytest.raises(DataError, match=r"found 6 images and 6 labels; expected the same number of both, at most 5;"):
        from_idx_folder(folder, tmp_path)


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    content = medmnist(train_labels=np.array([Trap()] * 6, dtype=object))
    with pytest.raises(DataError, match="train_labels"):
        from_npz(write_npz(tmp_path / "a.npz", content), tmp_path)
    assert not (tmp_path / "trapped").exists()


def npy_bytes(array, shape=None):
    """A .npy file; `shape` is what its header declares."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue().replace(str(array.shape).encode(), str(shape).encode()) if shape else file.getvalue()


def write_members(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_an_array_that_declares_more_than_it_holds_is_refused(tmp_path):
    contents = {"images.npy": npy_bytes(images(4, 9, 9), (9, 9, 9)), "labels.npy": npy_bytes(np.arange(4))}
    with pytest.raises(DataError, match=r"images: found \d+ bytes for \(9, 9, 9\) of uint8; expected a plain array"):
        from_npz(write_members(tmp_path / "a.npz", contents), tmp_path)


def test_a_flipped_bit_is_refused_and_leaves_no_array(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=images(50, 9, 9), labels=np.arange(50) % 2)  # stored, so that a bit is a pixel
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        from_npz(path, tmp_path)
    assert not any(path.is_file() for path in (tmp_path / "mlruns").rglob("*"))


@pytest.mark.parametrize("keep", [0, 10, 400, -30])
def test_a_truncated_npz_is_refused_by_name(tmp_path, keep):
    path = write_npz(tmp_path / "a.npz", medmnist())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.npz: cannot be read .*; expected an \.npz file"):
        from_npz(path, tmp_path)


@pytest.mark.heavy
@given(header=st.binary(max_size=200), version=st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"]))
def test_any_header_of_an_array_is_read_or_refused(tmp_path_factory, header, version):
    folder = tmp_path_factory.mktemp("npz")
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    content = b"\x93NUMPY" + version + length + header + bytes(64)
    path = write_members(folder / "a.npz", {"images.npy": content, "labels.npy": content})
    with pytest.raises(DataError):
        from_npz(path, folder)


HEADER_TEXT = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}"


@pytest.mark.parametrize(
    "text",
    [
        HEADER_TEXT.format("'|u1'", "(-2, -2, 16)"),
        HEADER_TEXT.format("'|u1'", f"({10**30}, 1, 1)"),
        HEADER_TEXT.format("'|V0'", "(4, 4, 4)"),
        HEADER_TEXT.format("[('a', '|O')]", "(4, 4, 4)"),
        "(" * 900,
        "-" * 900 + "1",
        "'unclosed",
        "[" + "1," * 3000 + "]",
    ],
)
def test_a_hostile_header_of_an_array_is_refused(tmp_path, text):
    header = text.encode()
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(64)
    with pytest.raises(DataError, match=r"a\.npz"):
        from_npz(write_members(tmp_path / "a.npz", {"images.npy": content, "labels.npy": content}), tmp_path)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_doubles_too_large_for_floats_become_infinite_without_a_warning(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"images": np.full((2, 5, 4), 1e300), "labels": np.arange(2)})
    assert np.isinf(stored(from_npz(path, tmp_path))).all()


def test_an_array_above_the_limit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(DataError, match=r"a\.npz: found images \(12, 5, 4\) of 0\.0 GiB; expected at most"):
        from_npz(write_npz(tmp_path / "a.npz", medmnist()), tmp_path)
    assert not (tmp_path / "mlruns").exists()


def test_an_array_that_the_disk_has_no_room_for_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_folder, "FREE_BYTES", shutil.disk_usage(tmp_path).total)
    with pytest.raises(StoppedEarly, match=r"GiB are free, .* expected .* GiB for the unpacked images"):
        from_npz(write_npz(tmp_path / "a.npz", medmnist()), tmp_path)
    assert list(tmp_path.rglob("*.npy")) == []


def test_blocks_that_split_an_image_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 24)
    pixels = images(6, 5, 4).astype("float64")
    path = write_npz(tmp_path / "a.npz", {"images": pixels, "labels": np.arange(6) % 2})
    assert (stored(from_npz(path, tmp_path)) == pixels).all()


def array_of(source):
    return Path(source.storage.location(0).path)


def test_the_array_is_written_once_and_again_when_the_file_or_the_array_changed(tmp_path):
    path = write_npz(tmp_path / "a.npz", medmnist())
    first = array_of(from_npz(path, tmp_path))
    written = first.stat().st_mtime_ns
    assert array_of(from_npz(path, tmp_path)) == first
    assert first.stat().st_mtime_ns == written
    os.truncate(first, 150)
    assert stored(from_npz(path, tmp_path)).shape == (12, 5, 4)
    content = medmnist(train=7)
    source = from_npz(write_npz(path, content), tmp_path)
    assert array_of(source) != first
    assert (stored(source)[:7] == content["train_images"]).all()


def test_an_array_gives_way_to_a_newer_one_and_never_while_it_is_in_use(tmp_path):
    contents = [{"images": images(50, 9, 9), "labels": np.arange(50) % 2} for _ in range(3)]
    paths = [write_npz(tmp_path / f"{number}.npz", content) for number, content in enumerate(contents)]
    limit = 2 * folder_bytes(array_of(from_npz(paths[0], tmp_path)).parent)
    first, second = from_npz(paths[0], tmp_path, limit), from_npz(paths[1], tmp_path, limit)
    with pytest.raises(StoppedEarly, match=r"--cache-limit is 0\.0 GiB; expected 0\.0 GiB .*, or raise --cache-limit"):
        from_npz(paths[2], tmp_path, limit)
    assert (stored(first) == contents[0]["images"]).all()
    kept, given_way = array_of(first), array_of(second)
    del second
    third = from_npz(paths[2], tmp_path, limit)
    assert (kept.exists(), given_way.exists()) == (True, False)
    assert (stored(third) == contents[2]["images"]).all()


def test_decoded_images_and_arrays_share_one_limit(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"images": images(50, 9, 9), "labels": np.arange(50) % 2})
    old = cache_folder.open_or_build(
        Workspace(tmp_path).cache("images"), "old", lambda folder: (folder / "images.npy").write_bytes(bytes(5000))
    )
    old.close()
    array = array_of(from_npz(path, tmp_path, 6000))
    assert array.exists()
    assert [folder.name for folder in Workspace(tmp_path).cache("images").iterdir()] == []


def test_what_a_killed_unpacking_left_is_swept_by_the_next(tmp_path):
    half = Workspace(tmp_path).cache("arrays") / ".key.tmp-1"
    half.mkdir(parents=True)
    (half / cache_folder.LOCK).touch()
    (half / "images.npy").write_bytes(b"half")
    array = array_of(from_npz(write_npz(tmp_path / "a.npz", medmnist()), tmp_path))
    assert [folder.name for folder in half.parent.iterdir()] == [array.parent.name]


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.parent.mkdir(exist_ok=True)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx_folder(folder, form="{}-idx{}-ubyte.gz", num_classes=10, counts=(100, 20)):
    """MNIST's four files; an image holds its label as its first pixel."""
    for kind, count in zip(("train", "t10k"), counts, strict=True):
        pixels, labels = images(count, 28, 28), np.arange(count, dtype=np.uint8) % num_classes
        pixels[:, 0, 0] = labels
        write_idx(folder / form.format(f"{kind}-images", 3), pixels)
        write_idx(folder / form.format(f"{kind}-labels", 1), labels)
    return folder


@pytest.mark.parametrize("form", ["{}-idx{}-ubyte.gz", "{}-idx{}-ubyte", "{}.idx{}-ubyte", "{}.idx{}-ubyte.gz"])
def test_idx_files_in_each_way_of_writing_their_names(tmp_path, form):
    folder = write_idx_folder(tmp_path / "idx", form)
    assert is_idx_folder(folder)
    source = from_idx_folder(folder, tmp_path)
    assert (source.name, source.classes) == ("idx", tuple("0123456789"))
    assert source.splits.tolist() == [0] * 100 + [2] * 20
    assert (source.paths[0], source.paths[100]) == ("train/00000", "test/00000")
    assert (stored(source)[:, 0, 0] == source.labels).all()


def test_idx_files_with_names_for_their_classes_are_sorted_by_name(tmp_path):
    source = from_idx_folder(write_idx_folder(tmp_path / "idx", num_classes=3), tmp_path, names=("dog", "cat", "ant"))
    assert source.classes == ("ant", "cat", "dog")
    assert [source.label_text(index) for index in range(3)] == ["dog", "cat", "ant"]


def test_classes_of_idx_files_that_do_not_occur_are_no_classes(tmp_path):
    source = from_idx_folder(write_idx_folder(tmp_path / "idx", num_classes=2), tmp_path, names=tuple("abcdef"))
    assert source.classes == ("a", "b")


def test_a_folder_that_lacks_an_idx_file_is_none(tmp_path):
    folder = write_idx_folder(tmp_path / "idx")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert not is_idx_folder(folder)
    with pytest.raises(DataError, match=r"found no t10k-labels-idx1-ubyte.*expected the four idx files"):
        from_idx_folder(folder, tmp_path)


def rewritten(change):
    """A way to damage the compressed images of train."""

    def damage(folder):
        path = folder / "train-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))

    return damage


def cut(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewritten(lambda content: content[:-1]), "78399 bytes of data instead of 78400"),
        (rewritten(lambda content: content + b"x"), "more data than its header says"),
        (rewritten(lambda content: b"\0\0\x0b\3" + content[4:]), "it starts with b'\\x00\\x00\\x0b\\x03'"),
        (rewritten(lambda content: content[:9]), "it starts with"),
        (rewritten(lambda content: content[:4] + bytes(4) + content[8:]), "it declares the shape (0, 28, 28)"),
        (cut, "ended before the end-of-stream marker"),
        (lambda folder: write_idx(folder / "train-labels-idx1-ubyte.gz", images(99)), "100 images and 99 labels"),
        (lambda folder: write_idx(folder / "t10k-images-idx3-ubyte.gz", images(20, 9, 9)), "test holds images (9, 9)"),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path, damage, message):
    folder = write_idx_folder(tmp_path / "idx")
    damage(folder)
    with pytest.raises(DataError) as caught:
        from_idx_folder(folder, tmp_path)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not any(path.is_file() for path in (tmp_path / "mlruns").rglob("*"))


def test_a_truncated_idx_file_is_told_what_it_should_be(tmp_path):
    folder = write_idx_folder(tmp_path / "idx")
    rewritten(lambda content: content[:-1])(folder)
    with pytest.raises(DataError, match="expected an idx file of uint8 with 3 axes; fetch the file again"):
        from_idx_folder(folder, tmp_path)


def test_labels_of_another_set_are_refused(tmp_path):
    with pytest.raises(DataError, match="found labels up to 9; expected 0 to 2; these are files of another set"):
        from_idx_folder(write_idx_folder(tmp_path / "idx"), tmp_path, names=tuple("abc"))


def test_idx_files_that_declare_exabytes_are_refused_before_they_are_read(tmp_path):
    folder = write_idx_folder(tmp_path / "idx")
    for kind, count in (("train", 100), ("t10k", 20)):
        sides = b"".join(side.to_bytes(4, "big") for side in (count, 2**31, 2**31))
        (folder / f"{kind}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + sides))
    with pytest.raises(
        DataError, match=r"idx: found images \(120, 2147483648, 2147483648\) of .* expected at most 256"
    ):
        from_idx_folder(folder, tmp_path)
