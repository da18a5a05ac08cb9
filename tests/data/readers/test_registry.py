"""What DATA may be, what is said when it is not, and the key that changes when the data does."""

import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.cache.stamps import source_key
from pipeline.data.readers.folders import class_name
from pipeline.data.readers.registry import checked, open_source, source_name
from pipeline.data.source import NOT_GIVEN, FileLocation, Files, Members, Rows, Source
from pipeline.errors import DataError, InvalidUsage
from tests.data.loopback import serve
from tests.data.pictures import write_classes, write_picture


def write_idx(folder, name, array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(header + array.tobytes())


def write_shard(path, *keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            for name, content in ((f"{key}.png", b"picture"), (f"{key}.cls", key[0].encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                (path.parent / "member").write_bytes(content)
                with (path.parent / "member").open("rb") as file:
                    tar.addfile(member, file)
                (path.parent / "member").unlink()
    return path


def arrays_of(count):
    return np.zeros((count, 4, 4), np.uint8), np.arange(count, dtype=np.uint8) % 2


def make_npz(folder):
    images, labels = arrays_of(6)
    named = {f"{split}_images": images for split in ("train", "test")}
    np.savez(folder / "set.npz", **named, **{f"{split}_labels": labels for split in ("train", "test")})
    return folder / "set.npz"


def make_idx(folder):
    for kind in ("train", "t10k"):
        images, labels = arrays_of(6)
        write_idx(folder / "set", f"{kind}-images-idx3-ubyte", images)
        write_idx(folder / "set", f"{kind}-labels-idx1-ubyte", labels)
    return folder / "set"


def make_table(folder):
    (folder / "set.csv").write_text("path,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(12)))
    return folder / "set.csv"


def make_shard_folder(folder):
    (folder / "set").mkdir()
    write_shard(folder / "set" / "train-0.tar", *(f"a{n}" for n in range(3)), *(f"b{n}" for n in range(3)))
    write_shard(folder / "set" / "test-0.tar", *(f"a{n}" for n in range(3)), *(f"b{n}" for n in range(3)))
    return folder / "set"


def make_shard(folder):
    return write_shard(folder / "set.tar", *(f"a{n}" for n in range(6)), *(f"b{n}" for n in range(6)))


def test_a_folder_with_some_of_the_idx_files_says_which_is_missing(tmp_path):
    (make_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"set: found no t10k-labels-idx1-ubyte\[\.gz\]; expected the four idx files"):
        open_source(str(tmp_path / "set"), tmp_path)


@pytest.mark.parametrize(
    ("make", "storage"),
    [
        (lambda folder: write_classes(folder / "set", {"a": 6, "b": 6}), Files),
        (make_table, Files),
        (make_npz, Rows),
        (make_idx, Rows),
        (make_shard, Members),
        (make_shard_folder, Members),
    ],
)
def test_every_layout_is_told_by_what_lies_there(tmp_path, make, storage):
    source = open_source(str(make(tmp_path)), tmp_path)
    assert (source.name, len(source), len(source.classes)) == ("set", 12, 2)
    assert isinstance(source.storage, storage)


def test_a_path_is_a_path_though_a_built_in_set_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "digits", {"a": 3, "b": 3})
    assert len(open_source("./digits", tmp_path)) == 6


@pytest.mark.heavy
def test_a_bare_name_is_the_built_in_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "digits", {"a": 3, "b": 3})
    assert len(open_source("digits", tmp_path / "workspace")) == 1797


def test_a_url_of_a_table_and_of_a_local_file(tmp_path):
    with serve({"/sources/set.csv": b"path,label\n1.png,a\n2.png,b\n"}) as address:
        source = open_source(f"{address}/sources/set.csv", tmp_path, hosts=["host"])
    assert source.name == "set"
    assert source.storage.location(1) == FileLocation(f"{address}/sources/2.png", hosts=("host",))
    folder = tmp_path / "my photos"
    folder.mkdir()
    local = open_source(make_table(folder).as_uri(), tmp_path)
    assert (local.name, local.storage.location(0).path) == ("set", str(folder / "0.png"))


@pytest.mark.heavy
def test_a_table_of_pandas(tmp_path):
    import pandas

    pandas.DataFrame({"path": ["1", "2"], "label": [0, 1], "weight": [1, 2.5]}).to_parquet(tmp_path / "set.parquet")
    source = open_source(str(tmp_path / "set.parquet"), tmp_path)
    assert (source.classes, source.weights.tolist()) == (("0", "1"), [1.0, 2.5])


def test_a_table_with_urls_that_nothing_serves_is_refused_at_once(tmp_path):
    (tmp_path / "set.csv").write_text("path,label\n1.png,a\nzork://b/2.png,b\n")
    with pytest.raises(DataError, match=r"set\.csv, row 2: zork://b/2\.png: zork:// URLs are not followed"):
        open_source(str(tmp_path / "set.csv"), tmp_path)


@pytest.mark.parametrize("data", ["nothing", "x" * 5000, "a\0b", "set.txt/x"])
def test_nothing_there_shows_what_may_be(tmp_path, data):
    (tmp_path / "set.txt").touch()
    with pytest.raises(DataError) as caught:
        open_source(str(tmp_path / data), tmp_path)
    text = str(caught.value)
    assert "no such file or folder; DATA may be a built-in set (digits, " in text
    for layout in ("sub-folder per class", "train/ [val/] test/", ".csv/", ".npz", ".tar", "idx files", "s3://"):
        assert layout in text


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match="this is another kind of file; DATA may be a built-in set"):
        open_source(str(write_picture(tmp_path / "a.png", 9)), tmp_path)


def test_a_compressed_tar_is_told_apart(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="compressed tar"):
        open_source(str(tmp_path / "set.tar.gz"), tmp_path)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("photos/", "photos"),
        ("/a/photos.v2", "photos.v2"),
        ("a/set.CSV", "set"),
        ("set.npz", "set"),
        ("set.tar", "set"),
        ("s3://bucket/a/set.parquet", "set"),
        ("s3://bucket/photos/", "photos"),
        ("gs://bucket", "bucket"),
        ("https://me:pw@host/set.csv?sig=SECRET", "set"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_the_name_of_a_data_set(data, name):
    assert source_name(data) == name


def test_a_link_keeps_its_name(tmp_path):
    (tmp_path / "photos").symlink_to(write_classes(tmp_path / "v1", {"a": 1, "b": 1}))
    assert open_source(str(tmp_path / "photos"), tmp_path).name == "photos"


def test_equal_looking_class_names_are_one():
    assert class_name("cafe\u0301") == class_name("caf\u00e9")


def source_of(labels, splits, classes=("a", "b")):
    labels = np.array(labels)
    paths = [f"{number}.png" for number in range(len(labels))]
    return Source("set", "set", classes, paths, labels, np.array(splits, np.uint8), Files("", paths))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (source_of([0, 0], [NOT_GIVEN] * 2, ("only",)), "set: found 1 class (only); expected at least 2"),
        (source_of([0, 1], [0, 2]), "set: no training images of b; expected every class in train"),
        (source_of([[1, 0], [1, 1]], [0, 1]), "set: no training images of b"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(source, message):
    with pytest.raises(DataError) as caught:
        checked(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        source_of([0, 1], [NOT_GIVEN] * 2),
        source_of([0, 1, 1], [0, 0, 2]),
        source_of([[1, 1], [0, 0]], [0, 2]),
    ],
)
def test_what_can_be_learned_from_passes(source):
    assert checked(source) is source


def test_a_class_of_the_test_split_alone_is_refused_from_a_folder(tmp_path):
    write_classes(tmp_path / "set" / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "set" / "test", {"a": 2, "c": 2})
    with pytest.raises(DataError, match="no training images of c"):
        open_source(str(tmp_path / "set"), tmp_path)


def test_the_key_of_a_folder_changes_with_any_file_and_stays_without(tmp_path):
    root = write_classes(tmp_path / "set", {"a": 2, "b": 2})
    keys = [source_key(open_source(str(root), tmp_path))]
    assert len(keys[0]) == 64
    assert source_key(open_source(os.path.relpath(root), tmp_path)) == keys[0]
    for change in (
        lambda: (root / "a" / "000.png").write_bytes(b"other"),
        lambda: os.utime(root / "b" / "000.png", ns=(1, 1)),
        lambda: (root / "b" / "001.png").rename(root / "b" / "002.png"),
        lambda: (root / "a" / "001.png").rename(root / "b" / "001.png"),
        lambda: (root / "b").rename(root / "c"),
    ):
        change()
        keys.append(source_key(open_source(str(root), tmp_path)))
    assert len(set(keys)) == len(keys)


def test_the_key_notices_other_bytes_of_the_same_size_and_date(tmp_path):
    path = tmp_path / "0.png"
    path.write_bytes(b"1234")
    source = replace(source_of([0], [0]), storage=Files(str(tmp_path), ["0.png"]))
    before, status = source_key(source), path.stat()
    path.write_bytes(b"5678")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source_key(source) != before


def test_the_key_covers_labels_splits_weights_and_groups(tmp_path):
    source = source_of([0, 1, 1], [NOT_GIVEN] * 3)
    variants = [
        source,
        replace(source, labels=np.array([0, 1, 0])),
        replace(source, classes=("a", "c")),
        replace(source, splits=np.array([0, 0, 2], np.uint8)),
        replace(source, weights=np.array([1, 1, 2], np.float32)),
        replace(source, weights=np.array([1, 1, 3], np.float32)),
        replace(source, groups=["x", "", ""]),
        replace(source, groups=["", "x", ""]),
    ]
    assert len({source_key(variant) for variant in variants}) == len(variants)


def test_the_key_of_a_missing_file_changes_when_it_comes_back(tmp_path):
    source = replace(source_of([0, 1], [0, 0]), storage=Files(str(tmp_path), ["0.png", "1.png"]))
    before = source_key(source)
    (tmp_path / "1.png").touch()
    assert source_key(source) != before


def test_the_key_of_shards_and_arrays_changes_with_the_file_and_the_place(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(b"1234")
    base = source_of([0, 1], [0, 0])
    columns = np.zeros(2, np.int32), np.array([0, 2]), np.array([2, 2])
    members = Members((str(path),), *columns)
    sources = [replace(base, storage=members), replace(base, storage=Rows(str(path)))]
    moved = replace(base, storage=replace(members, offsets=np.array([0, 1])))
    keys = [source_key(source) for source in [*sources, moved]]
    path.write_bytes(b"12345")
    keys += [source_key(source) for source in sources]
    assert len(set(keys)) == 5


@pytest.mark.heavy
def test_the_key_of_urls_asks_their_server(tmp_path):
    contents = {}
    (tmp_path / "1.png").touch()
    with serve(contents) as address:
        storage = Files(str(tmp_path), [f"{address}/0.png", "1.png"], ("127.0.0.1",))
        source = replace(source_of([0, 1], [0, 0]), storage=storage)
        missing = source_key(source)
        contents["/0.png"] = b"1"
        there = source_key(source)
        assert source_key(source) == there
        contents["/0.png"] = b"2"
        assert len({missing, there, source_key(source)}) == 3


@pytest.mark.heavy
@pytest.mark.parametrize("others", [[], ["/none.png", "https://host.invalid/b.png"]], ids=["relative", "mixed"])
def test_the_key_of_a_table_on_a_server_asks_for_the_images_beside_it(tmp_path, others):
    """Each image has its own stamp: the key changes with the content of any of them, and not otherwise."""
    contents = {"/0.png": b"0", "/1.png": b"1"}
    rows = ["0.png", *others, "1.png"]
    contents["/t.csv"] = (
        "path,label\n" + "".join(f"{row},{'ab'[number % 2]}\n" for number, row in enumerate(rows))
    ).encode()
    with serve(contents) as address:
        source = open_source(f"{address}/t.csv", tmp_path, hosts=["127.0.0.1"])
        keys = [source_key(source), source_key(source)]
        for name in ("/0.png", "/1.png"):
            contents[name] += b"changed"
            keys.append(source_key(source))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_key_of_files_starts_no_child(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.cache.stamps.Decoders", None)
    assert source_key(replace(source_of([0, 1], [0, 0]), storage=Files(str(tmp_path), ["file:///0.png", "1.png"])))


def test_a_source_folder_for_what_is_no_built_in_set_is_refused(tmp_path):
    write_classes(tmp_path / "set", {"cat": 1, "dog": 1})
    with pytest.raises(InvalidUsage, match=r"is not a built-in set; expected one of digits, .*; leave --source out"):
        open_source(str(tmp_path / "set"), tmp_path, source_folder=str(tmp_path))
