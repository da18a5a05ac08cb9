"""Tables that are written are read again as the same images, and the memory of splits is whole or refused."""

import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers.registry import open_source
from pipeline.data.source import NOT_GIVEN, Files, Rows, Source
from pipeline.data.splits import manifest
from pipeline.errors import DataError
from pipeline.text import is_formula

PARQUET = pytest.param("parquet", marks=pytest.mark.heavy)  # a child process unpacks it
KINDS = ("csv", "jsonl", PARQUET)
ODD = os.fsdecode(b"a/\xff.png")
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)


def source_of(root, paths, labels=None, **columns):
    numbers = np.arange(len(paths), dtype=np.int32) % 2 if labels is None else labels
    splits = np.full(len(paths), NOT_GIVEN, np.uint8)
    return Source("set", str(root), ("cat", "dog"), paths, numbers, splits, Files(str(root), paths), **columns)


def places(source):
    return [source.storage.location(row).path for row in range(len(source))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_read_again_as_the_same_images(tmp_path, kind):
    paths = ["a/1.png", "b/ü, 'quoted' \"2\".png", ODD, "/elsewhere/4.png", "https://host/5.png"]
    source = source_of(
        tmp_path / "set", paths, groups=["x", "", "x", "y", "y"], weights=np.arange(5, dtype=np.float32),
        slices={"camera": list("lrlrl")},
    )  # fmt: skip
    splits = np.array([0, 0, 1, 2, 2], np.uint8)
    splits[1] = 2
    rows = np.array([0, 1, 2, 3, 4])
    source.labels[:] = [0, 1, 0, 1, 0]
    splits[:] = [0, 0, 1, 2, 2]
    manifest.write_manifest(tmp_path / f"table.{kind}", source, rows, splits, np.zeros((5, 32), np.uint8))
    again = open_source(str(tmp_path / f"table.{kind}"), tmp_path)
    assert places(again) == places(source)
    assert [again.label_text(row) for row in range(5)] == ["cat", "dog", "cat", "dog", "cat"]
    assert again.splits.tolist() == [0, 0, 1, 2, 2]
    assert list(again.groups) == ["x", "", "x", "y", "y"]
    assert again.weights.tolist() == [0, 1, 2, 3, 4]
    assert list(again.slices["camera"]) == list("lrlrl")
    assert list(again.slices["sha256"]) == ["0" * 64] * 5
    assert again.paths[0] == "set/a/1.png"  # relative to the table


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_survive(tmp_path, kind):
    labels = np.array([[1, 1], [0, 1], [1, 0]], np.uint8)
    manifest.write_manifest(tmp_path / f"t.{kind}", source_of(tmp_path, ["1", "2", "3"], labels), np.arange(3))
    assert open_source(str(tmp_path / f"t.{kind}"), tmp_path).labels.tolist() == labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(st.lists(NAMES, min_size=2, unique=True))
def test_any_name_survives(tmp_path_factory, kind, names):
    folder = tmp_path_factory.mktemp("any")
    paths = [f"x{name}/y{name}" for name in names]
    source = source_of(folder, paths)
    if kind == "csv" and any(map(is_formula, paths)):
        with pytest.raises(DataError, match="a spreadsheet would run"):
            manifest.write_manifest(folder / "t.csv", source, np.arange(len(paths)))
        return
    manifest.write_manifest(folder / f"t.{kind}", source, np.arange(len(paths)))
    again = open_source(str(folder / f"t.{kind}"), folder)
    assert [os.path.normpath(place) for place in places(again)] == [os.path.normpath(place) for place in places(source)]


def test_rows_can_be_left_out_and_a_split_that_is_not_whole_is_not_written(tmp_path):
    source = source_of(tmp_path, ["1", "2", "3", "4"])
    manifest.write_manifest(tmp_path / "t.csv", source, np.array([1, 2]), np.array([0, 0, NOT_GIVEN, 0], np.uint8))
    assert (tmp_path / "t.csv").read_text().splitlines() == ["path,label", "2,dog", "3,cat"]


@pytest.mark.parametrize("name", ["[1]", '["a", "b"]', "[]"])
def test_a_class_that_a_csv_would_change_is_refused(tmp_path, name):
    source = replace(source_of(tmp_path, ["1", "2"]), classes=(name, "dog"))
    with pytest.raises(
        DataError, match=r"t\.csv: the class .* would be read as a list of labels; .*write \.jsonl or \.parquet"
    ):
        manifest.write_manifest(tmp_path / "t.csv", source, np.arange(2))
    assert not (tmp_path / "t.csv").exists()
    manifest.write_manifest(tmp_path / "t.jsonl", source, np.arange(2))
    again = open_source(str(tmp_path / "t.jsonl"), tmp_path)
    assert [again.label_text(row) for row in (0, 1)] == [name, "dog"]


def formulas(tmp_path, text):
    """Return sources that hold a text as class, group, name of a column, cell, and label among several."""
    rest = ["1", "2"]
    several = np.array([[1, 1], [0, 1]], np.uint8)
    return {
        "label": replace(source_of(tmp_path, rest), classes=("a", text), labels=np.array([0, 1], np.int32)),
        "group": source_of(tmp_path, rest, groups=["a", text]),
        "header": source_of(tmp_path, rest, slices={text: ["a", "b"]}),
        "site": source_of(tmp_path, rest, slices={"site": ["a", text]}),
        "labels": replace(source_of(tmp_path, rest, several), classes=("a", text)),
    }


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "-x", " =x", "\uff1dx", "a;=x", "a\n=x", "\tx"], ids=ascii)
@pytest.mark.parametrize("place", ["label", "group", "header", "site"])
def test_a_formula_is_refused_in_a_csv_wherever_it_stands(tmp_path, place, text):
    where = "the header" if place == "header" else "row 2"
    with pytest.raises(DataError) as caught:
        manifest.write_manifest(tmp_path / "t.csv", formulas(tmp_path, text)[place], np.arange(2))
    assert str(caught.value).startswith(f"{tmp_path}/t.csv, {where}, column ")
    assert " as a formula; a .csv cannot hold that safely; write .jsonl" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["jsonl", PARQUET])
