"""The door to URLs: which are followed, what arrives of them, and that nothing else in the package opens one."""

import re
from pathlib import Path

import pytest

import pipeline
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.urls import is_public, open_store, public_name, read_url, told, url_stamp
from pipeline.data.source import Files, local_path
from pipeline.errors import DataError
from pipeline.text import is_url, redacted
from tests.data.loopback import website

HERE = ("127.0.0.1",)


def error_of(url, max_bytes=100, hosts=()):
    with pytest.raises(DecodeError) as caught:
        read_url(url, max_bytes, hosts)
    return caught.value.code, caught.value.detail


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


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///my%20photos/%C3%BC%25.png", "/my photos/ü%.png"),
        ("FILE://localhost/a.png", "/a.png"),
        ("file:///a%FF.png", "/a\udcff.png"),
        ("file://photos/a.png", "file://photos/a.png"),
        ("photos/100%20.png", "photos/100%20.png"),
    ],
)
def test_a_file_url_is_the_path_that_it_encodes(text, path):
    assert local_path(text) == path


def test_images_by_file_url_are_files(tmp_path):
    path = tmp_path / "50% of Straße #1?.png"
    assert Files("elsewhere", [path.as_uri()]).location(0).path == str(path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("reference://x::http://127.0.0.1/ref.json", "chained URLs"),
        ("simplecache::s3://bucket/a.png", "chained URLs"),
        ("http://h/a.png::http://h/b.png", "chained URLs"),
        ("memory://a.png", "memory:// URLs are not followed"),
        ("ftp://host/a.png", "ftp:// URLs are not followed"),
        ("local:///etc/passwd", "local:// URLs are not followed"),
        ("zip://a.png", "zip:// URLs are not followed"),
        ("github://o:r@main/a.png", "github:// URLs are not followed"),
        ("file://photos/a.png", "needs an absolute path"),
    ],
)
def test_a_url_of_another_kind_reaches_no_driver(url, reason):
    code, detail = error_of(url)
    assert code == "refused"
    assert reason in detail
    assert url_stamp(url) == "refused"
    with pytest.raises(DataError, match=reason):
        open_store(url)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%1", False),
        ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("2002:7f00:1::", False),
        ("::7f00:1", False),
        ("::ffff:0:7f00:1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::1", False),
        ("fec0::1", False),
    ],
)
def test_public_addresses_are_told_from_all_others(address, expected):
    assert is_public(address) == expected


def test_a_row_reaches_this_machine_only_if_the_user_names_it():
    with website({"/a.png": (200, {}, b"picture")}) as (address, asked):
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0"):
            code, detail = error_of(f"http://{host}:{port}/a.png")
            assert code == "refused"
            assert "add --allow-host " in detail
        assert asked == []
        assert read_url(f"{address}/a.png", 100, HERE) == b"picture"
        assert read_url(f"http://localhost:{port}/a.png", 100, ("LocalHost.",)) == b"picture"
        assert read_url(f"http://[::ffff:127.0.0.1]:{port}/a.png", 100, ("[::ffff:127.0.0.1]",)) == b"picture"


def test_a_redirect_to_a_private_address_is_not_followed():
    answers = {"/b.png": (200, {}, b"secret")}
    with website(answers) as (address, asked):
        answers["/away"] = (302, {"Location": f"http://127.0.0.2:{address.rpartition(':')[2]}/b.png"}, b"")
        assert error_of(f"{address}/away", 100, HERE)[0] == "refused"
        assert asked == ["GET /away"]
        assert read_url(f"{address}/away", 100, (*HERE, "127.0.0.2")) == b"secret"


def test_a_server_that_knows_no_ranges_is_read_to_the_limit_only():
    with website({"/endless": (200, {"Content-Length": str(1 << 40)}, bytes(1 << 20))}) as (address, asked):
        assert error_of(f"{address}/endless", 200_000, HERE) == ("too_large", "more than 200000 bytes")
    assert asked.count("more") < 16  # MiB, which lay in the buffers of both sides


