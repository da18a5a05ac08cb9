"""Tables of paths and labels: every column arrives as it is written, and a bad cell is refused with its row."""

import csv
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers import tables
from pipeline.data.readers.folders import class_name
from pipeline.data.readers.tables import from_table
from pipeline.data.source import NOT_GIVEN
from pipeline.errors import DataError

KINDS = ("csv", "jsonl", pytest.param("parquet", marks=pytest.mark.heavy))


def write_table(path, rows):
    """Write rows, dictionaries of text, as the ending of `path` says."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read_csv(tmp_path, text):
    path = tmp_path / "photos.csv"
    path.write_text(text, encoding="utf-8")
    return from_table(path, "photos")


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_arrives(tmp_path, kind):
    rows = [
        {"path": "b.png", "label": "dog", "split": "train", "group": "p1", "weight": "2", "site": "north"},
        {"path": "/all/a.png", "label": "cat", "split": "Validation", "group": "", "weight": "0.5", "site": ""},
        {"path": "s3://bucket/c.png", "label": "dog", "split": "test", "group": "p1", "weight": "0", "site": "south"},
    ]
    source = from_table(write_table(tmp_path / f"set.{kind}", rows), "photos")
    assert (source.name, source.origin) == ("photos", str(tmp_path / f"set.{kind}"))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.labels.dtype == np.int32
    assert source.splits.tolist() == [0, 1, 2]
    assert source.groups == ["p1", "", "p1"]
    assert source.weights.tolist() == [2.0, 0.5, 0.0]
    assert source.slices == {"site": ["north", "", "south"]}
    places = [source.storage.location(row).path for row in range(3)]
    assert places == [str(tmp_path / "b.png"), "/all/a.png", "s3://bucket/c.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_are_not_there_are_not_made_up(tmp_path, kind):
    source = from_table(write_table(tmp_path / f"set.{kind}", [{"path": "a", "label": "x"}]), "photos")
    assert (source.groups, source.weights, source.slices) == (None, None, {})
    assert source.splits.tolist() == [NOT_GIVEN]


@pytest.mark.heavy
def test_numbers_are_texts_as_labels_groups_and_slices(tmp_path):
    rows = [{"path": f"{n}.png", "label": n % 2, "group": n, "weight": 1.5, "age": n + 0.5} for n in range(3)]
    source = from_table(write_table(tmp_path / "set.parquet", rows), "photos")
    assert (source.classes, source.groups) == (("0", "1"), ["0", "1", "2"])
    assert source.slices == {"age": ["0.5", "1.5", "2.5"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_labels_makes_the_set_multi_label(tmp_path, kind):
    labels = [["dog", "cat"], [], ["cat", "cat"]]
    cells = [json.dumps(label) for label in labels] if kind == "csv" else labels
    rows = [{"path": f"{number}.png", "label": cell} for number, cell in enumerate(cells)]
    source = from_table(write_table(tmp_path / f"set.{kind}", rows), "photos")
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert source.labels.dtype == np.uint8
    assert source.class_counts() == {"cat": 2, "dog": 1}


def test_a_plain_label_among_lists_counts_as_a_list_of_one(tmp_path):
    source = read_csv(tmp_path, 'path,label\na,cat\nb,"[""dog"", 7]"\nc,[not json]\n')
    assert source.classes == ("7", "[not json]", "cat", "dog")
    assert source.labels.tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]]


def test_deep_brackets_are_text_in_a_csv_and_refused_in_json(tmp_path):
    deep = "[" * 50_000 + "]" * 50_000
    assert read_csv(tmp_path, f"path,label\na,{deep}\n").classes == (deep,)
    (tmp_path / "set.jsonl").write_text(f'{{"path": "a", "label": {deep}}}')
    with pytest.raises(DataError, match="row 1: cannot be read as jsonl"):
        from_table(tmp_path / "set.jsonl", "photos")


def test_rows_of_jsonl_may_lack_what_others_have(tmp_path):
    rows = [{"path": "a", "label": "x"}, {"path": "b", "label": "x", "site": "n", "group": "g"}]
    source = from_table(
        write_table(tmp_path / "set.jsonl", [*rows, {"path": "c", "label": "x", "age": None}]), "photos"
    )
    assert source.slices == {"site": ["", "n", ""], "age": ["", "", ""]}
    assert source.groups == ["", "g", ""]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_lists_objects_and_bytes_are_no_slices(tmp_path, kind):
    row = {"path": "a", "label": "x", "box": [1, 2], "camera": {"id": 3}}
    extra = {"thumb": b"\x00\xff"} if kind == "parquet" else {}
    assert from_table(write_table(tmp_path / f"set.{kind}", [row | extra]), "photos").slices == {}


def test_paths_are_taken_as_they_are(tmp_path):
    source = read_csv(tmp_path, "path,label\n'=1+1.png,x\n a b.png ,x\n'@x.png,x\n")
    assert source.paths == ["'=1+1.png", " a b.png ", "'@x.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_not_utf8_lead_to_their_files(tmp_path, kind):
    name = b"caf\xe9.png"
    path = tmp_path / f"set.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"path": [name], "label": [b"\xe9t\xe9"]}), path)
    elif kind == "csv":
        path.write_bytes(b"path,label\n" + name + b",\xe9t\xe9\n")
    else:
        path.write_bytes(b'{"path": "' + name + b'", "label": "\xe9t\xe9"}\n')
    source = from_table(path, "photos")
    assert os.fsencode(source.paths[0]) == name
    assert source.classes == ("\\udce9t\\udce9",)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, kind):
    path = write_table(tmp_path / f"set.{kind}", [{"path": "a", "label": "x"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert from_table(path, "photos").paths == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no rows; expected one row per image with the columns path,label"),
        ("path,label\n", "found no rows"),
        (
            "path;label\na.png;x\n",
            "row 1: cannot be read as csv: its columns are separated by ';'; save it with commas",
        ),
        ("path\tlabel\na.png\tx\n", "its columns are separated by '\\t'"),
        ("p\0a\0t\0h\0,\0", "row 1: cannot be read as csv: it is not UTF-8 text (perhaps UTF-16, or not text at all)"),
        ("file,label\na.png,x\n", "row 1: found ['file', 'label'] with no path; expected the columns path,label"),
        ("path,kind\na.png,x\n", "row 1: found ['kind', 'path'] with no label"),
        ("path,label\na.png,x\nb.png\n", "row 2: found ['path'] with no label"),
        ("path,label\na.png,x\n,x\n", "row 2: found ['label'] with no path"),
        ("path,label\na.png,\n", "row 1: found ['path'] with no label"),
        ('path,label\na.png,"["""", ""x""]"\n', "row 1: label is ['', 'x']; expected a text, or a list of texts"),
        ("path,label\na.png,[[1]]\n", "row 1: label is [[1]]; expected a text"),
        ("path,label\na,b.png,x\n", "row 1: cannot be read as csv: 3 cells under 2 columns"),
        ('path,label\na.png,x\n"b.png,x\n', "row 2: cannot be read as csv: unexpected end of data"),
        ("path,label,label\na.png,x,y\n", "row 1: cannot be read as csv: the column 'label' occurs 2 times"),
        ("path,label\na\0b.png,x\n", "row 1: path is 'a\\x00b.png', with a NUL in it"),
        ("path,label,split\na.png,x,tset\n", "row 1: split is 'tset'; expected one of train, val, test or nothing"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "1 of 2 rows have no split; expected a split in every row or"),
        ("path,label,weight\na.png,x,1\nb.png,y,\n", "1 of 2 rows have no weight"),
        ("path,label,weight\na.png,x,heavy\n", "row 1: weight is 'heavy'; expected a number of 0 or more"),
        ("path,label,weight\na.png,x,1\nb.png,x,-0.1\n", "row 2: weight is '-0.1'"),
        ("path,label,weight\na.png,x,nan\n", "row 1: weight is 'nan'"),
        ("path,label,weight\na.png,x,1e39\n", "row 1: weight is '1e39'"),
        ("path,label,weight\na.png,x,0\nb.png,y,1e-60\n", "found no weight above 0"),
        (
            "path,label\na.png,x\nb.png,x\na.png,y\n",
            "rows 1 and 3: both have the path a.png; expected one row per image",
        ),
        ("path,label,a\nx,y," + "z" * 200_000, "row 1: cannot be read as csv: field larger than field limit"),
        (
            "path,label,a\nx,y," + "z" * 2_000_000,
            "row 1: cannot be read as csv: a line has more than 1,048,576 characters",
        ),
        ("path,label," + ",".join(f"c{n}" for n in range(1001)) + "\na,x" + "," * 1001, "found more than 1000 columns"),
    ],
)
def test_a_bad_table_is_refused_with_its_row(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        read_csv(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/photos.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{broken", "row 1: cannot be read as jsonl"),
        ('{"path": "a", "label": "x"}\n\n[1, 2]\n', "row 2: cannot be read as jsonl: '[1, 2]' is not an object"),
        ('{"path": 5, "label": "x"}', "row 1: path is 5; expected the name of a file"),
        ('{"path": "\\ud800", "label": "x"}', "row 1: path is '\\ud800'; expected the name of a file"),
        ('{"path": "a", "label": null}', "row 1: found ['path'] with no label"),
        ('{"path": "a", "label": NaN}', "with no label"),
        ('{"path": "a", "label": {"x": 1}}', "row 1: label is {'x': 1}"),
        ('{"path": "a", "label": "x", "weight": [1]}', "row 1: weight is [1]"),
    ],
)
def test_a_bad_jsonl_is_refused_with_its_row(tmp_path, text, message):
    (tmp_path / "set.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        from_table(tmp_path / "set.jsonl", "photos")
    assert message in str(caught.value)


@pytest.mark.heavy
def test_a_damaged_parquet_is_refused(tmp_path):
    path = write_table(tmp_path / "set.parquet", [{"path": "a", "label": "x"}])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"set\.parquet, row 1: cannot be read as parquet"):
        from_table(path, "photos")


def test_a_row_of_quoted_lines_without_an_end_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 2: cannot be read as csv: a row has more than 1,048,576 characters"):
        read_csv(tmp_path, "path,label\na,x\nb,y," + '"\n",' * 300_000)


def test_many_short_rows_may_be_longer_than_one(tmp_path):
    cells = "z" * 100_000
    rows = [f"{number},x,{cells}" for number in range(11)]
    assert len(read_csv(tmp_path, "\n".join(["path,label,site", *rows]))) == 11


@pytest.mark.parametrize(
    "rows",
    [
        [{"path": f"{number}" * 50, "label": "x"} for number in range(1000)],
        [{"path": f"{number}", "label": "x", "site": f"{number}" * 50} for number in range(1000)],
        [{"path": f"{number}", "label": f"{number}" * 50} for number in range(1000)],
        [{"path": f"{number}", "label": [f"{number}"]} for number in range(2000)],
        [{"path": f"{number}", "label": "x", f"c{number % 100}": ""} for number in range(1000)],
    ],
    ids=["paths", "cells", "classes", "several labels", "columns"],
)
def test_a_table_that_would_take_too_much_memory_is_refused(tmp_path, monkeypatch, rows):
    table = write_table(tmp_path / "set.jsonl", rows)
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1 << 23)
    assert len(from_table(table, "photos")) == len(rows)
    with table.open("a") as file:
        file.write("{no row")  # it is not read to its end
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1 << (20 if len(rows) == 2000 else 17))
    with pytest.raises(DataError, match=r"set\.jsonl, row \d+: the rows take more than \S+ GiB of memory; expected"):
        from_table(table, "photos")


