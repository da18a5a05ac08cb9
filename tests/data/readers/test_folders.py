"""Folders of classes and splits: every file below them is counted once, as a row or as left out with its reason."""

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers.folders import from_folder, odd_name
from pipeline.data.source import NOT_GIVEN
from pipeline.errors import DataError


def write_files(root, *names):
    """Write empty files below `root`; names that end in / become folders."""
    for name in names:
        path = Path(root, name)
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return Path(root)


def read(root):
    return from_folder(Path(root), "set", "set")


def left_out(source):
    return {finding.path: finding.code for finding in source.left_out}


def labels_by_path(source):
    return {path: source.label_text(index) for index, path in enumerate(source.paths)}


def test_sub_folders_are_classes_in_a_fixed_order(tmp_path):
    source = read(write_files(tmp_path, "dog/b.png", "dog/a.png", "cat/x.png", "cat/more/y.png", "cat/a.txt"))
    assert source.classes == ("cat", "dog")
    assert source.paths == ["cat/a.txt", "cat/x.png", "cat/more/y.png", "dog/a.png", "dog/b.png"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.labels.dtype == np.int32
    assert set(source.splits.tolist()) == {NOT_GIVEN}
    assert source.storage.location(2).path == str(tmp_path / "cat/more/y.png")
    assert source.left_out == ()


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folders_called_like_splits_are_splits(tmp_path, val):
    source = read(write_files(tmp_path, "train/a/1", "train/b/1", f"{val}/a/1", "test/b/1", "test/b/2"))
    assert source.classes == ("a", "b")
    numbers = {"train": 0, val: 1, "test": 2}
    assert [numbers[path.split("/")[0]] for path in source.paths] == source.splits.tolist()
    assert sorted(source.splits.tolist()) == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("names", [("test/1", "other/1"), ("bus/1", "train/1", "car/1")])
def test_a_class_may_be_called_like_a_split(tmp_path, names):
    source = read(write_files(tmp_path, *names))
    assert source.classes == tuple(sorted(name.split("/")[0] for name in names))
    assert set(source.splits.tolist()) == {NOT_GIVEN}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "set: found no files in sub-folders; expected set/CLASS/image.jpg"),
        (("a.png",), "found no files in sub-folders"),
        (("a/", "b/"), "found no files in sub-folders"),
        (("a/.hidden", ".b/1"), "found no files in sub-folders"),
        (("test/a/1", "test/b/1"), "found test; expected train/, [val/] and test/ and no other folder"),
        (("train/a/1", "test/a/1", "unlabelled/"), "found unlabelled beside test, train; expected train/"),
        (
            ("train/a/1", "train/b/1", "test/1.png"),
            "set/test: found no files in sub-folders; expected a sub-folder per",
        ),
    ],
)
def test_a_folder_without_a_known_layout_is_refused(tmp_path, names, message):
    write_files(tmp_path / "set", "../other", *names)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "set")
    assert message in str(caught.value)


def test_files_outside_classes_and_hidden_ones_are_left_out_with_their_reason(tmp_path):
    names = ["README.txt", ".DS_Store", "a/1.png", "a/._1.png", "a/.cache/deep/2.png", "__MACOSX/a/1.png", "b/1.png"]
    source = read(write_files(tmp_path, *names))
    assert source.paths == ["a/1.png", "b/1.png"]
    assert left_out(source) == {
        "README.txt": "no_label",
        ".DS_Store": "hidden",
        "a/._1.png": "hidden",
        "a/.cache/deep/2.png": "hidden",
        "__MACOSX/a/1.png": "hidden",
    }


def test_files_beside_the_classes_of_a_split_have_no_label(tmp_path):
    source = read(write_files(tmp_path, "train/a/1", "train/b/1", "train/list.csv", "test/a/1", "LICENSE"))
    assert left_out(source) == {"train/list.csv": "no_label", "LICENSE": "no_label"}


def test_pipes_and_sockets_are_named_and_never_opened(tmp_path, monkeypatch):
    write_files(tmp_path, "a/1", "b/1")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "link.jpg").symlink_to("pipe.jpg")
    monkeypatch.chdir(tmp_path / "a")  # the path of a socket may have at most 108 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        source = read(tmp_path)
    assert left_out(source) == dict.fromkeys(("a/link.jpg", "a/pipe.jpg", "a/socket.jpg"), "not_regular")
    assert source.paths == ["a/1", "b/1"]


def test_links_that_lead_nowhere_or_in_circles_are_named(tmp_path):
    write_files(tmp_path, "a/1", "b/1")
    for name, target in {
        "a/dangling": "nothing",
        "a/through-file": "1/x",
        "a/itself": "itself",
        "a/again": ".",
        "b/up": "../..",
        "b/twice": "../a",
    }.items():
        (tmp_path / name).symlink_to(target)
    source = read(tmp_path)
    assert source.paths == ["a/1", "b/1"]
    assert left_out(source) == {
        "a/dangling": "missing",
        "a/through-file": "missing",
        "a/itself": "link_loop",
        "a/again": "link_loop",
        "b/up": "link_loop",
        "b/twice": "link_loop",
    }