def test_what_a_server_says_of_a_file():
    with website({"/empty": (200, {}, b"")}) as (address, _):
        assert error_of(f"{address}/empty", 9, HERE)[0] == "empty"
        assert error_of(f"{address}/none", 9, HERE)[0] == "missing"
        assert url_stamp(f"{address}/none", HERE) == "missing"


def test_a_stamp_changes_with_the_content():
    """By the version that the server tells, else by what it sends."""
    answers = {
        "/etag": (200, {"ETag": '"1"'}, b"one"),
        "/dated": (200, {"Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}, b"one"),
        "/plain": (200, {}, b"one"),
    }
    with website(answers) as (address, asked):
        first = [url_stamp(address + path, HERE) for path in answers]
        assert first[:2] == ['3 "1"', "3 Mon, 30 Nov 2026 10:00:00 GMT"]
        assert first == [url_stamp(address + path, HERE) for path in answers]
        assert {line for line in asked if line.startswith("GET")} == {"GET /plain"}
        answers["/etag"] = (200, {"ETag": '"2"'}, b"two")
        answers["/dated"] = (200, {"Last-Modified": "Mon, 30 Nov 2026 11:00:00 GMT"}, b"two")
        answers["/plain"] = (200, {}, b"two")
        assert not set(first) & {url_stamp(address + path, HERE) for path in answers}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@host/a?sig=1", "https://host/a"),
        ("https://me:p@w'd e@host:81/it's a.jpg?a=1&sig='x y'", "https://host:81/it's a.jpg"),
        ("s3://b/c@d.jpg", "s3://b/c@d.jpg"),
        ("https://host?sig=1", "https://host"),
        ("photos/what? a@b.png", "photos/what? a@b.png"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert redacted(url) == shown


def test_what_an_exception_says_is_told_without_secrets_and_urls():
    url = "https://me:pa'ss@host/it's a.jpg?token=a'b c"
    texts = (f"Cannot connect to {url}", f"404, message='Not Found', url='{url}'", "denied to me:pa'ss by token=a'b c")
    for text in texts:
        try:
            raise OSError("asked") from ValueError(text)
        except OSError as error:
            shown = told(error, url)
        assert not any(secret in shown for secret in ("pa'ss", "token", "a'b")), shown
        assert shown.startswith(("Cannot connect to", "404, message='Not Found'", "denied to ***"))


def test_images_that_differ_by_their_query_keep_different_names():
    names = [public_name(f"https://me:pw@host/image?id={number}&sig=SECRET") for number in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert re.fullmatch(r"https://host/image\?sha256=[0-9a-f]{12}", names[0])
    assert public_name("photos/a@b?c.png") == "photos/a@b?c.png"


def test_no_other_module_opens_urls():
    """fsspec opens chains and any protocol, and so do the readers of pandas and pyarrow when they are given a URL."""
    home = Path(pipeline.__file__).parent
    texts = {str(path.relative_to(home)): path.read_text(encoding="utf-8") for path in home.rglob("*.py")}
    speak_fsspec = {name for name, text in texts.items() if re.search(r"\bfsspec\.|import fsspec|from fsspec", text)}
    assert speak_fsspec == {"data/decoding/urls.py"}
    foreign = re.compile(
        r"\b(open_files|url_to_fs|get_mapper|fsspec\.open|read_csv|pandas\.read_|pd\.read_|FileSystem\.from_uri)\b"
    )
    assert {name for name, text in texts.items() if foreign.search(text)} <= {
        "cli/commands/score.py"
    }  # which prints a command
    clients = re.compile(r"\b(import|from) (requests|aiohttp|httpx|boto3|botocore|s3fs|gcsfs|urllib3)\b")
    assert {name for name, text in texts.items() if clients.search(text)} == {
        "data/decoding/urls.py",
        "tracking/store.py",
    }  # MLflow
    assert {name for name, text in texts.items() if "urlopen" in text} == {"data/cache/download.py"}
