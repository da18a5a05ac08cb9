"""What becomes of files, folders and manifests that are handed to scoring."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.errors import DataError, InvalidUsage
from pipeline.scoring import inputs
from pipeline.scoring.inputs import find_inputs


def names(found, root) -> list[bytes]:
    return [os.path.relpath(path, os.fsencode(root)) for path in found.paths]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_is_read_recursively_and_sorted(tmp_path):
    touch(tmp_path / "b.png", tmp_path / "a" / "z.png", tmp_path / "a" / "deep" / "y.txt", tmp_path / "c.jpg")
    assert names(find_inputs([str(tmp_path)]), tmp_path) == [b"a/deep/y.txt", b"a/z.png", b"b.png", b"c.jpg"]


def test_order_and_repetition_of_the_inputs_are_kept(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    given = [str(tmp_path / "b.png"), str(tmp_path), str(tmp_path / "b.png")]
    assert names(find_inputs(given), tmp_path) == [b"b.png", b"a.png", b"b.png", b"b.png"]


def test_hidden_names_are_skipped_and_counted(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "._a.png", tmp_path / ".cache" / "b.png", tmp_path / "d" / ".c.png")
    found = find_inputs([str(tmp_path)])
    assert names(found, tmp_path) == [b"a.png"]
    assert found.num_skipped == 3


def test_hidden_file_that_is_named_is_kept(tmp_path):
    touch(tmp_path / ".a.png")
    assert len(find_inputs([str(tmp_path / ".a.png")]).paths) == 1


def test_loop_of_links_ends_and_each_file_is_there_once(tmp_path):
    touch(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert names(find_inputs([str(tmp_path)]), tmp_path) == [b"a/x.png", b"self.png"]


def test_everything_that_is_no_folder_is_a_row(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path / "folder.png" / "inner.png")
    assert names(find_inputs([str(tmp_path)]), tmp_path) == [
        b"dangling.png",
        b"fifo.png",
        b"folder.png/inner.png",
    ]


def test_names_that_are_not_utf8_survive(tmp_path):
    name = b"caf\xe9\n.png"
    odd_path = tmp_path / os.fsdecode(name)
    odd_path.touch()
    assert names(find_inputs([str(tmp_path)]), tmp_path) == [name]
    assert names(find_inputs([str(odd_path)]), tmp_path) == [name]


def test_output_folder_is_left_out(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "scores" / "part-00000.parquet")
    found = find_inputs([str(tmp_path)], tmp_path / "scores")
    assert (names(found, tmp_path), found.num_skipped) == ([b"a.png"], 0)


def test_earlier_outputs_are_skipped_and_counted(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "out.old-1" / "_PLAN.json", tmp_path / "out.old-1" / "part-00000.parquet")
    touch(tmp_path / "deep" / "scores" / "_PLAN.json", tmp_path / "deep" / "scores" / "_parts" / "part-00000.json")
    found = find_inputs([str(tmp_path)], tmp_path / "out")
    assert (names(found, tmp_path), found.num_skipped) == ([b"a.png"], 2)
    assert find_inputs([str(tmp_path / "out.old-1")]).paths == []


def test_csv_file_and_mlflow_store_of_the_current_folder_are_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db-journal", "mlruns/1/model.keras")
    touch(tmp_path / "a.png", tmp_path / "rows.csv", *(tmp_path / name for name in store))
    touch(tmp_path / "sub" / "rows.csv", tmp_path / "sub" / "mlruns" / "b.png", tmp_path / "sub" / "mlflow.db")
    found = find_inputs(["."], csv_path=tmp_path / "rows.csv")
    assert names(found, tmp_path) == [b"a.png", b"sub/mlflow.db", b"sub/mlruns/b.png", b"sub/rows.csv"]
    assert found.num_skipped == 6
    named = find_inputs(["sub"], csv_path=tmp_path / "sub" / "rows.csv")
    assert (names(named, tmp_path), named.num_skipped) == ([b"sub/mlflow.db", b"sub/mlruns/b.png"], 1)


@pytest.mark.parametrize("given", ["out", "out/a.png", "out/sub", "list.csv", "link"])
def test_input_inside_the_output_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "out" / "a.png", tmp_path / "out" / "sub" / "b.png")
    (tmp_path / "list.csv").write_text("path\nb.png\nout/a.png\n")
    (tmp_path / "link").symlink_to(tmp_path / "out" / "sub")
    with pytest.raises(InvalidUsage, match="lies inside the output out; expected inputs outside of it"):
        find_inputs([given], Path("out"))


def test_folder_whose_name_begins_like_the_output_is_outside_of_it(tmp_path):
    touch(tmp_path / "out2" / "a.png", tmp_path / "out" / "_PLAN.json")
    assert names(find_inputs([str(tmp_path / "out2")], tmp_path / "out"), tmp_path) == [b"out2/a.png"]


def test_name_with_a_nul_is_kept_for_its_row(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "a\\u0000b/c.png"}')
    found = find_inputs([str(tmp_path / "m.jsonl")], tmp_path / "out")
    assert names(found, tmp_path) == [b"a\0b/c.png"]


def test_input_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(DataError, match="typo: no such file or folder") as raised:
        find_inputs([str(tmp_path / "typo")])
    assert raised.value.exit_code == 3


PARQUET = pytest.param(".parquet", marks=pytest.mark.heavy)  # a child process unpacks it


def write_manifest(path, cells):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"label": cells, "path": cells}), path)
    elif path.suffix == ".csv":
        path.write_text("label,path\n" + "".join(f'x,"{cell}"\n' for cell in cells), encoding="utf-8-sig")
    else:
        path.write_text("".join(f'{{"path": "{cell}"}}\n\n' for cell in cells))


@pytest.mark.parametrize("suffix", [".csv", PARQUET, ".jsonl", ".CSV"])
def test_manifest_names_files_relative_to_itself(tmp_path, suffix, monkeypatch):
    (tmp_path / "lists").mkdir()
    write_manifest(tmp_path / "lists" / f"m{suffix}".lower(), ["a.png", "/abs/b.png", "a.png", "mü, c.png"])
    (tmp_path / "lists" / f"m{suffix}".lower()).rename(tmp_path / "lists" / f"m{suffix}")
    monkeypatch.chdir(tmp_path)
    expected = [b"lists/a.png", b"/abs/b.png", b"lists/a.png", "lists/mü, c.png".encode()]
    assert find_inputs([f"lists/m{suffix}"]).paths == expected


@pytest.mark.parametrize("suffix", [".csv", PARQUET, ".jsonl"])
def test_manifest_without_the_column_names_those_that_it_has(tmp_path, suffix):
    manifest = tmp_path / f"m{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"file": ["a"], "label": ["b"]}), manifest)
    else:
        manifest.write_text("file,label\na,b\n" if suffix == ".csv" else '{"file": "a", "label": "b"}')
    with pytest.raises(DataError, match="its columns are file, label; expected one named 'path'; rename"):
        find_inputs([str(manifest)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", b"{no json}\n"),
        pytest.param("m.parquet", b"no parquet", marks=pytest.mark.heavy),
        ("m.jsonl", b'{"path": "\\ud800"}'),
        ("m.jsonl", b'{"path": ' + b"[" * 100_000),
        ("m.jsonl", b'{"path": "' + b"x" * (1 << 20) + b'"}'),
        ("m.csv", b"path\n" + b"x" * (1 << 21)),
        ("m.csv", b"path,label\nx," + b'"\n",' * 300_000),
        ("m.csv", b"path\na.png,b.png\n"),
    ],
)
def test_damaged_manifest_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"expected a .csv, .parquet or .jsonl table"):
        find_inputs([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_line_without_an_end_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * (1 << 21))
    with pytest.raises(DataError, match="a line has more than 1,048,576 characters"):
        find_inputs([str(tmp_path / name)])


def test_paths_that_would_take_too_much_memory_are_refused(tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text("path\n" + "a.png\n" * 1000)
    assert len(find_inputs([str(tmp_path / "m.csv")]).paths) == 1000
    monkeypatch.setattr(inputs, "MAX_TABLE_BYTES", 1000)
    with pytest.raises(DataError, match=r"row \d+: the paths take more than \S+ GiB; split the table"):
        find_inputs([str(tmp_path / "m.csv")])


@pytest.mark.parametrize("content", ["", "path\n", "label\n"])
def test_manifest_without_rows_is_an_error_and_not_ignored_beside_other_inputs(tmp_path, content):
    (tmp_path / "m.csv").write_text(content)
    touch(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match=r"m\.csv: found no rows; expected one for each image, with a column 'path'"):
        find_inputs([str(tmp_path / "photos"), str(tmp_path / "m.csv")])


def test_row_that_ends_before_its_path_names_its_row(tmp_path):
    (tmp_path / "m.csv").write_text("label,path\ncat,a.png\ncat\n")
    with pytest.raises(DataError, match="row 2: path is ''; expected a path"):
        find_inputs([str(tmp_path / "m.csv")])


def test_empty_cell_names_its_row(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.png,x\n,y\n")
    with pytest.raises(DataError, match="row 2: path is ''; expected a path"):
        find_inputs([str(tmp_path / "m.csv")])


def test_csv_manifest_keeps_names_that_are_not_utf8(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"path\n/caf\xe9.png\n")
    assert find_inputs([str(tmp_path / "m.csv")]).paths == [b"/caf\xe9.png"]


def test_file_urls_of_a_manifest_are_paths_and_other_urls_stay(tmp_path):
    picture = tmp_path / "50% of Straße #1.png"
    (tmp_path / "m.csv").write_text(f"path\n{picture.as_uri()}\ns3://bucket/a%20b.png\n")
    assert find_inputs([str(tmp_path / "m.csv")]).paths == [os.fsencode(picture), b"s3://bucket/a%20b.png"]