def test_a_few_rows_that_would_take_too_much_memory_are_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1000)
    with pytest.raises(DataError, match=r"the rows take more than \S+ GiB of memory"):
        read_csv(tmp_path, f"path,label\na,{'x' * 1000}\n")


def test_a_header_without_an_end_is_not_repeated(tmp_path):
    with pytest.raises(DataError) as caught:
        read_csv(tmp_path, "x" * 100_000 + ",y\na,b\n")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_empty_lines_of_a_csv_are_no_rows(tmp_path):
    assert read_csv(tmp_path, "\n\npath,label\n\na,x\n\nb,y\n").paths == ["a", "b"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32()),
        pyarrow.array([10**15]).cast(pyarrow.timestamp("s")),
        pyarrow.array([10**9]).cast(pyarrow.timestamp("s", "Nowhere/City")),
        pyarrow.array([2**62]).cast(pyarrow.duration("s")),
    ],
)
def test_dates_that_python_cannot_express_are_refused_with_their_column(tmp_path, column):
    table = pyarrow.table({"path": ["a"], "label": ["x"], "when": column})
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(
        DataError, match=r"row 1: cannot be read as parquet: the column 'when' holds values .* leave it"
    ):
        from_table(tmp_path / "set.parquet", "photos")


@pytest.mark.heavy
def test_a_map_is_no_label(tmp_path):
    column = pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a"], "label": column}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"row 1: label is \[\('a', 1\)\]; expected a text"):
        from_table(tmp_path / "set.parquet", "photos")


