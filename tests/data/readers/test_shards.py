"""Tar shards become an index of members; what is no labelled image is named, and damaged tars are refused."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.readers.shards import from_shards, is_shard_folder
from pipeline.errors import DataError


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """Write a tar of (name, bytes), or of (name, text) for members of that type, which are no files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = content.encode(), "elsewhere"
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def samples(labels, ending="jpg", prefix=""):
    """Members of one image and one label each; an image's bytes name it."""
    for number, label in enumerate(labels):
        yield f"{prefix}{number:04d}.{ending}", f"image {prefix}{number}".encode()
        yield f"{prefix}{number:04d}.cls", label.encode()


def content(source, index):
    """The bytes of image `index`, where the index says that they lie."""
    location = source.storage.location(index)
    with open(location.path, "rb") as file:  # noqa: PTH123
        file.seek(location.offset)
        return file.read(location.size)


def left_out(source):
    return {(finding.path, finding.code) for finding in source.left_out}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_image_is_found_at_its_offset_with_its_label(tmp_path, form):
    path = write_tar(tmp_path / "birds.tar", samples(["crow", "owl", "crow"], "JPG", "x/" + "long" * 30 + "/"), form)
    source = from_shards(path)
    assert (source.name, source.origin, source.classes) == ("birds", str(path), ("crow", "owl"))
    assert [source.label_text(index) for index in range(3)] == ["crow", "owl", "crow"]
    assert source.paths[1] == f"birds.tar/x/{'long' * 30}/0001.JPG"
    assert [content(source, index).split()[-1] for index in range(3)] == [
        f"x/{'long' * 30}/{index}".encode() for index in range(3)
    ]
    assert source.splits.tolist() == [255] * 3
    assert source.left_out == ()
    assert [column.dtype for column in (source.labels, source.splits, source.storage.offsets)] == [
        np.int32,
        np.uint8,
        np.int64,
    ]


def test_a_folder_of_shards_takes_the_split_from_their_names(tmp_path):
    for name, labels in (("train-1", "aab"), ("train-0", "bb"), ("val-0", "ab"), ("test-0", "a")):
        write_tar(tmp_path / "set" / f"{name}.tar", samples(labels, prefix=name))
    assert is_shard_folder(tmp_path / "set")
    source = from_shards(tmp_path / "set")
    assert source.name == "set"
    assert source.splits.tolist() == [2, 0, 0, 0, 0, 0, 1, 1]
    assert source.paths[:2] == ["test-0.tar/test-00000.jpg", "train-0.tar/train-00000.jpg"]
    assert [content(source, index) for index in (0, 2)] == [b"image test-00", b"image train-01"]
    assert [source.label_text(index) for index in range(8)] == list("abbaabab")


def test_shards_called_otherwise_have_no_split(tmp_path):
    for name in ("shard-0", "shard-1"):
        write_tar(tmp_path / "set" / f"{name}.tar", samples("ab"))
    assert from_shards(tmp_path / "set").splits.tolist() == [255] * 4


def test_a_split_for_some_shards_only_is_refused(tmp_path):
    for name in ("train-0", "more-0"):
        write_tar(tmp_path / "set" / f"{name}.tar", samples("ab"))
    with pytest.raises(DataError, match=r"found train-0\.tar beside more-0\.tar; expected all shards to be called"):
        from_shards(tmp_path / "set")


def test_numbers_as_labels_sort_by_number(tmp_path):
    source = from_shards(write_tar(tmp_path / "a.tar", samples(["10", "9\n", " 2", "09"])))
    assert source.classes == ("02", "09", "10")
    assert [source.label_text(index) for index in range(4)] == ["10", "09", "02", "09"]


def test_one_label_that_is_no_number_makes_all_of_them_names(tmp_path):
    assert from_shards(write_tar(tmp_path / "a.tar", samples(["10", "9", "x"]))).classes == ("10", "9", "x")


def test_labels_that_look_alike_are_one_class(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(["caf\u00e9", "cafe\u0301", "tea"]))
    assert from_shards(path).classes == ("caf\u00e9", "tea")


def test_a_key_ends_at_the_first_dot_of_the_base_name(tmp_path):
    members = [("./v1.2/a.seg.png", b"m"), ("./v1.2/a.png", b"p"), ("./v1.2/a.cls", b"x"), ("v1.2/b.png", b"q")]
    source = from_shards(write_tar(tmp_path / "a.tar", [*members, ("v1.2/b.cls", b"y")]))
    assert source.paths == ["a.tar/v1.2/a.png", "a.tar/v1.2/b.png"]
    assert left_out(source) == {("a.tar/v1.2/a.seg.png", "unsupported")}


