"""What DATA may be, and what is said when it is not."""

import gzip
import json
import os

import numpy as np
import pandas
import pytest

from pipeline.data import builtin
from pipeline.data.sources import open_source
from pipeline.errors import DataError
from tests.data.pictures import write_classes, write_picture


def test_a_folder_with_a_sub_folder_per_class(tmp_path):
    write_classes(tmp_path / "photos", {"cat": 3, "dog": 4})
    (tmp_path / "photos" / ".hidden").mkdir()
    (tmp_path / "photos" / "cat" / ".DS_Store").write_bytes(b"x")
    source = open_source(str(tmp_path / "photos"), tmp_path)
    assert (source.name, source.classes) == ("photos", ("cat", "dog"))
    assert [example.label for example in source.examples] == ["cat"] * 3 + ["dog"] * 4
    assert {example.split for example in source.examples} == {""}
    assert source.examples[0].path == "cat/000.png"


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_with_given_splits(tmp_path, val):
    for split, count in (("train", 4), (val, 2), ("test", 3)):
        write_classes(tmp_path / "set" / split, {"a": count, "b": count})
    splits = [example.split for example in open_source(str(tmp_path / "set"), tmp_path).examples]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (8, 4, 6)


def test_a_class_may_be_called_test(tmp_path):
    write_classes(tmp_path / "set", {"test": 3, "other": 3})
    assert open_source(str(tmp_path / "set"), tmp_path).classes == ("other", "test")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_of_paths_and_labels(tmp_path, kind):
    rows = [
        {"path": f"p{index}.png", "label": index % 2, "split": ["train", "test"][index // 4 % 2]} for index in range(12)
    ]
    path = tmp_path / f"set.{kind}"
    if kind == "csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pandas.DataFrame(rows).to_parquet(path)
    source = open_source(str(path), tmp_path)
    assert source.classes == ("0", "1")
    assert source.root == str(tmp_path)
    assert [example.split for example in source.examples].count("test") == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "found no rows"),
        ("file,label\na.png,x\n", "row 1: found ['file', 'label'] with no path"),
        ("path,label\na.png,\n", "with no label"),
        ("file,label\na,b.png,x\n", "with no path"),
        ("path,label,split\na.png,x,tset\n", "split is 'tset'; expected one of train, val, test"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "1 of 2 rows have no split"),
        ("path,label\na.png,x\nb.png,x\n", "found 1 class (x); expected at least 2"),
        ("path,label,split\na.png,x,train\nb.png,y,test\n", "no training images of y"),
    ],
)
def test_a_bad_table_is_refused_with_its_row(tmp_path, text, message):
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path / "set.csv"), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", "3"])
def test_a_table_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "set.jsonl").write_text(text)
    with pytest.raises(DataError, match="cannot be read as jsonl"):
        open_source(str(tmp_path / "set.jsonl"), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "found nothing; expected a built-in set (digits, fashion-mnist), a folder"),
        (lambda root: root.mkdir(), "found no files in sub-folders"),
        (lambda root: write_picture(root / "a.png", 9), "found no files in sub-folders"),
        (lambda root: write_classes(root, {"only": 3}), "found 1 class (only)"),
        (lambda root: write_classes(root / "test", {"a": 3, "b": 3}), "found test; expected train/, [val/] and test/"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, make, message):
    make(tmp_path / "set")
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path / "set"), tmp_path)
    assert message in str(caught.value)


def test_a_folder_beside_the_splits_is_refused_by_name(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / "set" / split, {"a": 3, "b": 3})
    (tmp_path / "set" / "unlabelled").mkdir()
    with pytest.raises(DataError, match="found unlabelled beside test, train; expected train/"):
        open_source(str(tmp_path / "set"), tmp_path)


def test_a_split_without_class_folders_is_refused(tmp_path):
    write_classes(tmp_path / "set" / "train", {"a": 3, "b": 3})
    write_picture(tmp_path / "set" / "test" / "1.png", 50)
    with pytest.raises(DataError, match="test: found no files in sub-folders; expected a sub-folder per class"):
        open_source(str(tmp_path / "set"), tmp_path)


def test_the_studies_of_the_workspace_are_no_class(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3, "mlruns": 3})
    assert open_source(str(tmp_path), tmp_path).classes == ("a", "b")


def test_a_class_name_that_is_not_utf8_becomes_visible(tmp_path):
    write_classes(tmp_path / "set", {"a": 3, "b": 3})
    (tmp_path / "set" / "b").rename(os.fsdecode(os.fsencode(tmp_path / "set") + b"/caf\xe9"))
    assert open_source(str(tmp_path / "set"), tmp_path).classes == ("a", "caf\\udce9")


def test_a_loop_of_links_ends(tmp_path):
    write_classes(tmp_path / "set", {"a": 3, "b": 3})
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set" / "a")
    assert len(open_source(str(tmp_path / "set"), tmp_path).examples) == 6


def write_idx(folder, name, array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def idx_folder(tmp_path):
    """A folder with ten images of each class to train and two to test, in Fashion-MNIST's files."""
    rng = np.random.default_rng(0)
    for kind, count in (("train", 100), ("t10k", 20)):
        write_idx(tmp_path / "idx", f"{kind}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / "idx", f"{kind}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path / "idx"


def test_fashion_mnist_from_a_folder_of_idx_files(tmp_path, idx_folder):
    source = open_source("fashion-mnist", tmp_path, str(idx_folder))
    assert source.arrays.shape == (120, 28, 28)
    assert source.examples[0].label == "t-shirt"
    assert source.examples[9].label == "ankle-boot"
    assert [example.split for example in source.examples].count("test") == 20


def test_fashion_mnist_offline_names_all_three_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "FASHION_DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(builtin, "FASHION_URL", "http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(DataError) as caught:
        open_source("fashion-mnist", tmp_path)
    for way in (
        "http://127.0.0.1:9/train-images-idx3-ubyte.gz",
        "--source FOLDER",
        "apt-get install dataset-fashion-mnist",
    ):
        assert way in str(caught.value)
    assert list((tmp_path / "data" / "fashion-mnist").iterdir()) == []


def test_a_source_without_the_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="found no train-images-idx3-ubyte"):
        open_source("fashion-mnist", tmp_path, str(tmp_path))


def test_a_truncated_idx_file_is_refused(tmp_path, idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(DataError, match="expected an idx file of uint8 with 3 axes"):
        open_source("fashion-mnist", tmp_path, str(idx_folder))


def test_a_download_with_the_wrong_bytes_is_refused():
    with pytest.raises(DataError, match=r"expected 0{64}; fetch the file again"):
        builtin.check_sha256(b"x", "0" * 64, "here")