def test_a_table_that_vanished_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"set\.csv: No such file or directory"):
        from_table(tmp_path / "set.csv", "photos")


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "path": WORDS.filter(bool),
            "label": WORDS.filter(lambda text: text and not text.startswith("[")),
            "group": WORDS,
            "site": WORDS,
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["path"],
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_any_text_comes_back_as_it_was_written(kind, rows):
    with tempfile.TemporaryDirectory() as folder:
        source = from_table(write_table(Path(folder, f"set.{kind}"), rows), "photos")
    assert source.paths == [row["path"] for row in rows]
    assert [source.label_text(index) for index in range(len(rows))] == [class_name(row["label"]) for row in rows]
    assert list(source.groups or [""] * len(rows)) == [row["group"] for row in rows]
    assert source.slices == {"site": [row["site"] for row in rows]}


def test_an_error_shows_no_secret_of_a_url(tmp_path):
    for rows, message in (
        ("https://me:PASSWORD@host/a?sig=SECRET,a\n" * 2, "rows 1 and 2: both have the path https://host/a?sha256="),
        ("https://me:PASSWORD@host/a\0?sig=SECRET,a\n", "row 1: path is 'https://host/a"),
    ):
        (tmp_path / "set.csv").write_text(f"path,label\n{rows}")
        with pytest.raises(DataError) as caught:
            from_table(tmp_path / "set.csv", "set")
        assert message in str(caught.value)
        assert not any(secret in str(caught.value) for secret in ("PASSWORD", "SECRET"))