@pytest.mark.parametrize("place", ["label", "group", "header", "site", "labels"])
def test_the_other_tables_keep_formulas_as_they_are(tmp_path, place, kind):
    source = formulas(tmp_path, "=1+1")[place]
    manifest.write_manifest(tmp_path / f"t.{kind}", source, np.arange(2))
    again = open_source(str(tmp_path / f"t.{kind}"), tmp_path)
    labels = [[set(read.label_text(row).split("|")) for row in (0, 1)] for read in (again, source)]
    assert labels[0] == labels[1]
    assert (again.groups, again.slices) == (source.groups, source.slices)


def test_labels_in_a_list_are_no_formulas_unless_a_cell_begins_within(tmp_path):
    for name, text in (("t.csv", "=1+1"), ("u.csv", "-x")):
        manifest.write_manifest(tmp_path / name, formulas(tmp_path, text)["labels"], np.arange(2))
        assert open_source(str(tmp_path / name), tmp_path).classes == (text, "a")
    with pytest.raises(DataError, match=r"row 1, column label: a spreadsheet would run"):
        manifest.write_manifest(tmp_path / "v.csv", formulas(tmp_path, "x;=1")["labels"], np.arange(2))


def test_the_record_of_a_study_holds_no_secret_of_a_url(tmp_path):
    urls = [f"https://me:PASSWORD@host/{number}.png?sig=SECRET" for number in range(2)]
    source = replace(source_of(tmp_path, ["1", "2"]), storage=Files("", urls))
    manifest.write_record(tmp_path / "split.parquet", source, np.zeros(2, np.uint8), np.zeros((2, 32), np.uint8))
    paths = manifest.read_paths(tmp_path / "split.parquet")
    assert [path.partition("?")[0] for path in paths] == ["https://host/0.png", "https://host/1.png"]
    content = (tmp_path / "split.parquet").read_bytes()
    assert b"PASSWORD" not in content
    assert b"SECRET" not in content


def test_a_name_that_a_spreadsheet_would_run_is_written_as_a_path(tmp_path):
    source = source_of(tmp_path, ["=cmd|x!A0.png", "-1", "@/a.png", "b/=a.png"])
    manifest.write_manifest(tmp_path / "t.csv", source, np.arange(4))
    assert [line.rpartition(",")[0] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]] == [
        "./=cmd|x!A0.png", "-1", "./@/a.png", "b/=a.png",
    ]  # fmt: skip


