"""Images, tables and folders behind URLs: what arrives, and what is said when nothing does."""

import functools
import http.server
import io
import sys
import threading

import fsspec
import pytest
from fsspec.registry import _registry

from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.urls import read_url, url_stamp
from pipeline.data.readers.folders import labelled
from pipeline.data.readers.remote import from_url, guarded, list_store, refuse_unserved
from pipeline.data.readers.tables import from_table, read_table
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


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_on_a_server_names_images_beside_it(tmp_path, website, ending):
    line = '{"path": "cat/1.png", "label": "cat"}\n{"path": "s3://other/2.png", "label": "dog"}\n'
    text = line if ending == "jsonl" else "path,label\ncat/1.png,cat\ns3://other/2.png,dog\n"
    (tmp_path / f"set.{ending}").write_text(text)
    source = from_url(f"{website}/set.{ending}", "set")
    assert (source.name, source.origin, source.classes) == ("set", f"{website}/set.{ending}", ("cat", "dog"))
    assert list(source.paths) == ["cat/1.png", "s3://other/2.png"]
    assert [source.storage.location(row).path for row in (0, 1)] == [f"{website}/cat/1.png", "s3://other/2.png"]


def test_a_parquet_table_on_a_server(tmp_path, website):
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"path": ["1.png", "2.png"], "label": ["cat", "dog"]}), tmp_path / "set.parquet"
    )
    assert list(from_url(f"{website}/set.parquet", "set").paths) == ["1.png", "2.png"]


def read_error(url, max_bytes=100, hosts=()):
    with pytest.raises(DecodeError) as caught:
        read_url(url, max_bytes, hosts)
    return caught.value.code


def test_a_folder_in_a_store_is_read_like_one_on_disk(memory):
    for name in ("train/cat/1", "train/dog/deep/1", "test/cat/1", "test/dog/2", "README", "train/.x/1", "test/dog/.y"):
        memory.pipe(f"/set/{name}", b"x")
    source = labelled(list_store(memory, "/set"), "s3://bucket/set", "set", "s3://bucket/set")
    assert source.classes == ("cat", "dog")
    assert list(source.paths) == ["test/cat/1", "test/dog/2", "train/cat/1", "train/dog/deep/1"]
    assert source.splits.tolist() == [2, 2, 0, 0]
    assert source.storage.location(3).path == "s3://bucket/set/train/dog/deep/1"
    found = {finding.path: finding.code for finding in source.left_out}
    assert found == {"README": "no_label", "train/.x/1": "hidden", "test/dog/.y": "hidden"}


def test_a_store_without_classes_shows_the_layout(memory):
    memory.pipe("/set/1.png", b"x")
    with pytest.raises(DataError, match="s3://b/set: found no files in sub-folders; expected s3://b/set/CLASS/image"):
        labelled(list_store(memory, "/set"), "s3://b/set", "set", "s3://b/set")


def test_a_table_and_its_images_by_http(tmp_path, website):
    (tmp_path / "set.csv").write_bytes(TABLE)
    picture = write_picture(tmp_path / "cat" / "1.png", 99)
    source = from_url(f"{website}/set.csv?signature=SECRET", "set", ["127.0.0.1"])
    assert source.origin == f"{website}/set.csv"
    assert source.splits.tolist() == [0, 0, 2]
    location = source.storage.location(0)
    assert read_url(location.path, 10_000, location.hosts) == picture.read_bytes()
    assert read_error(location.path, 9, location.hosts) == "too_large"
    assert read_error(source.storage.location(2).path, 9, location.hosts) == "missing"


def test_rows_do_not_reach_the_private_machine_that_their_table_lies_on(tmp_path, website):
    """Unless the user names it for them: what a table says is foreign, wherever it lies."""
    (tmp_path / "set.csv").write_bytes(TABLE)
    location = from_url(f"{website}/set.csv", "set").storage.location(0)
    assert read_error(location.path, 10_000, location.hosts) == "refused"


def test_names_hold_no_secret_of_a_url_and_the_storage_keeps_it(tmp_path):
    rows = [f"https://me:pw@host/image?id={number}&sig=SECRET" for number in (1, 2)] + ["a.png"]
    (tmp_path / "set.jsonl").write_text("".join(f'{{"path": "{row}", "label": "{row[-1]}"}}\n' for row in rows))
    source = guarded(from_table(tmp_path / "set.jsonl", "set"), ["host"])
    assert not any(secret in "".join(source.paths) for secret in ("me", "pw", "SECRET"))
    assert len(set(source.paths)) == 3
    assert [source.storage.location(row).path for row in range(3)] == [*rows[:2], str(tmp_path / "a.png")]
    assert source.storage.location(0).hosts == ("host",)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("WEBSITE/none.csv", "cannot be read (404, message='File not found'"),
        ("WEBSITE/none", "cannot be read (nothing is there)"),
        ("zork://a/b.csv", "zork:// URLs are not followed; use s3://, "),
        ("reference://x::http://127.0.0.1:9/set.csv", "chained URLs (with ::) are not followed"),
        (
            "http://user:pass@127.0.0.1:9/set.csv?sig=SECRET",
            "http://127.0.0.1:9/set.csv: cannot be read (Cannot connect",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_without_secrets(website, place, message):
    with pytest.raises(DataError) as caught:
        from_url(place.replace("WEBSITE", website), "set")
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert not any(secret in text for secret in ("user", "pass", "SECRET"))


@pytest.mark.parametrize("url", ["nowhere://b.png", "reference://x::http://127.0.0.1:9/b.png", "file://b/c.png"])
def test_a_table_that_names_what_is_not_followed_is_refused(tmp_path, url):
    table = f"path,label\na.png,cat\n{url},dog\n"
    with pytest.raises(DataError, match=r"set\.csv, row 2: .*b(\.png|/c\.png): "):
        refuse_unserved(read_table(io.BytesIO(table.encode()), ".csv", "set.csv", "set", ""))


@pytest.mark.parametrize("name", ["set.npz", "set.tar", "SET.TAR.GZ?sig=1"])
def test_arrays_and_archives_are_read_from_the_disk_only(name):
    with pytest.raises(DataError, match=r"address of an array or archive; expected that of a table.*fetch the file"):
        from_url(f"s3://bucket/{name}", "set")


def test_the_case_of_a_scheme_does_not_matter(tmp_path, website):
    (tmp_path / "set.csv").write_bytes(b"path,label\na.png,cat\n")
    assert list(from_url(website.replace("http", "HTTP") + "/set.csv", "set").paths) == ["a.png"]


@pytest.mark.parametrize(("scheme", "package", "extra"), [("gs", "gcsfs", "gs"), ("s3a", "s3fs", "s3")])
def test_a_driver_that_is_not_installed_is_named(monkeypatch, scheme, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, extra, raising=False)  # an earlier test may have loaded it
    table = f"path,label\na.png,cat\n{scheme}://bucket/a.png,dog\n"
    with pytest.raises(DataError) as caught:
        refuse_unserved(read_table(io.BytesIO(table.encode()), ".csv", "set.csv", "set", ""))
    assert str(caught.value).startswith(f"set.csv: {scheme}://bucket/a.png: import of {package} halted")
    assert str(caught.value).endswith(f', which {extra}:// needs; pip install "keras-image-pipeline[{extra}]"')


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
