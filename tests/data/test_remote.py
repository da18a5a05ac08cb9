"""Images, tables and folders behind URLs: what arrives, and what is said when nothing does."""

import functools
import http.server
import io
import os
import sys
import threading

import fsspec
import pytest
from fsspec.registry import _registry

from pipeline.data.decode import DecodeError
from pipeline.data.remote import from_url, is_url, read_url, redacted, refuse_unserved, url_stamp
from pipeline.data.tables import read_table
from pipeline.errors import DataError
from tests.data.pictures import write_picture

TABLE = b"path,label,split\ncat/1.png,cat,train\ndog/1.png,dog,train\ncat/none.png,cat,test\n"


@pytest.fixture
def memory():
    """The store behind memory://, empty before and after."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.fixture
def website(tmp_path):
    """The address of a server of the files in tmp_path, which knows no ranges of bytes."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A handler that prints nothing."""

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a.csv", True),
        ("GS://bucket", True),
        ("photos/a.csv", False),
        ("a/b://c", False),
        ("C:/photos", False),
    ],
)
def test_a_url_is_told_from_a_path(text, expected):
    assert is_url(text) == expected


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_in_a_store_names_images_beside_it(memory, ending):
    line = '{"path": "cat/1.png", "label": "cat"}\n{"path": "s3://other/2.png", "label": "dog"}\n'
    text = line if ending == "jsonl" else "path,label\ncat/1.png,cat\ns3://other/2.png,dog\n"
    memory.pipe(f"/photos/set.{ending}", text.encode())
    source = from_url(f"memory://photos/set.{ending}", "set")
    assert (source.name, source.origin, source.classes) == ("set", f"memory://photos/set.{ending}", ("cat", "dog"))
    assert source.paths == ["cat/1.png", "s3://other/2.png"]
    assert [source.storage.location(row).path for row in (0, 1)] == ["memory://photos/cat/1.png", "s3://other/2.png"]


def test_a_parquet_table_in_a_store(memory, tmp_path):
    import pyarrow.parquet

    table = pyarrow.table({"path": ["1.png", "2.png"], "label": ["cat", "dog"]})
    with memory.open("/set.parquet", "wb") as file:
        pyarrow.parquet.write_table(table, file)
    source = from_url("memory://set.parquet", "set")
    assert read_error(source.storage.location(0).path) == "missing"
    memory.pipe("/1.png", b"picture")
    assert read_url(source.storage.location(0).path, 100) == b"picture"


def read_error(url, max_bytes=100):
    with pytest.raises(DecodeError) as caught:
        read_url(url, max_bytes)
    return caught.value.code


def test_a_folder_in_a_store_is_read_like_one_on_disk(memory):
    for name in ("train/cat/1", "train/dog/deep/1", "test/cat/1", "test/dog/2", "README", "train/.x/1", "test/dog/.y"):
        memory.pipe(f"/set/{name}", b"x")
    source = from_url("memory://set/", "set")
    assert source.classes == ("cat", "dog")
    assert source.paths == ["test/cat/1", "test/dog/2", "train/cat/1", "train/dog/deep/1"]
    assert source.splits.tolist() == [2, 2, 0, 0]
    assert read_url(source.storage.location(3).path, 9) == b"x"
    found = {finding.path: finding.code for finding in source.left_out}
    assert found == {"README": "no_label", "train/.x/1": "hidden", "test/dog/.y": "hidden"}


def test_images_by_file_url(tmp_path):
    picture = write_picture(tmp_path / "a.png", 99)
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    assert read_url(f"file://{picture}", 10_000) == picture.read_bytes()
    assert read_url(f"file://{picture}", picture.stat().st_size) == picture.read_bytes()
    assert read_error(f"file://{picture}", picture.stat().st_size - 1) == "too_large"
    assert read_error(f"file://{tmp_path}/empty.png") == "empty"
    assert read_error(f"file://{tmp_path}/pipe.png") == "not_regular"
    assert read_error(f"file://{tmp_path}/none.png") == "missing"
    assert read_error(f"file://{tmp_path}") == "not_regular"