def test_what_is_no_labelled_image_is_named(tmp_path):
    write_tar(
        tmp_path / "set" / "train-0.tar",
        [
            *samples(["a", "b"]),
            ("0000.json", b"{}"),
            ("0000.txt", b"an owl"),
            ("alone.png", b"image"),
            ("label.cls", b"a"),
            ("empty.png", b"image"),
            ("empty.cls", b" \n"),
            ("novel.png", b"image"),
            ("novel.cls", b"x" * 2000),
            ("notes.json", b"{}"),
            ("0001.wav", b"sound"),
            ("noextension", b"."),
            ("._0000.jpg", b"finder"),
            ("link.jpg", "2"),
            ("hard.jpg", "1"),
            ("pipe.jpg", "6"),
            ("device.jpg", "3"),
            ("folder", "5"),
        ],
    )
    (tmp_path / "set" / "README.md").write_text("x")
    (tmp_path / "set" / ".DS_Store").write_text("x")
    os.mkfifo(tmp_path / "set" / "train-1.tar")
    source = from_shards(tmp_path / "set")
    assert source.paths == ["train-0.tar/0000.jpg", "train-0.tar/0001.jpg"]
    assert left_out(source) == {
        (".DS_Store", "hidden"),
        ("README.md", "unsupported"),
        ("train-1.tar", "not_regular"),
        ("train-0.tar/._0000.jpg", "hidden"),
        ("train-0.tar/0001.wav", "unsupported"),
        ("train-0.tar/alone.png", "no_label"),
        ("train-0.tar/device.jpg", "not_regular"),
        ("train-0.tar/empty.cls", "no_label"),
        ("train-0.tar/empty.png", "no_label"),
        ("train-0.tar/hard.jpg", "not_regular"),
        ("train-0.tar/label.cls", "no_label"),
        ("train-0.tar/link.jpg", "not_regular"),
        ("train-0.tar/noextension", "unsupported"),
        ("train-0.tar/notes.json", "unsupported"),
        ("train-0.tar/novel.cls", "no_label"),
        ("train-0.tar/novel.png", "no_label"),
        ("train-0.tar/pipe.jpg", "not_regular"),
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_labels_that_are_not_utf8_survive(tmp_path, form):
    name = os.fsdecode(b"caf\xe9")
    members = [(f"{name}.jpg", b"x"), (f"{name}.cls", b"caf\xe9"), ("b.jpg", b"y"), ("b.cls", b"b")]
    source = from_shards(write_tar(tmp_path / "a.tar", members, form))
    assert os.fsencode(source.paths[0]) == b"a.tar/caf\xe9.jpg"
    assert source.classes == ("b", "caf\\udce9")


@pytest.mark.parametrize("second", ["0000.jpg", "0000.png", "0000.cls"])
def test_a_key_twice_in_a_shard_is_refused_by_name(tmp_path, second):
    path = write_tar(tmp_path / "a.tar", [*samples("ab"), (second, b"again")])
    with pytest.raises(DataError, match=rf"a\.tar: found the key 0000 twice \({second}\)"):
        from_shards(path)


def test_a_key_in_two_shards_is_two_images(tmp_path):
    for name in ("s-0", "s-1"):
        write_tar(tmp_path / "set" / f"{name}.tar", samples("ab"))
    assert from_shards(tmp_path / "set").paths == [
        "s-0.tar/0000.jpg",
        "s-0.tar/0001.jpg",
        "s-1.tar/0000.jpg",
        "s-1.tar/0001.jpg",
    ]


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path):
    plain = write_tar(tmp_path / "a.tar", samples("ab")).read_bytes()
    for name in ("set/train-0.tar.gz", "set/train-0.tar"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(plain))
        assert is_shard_folder(tmp_path / "set")
        with pytest.raises(DataError, match=r"found a compressed tar; expected a plain \.tar.*unpack it \(gunzip"):
            from_shards(tmp_path / name)


def test_a_tar_cut_off_anywhere_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples("abab"))
    whole = path.read_bytes()
    used = 8 * 1024  # 8 members of a header and a block each; after them only the zeros of the end
    for length in [*range(0, used, 300), *range(0, used + 1, 512), used + 511]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.tar: cannot be indexed .*; expected a whole tar"):
            from_shards(path)
    path.write_bytes(whole[: used + 512])
    assert len(from_shards(path)) == 4