def test_links_to_files_are_files_and_links_to_folders_are_followed_once(tmp_path):
    store = write_files(tmp_path / "store", "cats/1", "cats/deep/2", "dogs/1")
    root = write_files(tmp_path / "set", "dog/")
    (root / "cat").symlink_to(store / "cats")
    (root / "dog" / "linked").symlink_to(store / "dogs" / "1")
    (root / "kitten").symlink_to(store / "cats")
    source = read(root)
    assert labels_by_path(source) == {"cat/1": "cat", "cat/deep/2": "cat", "dog/linked": "dog"}
    assert left_out(source) == {"kitten": "link_loop"}


def test_a_link_into_a_hidden_folder_shows_what_is_there(tmp_path):
    write_files(tmp_path, ".store/v1/1", ".store/v1/2", ".store/v0/1", "dog/1")
    (tmp_path / "cat").symlink_to(".store/v1")
    source = read(tmp_path)
    assert labels_by_path(source) == {"dog/1": "dog", "cat/1": "cat", "cat/2": "cat"}
    assert left_out(source) == {".store/v0/1": "hidden"}


def test_what_a_search_leaves_in_its_workspace_is_not_counted(tmp_path):
    names = ["a/1", "b/1", "mlruns/studies/x/study.db", "mlflow.db", "mlflow.db-wal", "a/mlruns/2"]
    source = read(write_files(tmp_path, *names))
    assert source.classes == ("a", "b")
    assert source.paths == ["a/1", "a/mlruns/2", "b/1"]
    assert source.left_out == ()


def test_empty_class_folders_are_named(tmp_path):
    source = read(write_files(tmp_path, "train/a/1", "train/b/1", "train/c/", "test/a/1", "test/b/", "test/d/.x"))
    assert source.empty_classes == ("c", "d")
    assert source.class_counts() == {"a": 2, "b": 1, "c": 0, "d": 0}


def test_two_spellings_of_one_class_name_merge_and_other_cases_stay(tmp_path):
    source = read(write_files(tmp_path, "caf\u00e9/1", "cafe\u0301/2", "Dog/1", "dog/1"))
    assert source.classes == ("Dog", "caf\u00e9", "dog")
    assert source.class_counts()["caf\u00e9"] == 2


def test_a_class_name_that_is_not_utf8_becomes_visible_and_its_files_stay_readable(tmp_path):
    write_files(tmp_path, "a/1", "b/1")
    (tmp_path / "b").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    source = read(tmp_path)
    assert source.classes == ("a", "caf\\udce9")
    assert Path(source.storage.location(1).path).exists()


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    write_files(tmp_path, "a/1", "b/1")
    folder = os.open(tmp_path / "a", os.O_RDONLY)
    try:  # names of 255 bytes until the path is longer than the 4,096 bytes that the system reads; also root is stopped
        for _ in range(20):
            os.mkdir("d" * 255, dir_fd=folder)
            inner = os.open("d" * 255, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
    finally:
        os.close(folder)
    source = read(tmp_path)
    assert source.paths == ["a/1", "b/1"]
    (finding,) = source.left_out
    assert (finding.code, finding.detail) == ("unreadable", "File name too long")


def test_a_root_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: Not a directory; expected a folder that can be read"):
        read(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat/photo 1.jpg", None),
        ("caf\u00e9/\u732b.jpg", None),
        ("non\u00a0breaking.jpg", None),
        ("caf\udce9.jpg", "not UTF-8"),
        ("a\x1b[31m.jpg", "holds the control character U+001B"),
        ("two\nlines.jpg", "holds the control character U+000A"),
        ("zero\u200bwidth.jpg", "holds the control character U+200B"),
        ("photo\u202egpj.exe", "holds the bidirectional character U+202E"),
        ("\u2066x", "holds the bidirectional character U+2066"),
    ],
)
def test_names_that_mislead_are_told_with_their_reason(name, reason):
    assert odd_name(name) == reason


NAMES = st.sampled_from(["a", "b", "c.jpg", ".h", "__MACOSX", "train", "test", "d\u00e9", "\udcff", "e\n"])
ENTRIES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from(["file", "file", "folder", "link", "pipe"])),
    max_size=12,
)


def grow(root, entries):
    """Write a tree; what does not fit (a file where a folder is) is left away. Links lead to the entry before."""
    target = "nowhere"
    for parts, kind in entries:
        path = Path(root, *parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.touch()
            elif kind == "folder":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(target)
            else:
                os.mkfifo(path)
        except OSError:
            continue
        target = str(path)


@settings(max_examples=50, deadline=None)
@given(ENTRIES)
def test_every_file_is_counted_exactly_once(entries):
    with tempfile.TemporaryDirectory() as root:
        write_files(root, "a/always", "b/always")
        grow(root, entries)
        on_disk = {os.path.relpath(Path(top, name), root) for top, _, names in os.walk(root) for name in names}
        folder_links = {
            os.path.relpath(Path(top, name), root)
            for top, folders, _ in os.walk(root)
            for name in folders
            if Path(top, name).is_symlink()
        }
        try:
            source = read(root)
        except DataError:
            return  # train/ or test/ without classes: nothing is counted
        counted = [*source.paths, *(finding.path for finding in source.left_out)]
        assert len(counted) == len(set(counted))
        places = [Path(os.path.realpath(Path(root, path).parent), Path(path).name) for path in counted]
        real = {os.path.relpath(place, os.path.realpath(root)) for place in places}
        assert len(real) == len(counted)
        assert on_disk <= real
        assert real - on_disk <= folder_links