@pytest.mark.heavy
def test_labels_that_begin_with_many_empty_lists_are_still_lists_of_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "BATCH", 2)
    labels = np.array([[0, 0], [0, 0], [1, 0], [1, 1]], np.uint8)
    manifest.write_manifest(tmp_path / "t.parquet", source_of(tmp_path, list("1234"), labels), np.arange(4))
    assert open_source(str(tmp_path / "t.parquet"), tmp_path).labels.tolist() == labels.tolist()


def test_an_unknown_ending_and_images_without_files_are_refused(tmp_path):
    source = source_of(tmp_path, ["1", "2"])
    with pytest.raises(DataError, match=r"t\.txt: expected a name that ends with \.csv"):
        manifest.write_manifest(tmp_path / "t.txt", source, np.arange(2))
    rows = Source("set", "x.npz", source.classes, ["1", "2"], source.labels, source.splits, Rows("x.npy"))
    with pytest.raises(DataError, match="no files of their own"):
        manifest.write_manifest(tmp_path / "t.csv", rows, np.arange(2))


def test_the_memory_knows_what_it_was_told(tmp_path):
    digests = np.random.default_rng(0).integers(0, 256, (500, 32), dtype=np.uint8)
    splits = (np.arange(400) % 3).astype(np.uint8)
    manifest.write_known(tmp_path / "known.npz", digests[:400], splits)
    found = manifest.read_known(tmp_path / "known.npz", digests[::-1])
    assert found[::-1][:400].tolist() == splits.tolist()
    assert (found[::-1][400:] == NOT_GIVEN).all()


def test_the_memory_keeps_what_is_away_and_takes_what_is_new(tmp_path):
    digests = np.random.default_rng(0).integers(0, 256, (6, 32), dtype=np.uint8)
    manifest.write_known(tmp_path / "known.npz", digests[:4], np.array([0, 1, 2, 0], np.uint8))
    manifest.write_known(tmp_path / "known.npz", digests[2:], np.array([0, 0, 1, 2], np.uint8))
    assert manifest.read_known(tmp_path / "known.npz", digests).tolist() == [0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"PK", b"no memory"])
def test_a_damaged_memory_is_named(tmp_path, content):
    (tmp_path / "known.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"known\.npz: cannot be read.*remove it"):
        manifest.read_known(tmp_path / "known.npz", np.zeros((1, 32), np.uint8))


@pytest.mark.parametrize(
    ("digests", "splits"),
    [
        (np.zeros((3, 32), np.uint8), np.zeros(2, np.uint8)),
        (np.zeros((3, 31), np.uint8), np.zeros(3, np.uint8)),
        (np.zeros((3, 32), np.int8), np.zeros(3, np.uint8)),
        (np.zeros((3, 32), np.uint8), np.zeros(3)),
        (np.zeros((1, 32), np.uint8), np.uint8(0)),
        (np.zeros((1, 32), np.uint8), np.full(1, 3, np.uint8)),
        (np.zeros((1, 32), np.uint8), np.full(1, 255, np.uint8)),
    ],
)
def test_a_memory_of_odd_arrays_is_named(tmp_path, digests, splits):
    np.savez(tmp_path / "known.npz", digests=digests, splits=splits)
    with pytest.raises(DataError, match=r"known\.npz: cannot be read \(found .*remove it"):
        manifest.load_known(tmp_path / "known.npz")


def test_a_memory_that_is_one_array_or_claims_terabytes_is_named(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    claims = (
        b"\x93NUMPY\1\0v\0"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("digests.npy", claims)
    for name in ("one.npy", "claims.npz"):
        with pytest.raises(DataError, match=r"cannot be read.*remove it"):
            manifest.load_known(tmp_path / name)


def test_a_cut_memory_is_named(tmp_path):
    manifest.write_known(tmp_path / "known.npz", np.zeros((9, 32), np.uint8), np.zeros(9, np.uint8))
    whole = (tmp_path / "known.npz").read_bytes()
    (tmp_path / "known.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        manifest.read_known(tmp_path / "known.npz", np.zeros((1, 32), np.uint8))