def test_two_tars_in_one_file_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples("ab"))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="no header at byte 4096"):
        from_shards(path)


def test_a_damaged_header_ends_nothing_silently(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples("abab"))
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="no header at byte 4096"):
        from_shards(path)


def header(name, size, kind=tarfile.REGTYPE):
    """A header that declares `size`, which may be absurd or negative."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "block",
    [
        header("big.jpg", 10**12),
        header("more.jpg", 10**18),
        header("back.jpg", -512),
        header("back.jpg", -(10**9)),
        header("odd", -512, b"Z"),
        header("name", 10**9, tarfile.GNUTYPE_LONGNAME),
        header("name", 100_000, tarfile.GNUTYPE_LONGNAME) + b"x" * 100_352 + header("a.jpg", 0),
        header("name", -512, tarfile.GNUTYPE_LONGNAME),
        header("pax", 10**7, tarfile.XHDTYPE) + b"9" * 100_000,
        header("pax", -1024, tarfile.XHDTYPE),
        header("pax", 512, tarfile.XHDTYPE) + b"17 size=-1000000\n".ljust(512, b"\0") + header("a.jpg", 0),
        header("sparse.jpg", 0, tarfile.GNUTYPE_SPARSE),
        b"".join(header("name", 512, tarfile.GNUTYPE_LONGNAME) + b"x" * 512 for _ in range(2000)),
        b"not a header".ljust(512, b"!"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path, block):
    path = write_tar(tmp_path / "a.tar", samples("ab"))
    path.write_bytes(path.read_bytes()[:4096] + block + bytes(1024))
    with pytest.raises(DataError, match=r"a\.tar: cannot be indexed"):
        from_shards(path)


def test_a_sparse_member_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 512
        info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,512"}
        tar.addfile(info, io.BytesIO(bytes(512)))
    with pytest.raises(DataError, match=r"a\.jpg is a sparse file"):
        from_shards(path)


@given(where=st.integers(0, 4095), what=st.binary(min_size=1, max_size=12), form=st.sampled_from([1, 2]))
def test_any_damage_is_refused_or_leaves_members_inside_the_file(tmp_path_factory, where, what, form):
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", samples(["a", "b"], prefix="n" * 101), form)
    damaged = bytearray(path.read_bytes())
    damaged[where : where + len(what)] = what
    path.write_bytes(damaged)
    try:
        source = from_shards(path)
    except DataError:
        return
    for index in range(len(source)):
        location = source.storage.location(index)
        assert 0 <= location.size <= len(damaged) - location.offset


def test_a_shard_without_a_labelled_image_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    with pytest.raises(DataError) as caught:
        from_shards(path)
    assert (
        "a.tar: found no labelled image (the first of 1 members is a.tar/a.jpg: an image without a label beside it "
        "(.cls)); expected key.jpg and key.cls"
    ) in str(caught.value)
    with pytest.raises(DataError, match=r"b\.tar: found no labelled image \(it is empty\); expected"):
        from_shards(write_tar(tmp_path / "b.tar", []))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.txt"])
def test_other_folders_are_no_shard_folders(tmp_path, name):
    write_tar(tmp_path / "classes" / "cat" / "a.tar", samples("ab"))
    write_tar(tmp_path / "classes" / "backup.tar", samples("ab"))
    assert not is_shard_folder(tmp_path / "classes")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_bytes(b"x")
    assert not is_shard_folder(tmp_path / "files")


def test_the_studies_beside_shards_are_no_class(tmp_path):
    write_tar(tmp_path / "a.tar", samples("ab"))
    (tmp_path / "mlruns").mkdir()
    assert is_shard_folder(tmp_path)


def test_a_shard_larger_than_memory_is_indexed_by_its_headers(tmp_path):
    path = tmp_path / "a.tar"
    image_bytes = 100 * 2**30
    with path.open("wb") as file:  # a hole in the file, which takes no disk
        file.write(header("a.npy", image_bytes))
        file.seek(512 + image_bytes)
        file.write(header("a.cls", 1) + b"7".ljust(512, b"\0") + header("b.npy", 3) + b"xyz".ljust(512, b"\0"))
        file.write(header("b.cls", 1) + b"8".ljust(512, b"\0") + bytes(1024))
    source = from_shards(path)
    assert source.storage.sizes.tolist() == [image_bytes, 3]
    assert content(source, 1) == b"xyz"
