"""Images that are decoded when they are asked for: in children, so that no file harms the process that asks."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.data.cache import streaming
from pipeline.data.cache.streaming import StreamedImages, write_locations
from pipeline.data.decoding.chunks import decode_chunk
from pipeline.data.source import NOT_GIVEN, Files, Source
from pipeline.errors import DataError
from pipeline.records import ImageSpec
from tests.data.loopback import serve

pytestmark = pytest.mark.heavy

SPEC = ImageSpec(4, 5, 3, "uint8", "#000000")


def die_on_three(chunk, spec):
    if any(location.path.endswith("3.png") for location in chunk.locations):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_chunk(chunk, spec)


@pytest.fixture
def streamed(tmp_path):
    for number in range(10):
        Image.new("RGB", (5, 4), (number, 2 * number, 0)).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(10)]
    splits = np.full(10, NOT_GIVEN, np.uint8)
    labels = np.zeros(10, np.int32)
    source = Source("set", "set", ("a",), names, labels, splits, Files(str(tmp_path), names))
    write_locations(tmp_path / "index.parquet", source)
    return StreamedImages(tmp_path / "index.parquet", SPEC)


def test_urls_stream_from_machines_that_the_user_named(tmp_path, streamed):
    names = [f"{number}.png" for number in range(10)]
    with serve({f"/{name}?sig=SECRET": (tmp_path / name).read_bytes() for name in names}) as address:
        urls = [f"{address}/{name}?sig=SECRET" for name in names]
        labels, splits = np.zeros(10, np.int32), np.full(10, NOT_GIVEN, np.uint8)
        source = Source("set", "set", ("a",), names, labels, splits, Files("", urls, ("127.0.0.1",)))
        write_locations(tmp_path / "urls.parquet", source)
        write_locations(tmp_path / "kept.parquet", source, is_streamed=False)
        assert StreamedImages(tmp_path / "urls.parquet", SPEC)[3:5][:, 0, 0, 0].tolist() == [3, 4]
        write_locations(tmp_path / "unnamed.parquet", replace(source, storage=Files("", urls)))
        with pytest.raises(DataError, match=r"/3\.png\?sha256=[0-9a-f]{12}: refused, the address is on this machine"):
            StreamedImages(tmp_path / "unnamed.parquet", SPEC)[3:5]
    assert (tmp_path / "urls.parquet").stat().st_mode & 0o777 == 0o600
    assert b"SECRET" not in (tmp_path / "kept.parquet").read_bytes()


def decoders():
    return {child.pid for child in multiprocessing.active_children()}


def test_rows_come_in_the_order_they_are_asked_for(streamed):
    assert streamed.shape == (10, 4, 5, 3)
    images = streamed[np.array([7, 2, 9, 2])]
    assert images[:, 0, 0].tolist() == [[7, 14, 0], [2, 4, 0], [9, 18, 0], [2, 4, 0]]
    assert streamed[3:5][:, 0, 0, 0].tolist() == [3, 4]
    assert streamed[np.zeros(0, np.int64)].shape == (0, 4, 5, 3)


def test_a_file_that_kills_the_decoder_is_named_and_the_rest_goes_on(streamed, monkeypatch):
    monkeypatch.setattr(streaming, "decode_chunk", die_on_three)
    with pytest.raises(DataError, match=r"3\.png: killed, the decoder died \(signal 9, .*\); expected the picture"):
        streamed[np.arange(10)]
    assert streamed[np.array([2, 4])][:, 0, 0, 0].tolist() == [2, 4]


def test_decoders_that_were_killed_are_replaced(streamed):
    streamed[:]
    for pid in decoders():
        os.kill(pid, signal.SIGKILL)
    assert streamed[:][:, 0, 0, 0].tolist() == list(range(10))


def test_the_decoders_end_with_the_images(streamed, tmp_path):
    before = decoders()
    other = StreamedImages(tmp_path / "index.parquet", SPEC)
    other[:]
    started = decoders() - before
    assert started
    del other
    deadline = time.monotonic() + 20
    while started & decoders():
        assert time.monotonic() < deadline
        time.sleep(0.05)