def test_a_stamp_changes_with_the_file(memory, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    first = url_stamp(f"file://{path}")
    assert url_stamp(f"file://{path}") == first
    path.write_bytes(b"12")
    assert url_stamp(f"file://{path}") != first
    assert url_stamp("memory://none") == "missing"
    assert url_stamp("zork://none") == "unreadable"


def test_a_table_and_its_images_by_http(tmp_path, website):
    (tmp_path / "set.csv").write_bytes(TABLE)
    picture = write_picture(tmp_path / "cat" / "1.png", 99)
    (tmp_path / "empty.png").touch()
    source = from_url(f"{website}/set.csv?signature=SECRET", "set")
    assert source.origin == f"{website}/set.csv"
    assert source.splits.tolist() == [0, 0, 2]
    assert read_url(source.storage.location(0).path, 10_000) == picture.read_bytes()
    assert read_error(source.storage.location(0).path, 9) == "too_large"
    assert read_error(source.storage.location(2).path) == "missing"
    assert read_error(f"{website}/empty.png") == "empty"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://none.csv", "cannot be read (nothing is there)"),
        ("memory://none", "cannot be read (nothing is there)"),
        ("zork://a/b.csv", "Protocol not known: zork; expected a URL such as s3://bucket/photos.csv"),
        (
            "http://user:pass@127.0.0.1:9/set.csv?sig=SECRET",
            "http://127.0.0.1:9/set.csv: cannot be read (Cannot connect",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_without_secrets(memory, url, message):
    with pytest.raises(DataError) as caught:
        from_url(url, "set")
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert not any(secret in text for secret in ("user", "pass", "SECRET"))


def test_a_store_without_classes_shows_the_layout(memory):
    memory.pipe("/set/1.png", b"x")
    with pytest.raises(
        DataError, match="memory://set: found no files in sub-folders; expected memory://set/CLASS/image"
    ):
        from_url("memory://set", "set")


def test_a_table_in_a_store_that_names_an_unknown_store_is_refused(memory):
    memory.pipe("/set.csv", b"path,label\na.png,cat\nnowhere://b.png,dog\n")
    with pytest.raises(DataError, match=r"memory://set\.csv: nowhere://b\.png: Protocol not known: nowhere"):
        from_url("memory://set.csv", "set")


@pytest.mark.parametrize("name", ["set.npz", "set.tar", "SET.TAR.GZ?sig=1"])
def test_arrays_and_archives_are_read_from_the_disk_only(memory, name):
    with pytest.raises(DataError, match=r"address of an array or archive; expected that of a table.*fetch the file"):
        from_url(f"memory://{name}", "set")


def test_the_case_of_a_scheme_does_not_matter(memory):
    memory.pipe("/set.csv", b"path,label\na.png,cat\n")
    assert from_url("MEMORY://set.csv", "set").paths == ["a.png"]


@pytest.mark.parametrize(("scheme", "package", "extra"), [("gs", "gcsfs", "gs"), ("s3", "s3fs", "s3")])
def test_a_driver_that_is_not_installed_is_named(monkeypatch, scheme, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, scheme, raising=False)  # an earlier test may have loaded it
    table = f"path,label\na.png,cat\n{scheme}://bucket/a.png,dog\n"
    with pytest.raises(DataError) as caught:
        refuse_unserved(read_table(io.BytesIO(table.encode()), ".csv", "set.csv", "set", ""))
    assert str(caught.value).startswith(f"set.csv: {scheme}://bucket/a.png: import of {package} halted")
    assert str(caught.value).endswith(f', which {scheme}:// needs; pip install "keras-image-pipeline[{extra}]"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@host/a?sig=1 and s3://b/c@d.jpg", "https://host/a and s3://b/c@d.jpg"),
        ("what? a@b", "what? a@b"),
    ],
)
def test_secrets_of_urls_are_taken_out_of_texts(text, expected):
    assert redacted(text) == expected


@pytest.fixture
def bucket(monkeypatch):
    """A client of a real S3 server on loopback with the empty bucket `photos`, which the environment names."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    yield client
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.heavy
def test_a_table_a_folder_and_images_in_s3(bucket, tmp_path):
    content = write_picture(tmp_path / "1.png", 99).read_bytes()
    for name, body in {"set.csv": TABLE, "cat/1.png": content, "dog/1.png": content, "dog/empty.png": b""}.items():
        bucket.put_object(Bucket="photos", Key=f"v1/{name}", Body=body)
    source = from_url("s3://photos/v1/set.csv", "set")
    assert source.classes == ("cat", "dog")
    assert source.splits.tolist() == [0, 0, 2]
    assert read_url(source.storage.location(0).path, len(content)) == content
    assert read_error(source.storage.location(1).path, len(content) - 1) == "too_large"
    assert read_error(source.storage.location(2).path) == "missing"
    assert read_error("s3://photos/v1/dog/empty.png") == "empty"
    folder = from_url("s3://photos/v1", "v1")
    assert folder.paths == ["cat/1.png", "dog/1.png", "dog/empty.png"]
    assert [finding.path for finding in folder.left_out] == ["set.csv"]
    stamp = url_stamp("s3://photos/v1/cat/1.png")
    assert stamp.startswith(f'{len(content)} "')


@pytest.mark.heavy
def test_a_store_that_lacks_bucket_key_or_connection_is_told_within_seconds(bucket, monkeypatch):
    for url, message in {
        "s3://nobody/set.csv": "The specified bucket does not exist",
        "s3://nobody/set": "The specified bucket does not exist",
        "s3://photos/set.csv": "nothing is there",
        "s3://key:SECRET@photos/set.csv": "Invalid bucket name",
    }.items():
        with pytest.raises(DataError) as caught:
            from_url(url, "set")
        assert message in str(caught.value)
        assert "SECRET" not in str(caught.value)
    assert read_error("s3://nobody/a.png") == "missing"
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(DataError, match="Could not connect to the endpoint URL"):
        from_url("s3://photos/set.csv", "set")
    assert read_error("s3://photos/a.png") == "unreadable"


@pytest.mark.heavy
def test_a_store_without_credentials_is_told(monkeypatch, tmp_path):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match="Unable to locate credentials"):
        from_url("s3://photos/set.csv", "set")
    s3fs.S3FileSystem.clear_instance_cache()
