"""Each broken or odd file has the outcome in the table, raises nothing but DecodeError, and keeps nobody waiting."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.content import read_file
from pipeline.data.decoding.decode import ERROR_CODES, decode_picture, probe
from pipeline.records import ImageSpec
from tests.data.broken import CASES, SPEC, png, write_broken

pytestmark = pytest.mark.heavy  # many cases: seconds

SECONDS = 20  # for one file; they take milliseconds


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("broken")
    return folder, write_broken(folder)


@pytest.fixture(autouse=True)
def alarm():
    def ring(number, frame):
        raise TimeoutError(f"a file took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcome(path: str, spec: ImageSpec) -> str:
    try:
        pixels, header = decode_picture(read_file(path), spec)
    except DecodeError as error:
        return error.code if error.detail else "no detail"
    assert pixels.shape == spec.shape
    assert pixels.dtype == spec.dtype
    assert min(header.width, header.height) > 0
    return "ok"


@pytest.mark.parametrize("name", CASES, ids=lambda name: ascii(name)[1:40])
def test_file_has_the_outcome_in_the_table(name, written):
    folder, expected = written
    if name not in expected:
        pytest.skip("root may read it")
    assert outcome(f"{folder}/{name}", SPEC) == expected[name], CASES[name].note


@pytest.mark.parametrize(
    "spec", [ImageSpec(9, 8, 1, "uint16"), ImageSpec(8, 9, 1, "float32"), ImageSpec(8, 8, 5, "float32")], ids=str
)
def test_every_file_has_an_outcome_under_every_kind_of_specification(spec, written):
    folder, expected = written
    outcomes = {name: outcome(f"{folder}/{name}", spec) for name in expected}
    assert set(outcomes.values()) <= {"ok", *ERROR_CODES}
    assert outcomes["nan.tif"] == ("corrupt" if spec == ImageSpec(8, 9, 1, "float32") else "unsupported")
    assert outcomes["five_bands.tif"] == outcomes["five_bands.npy"] == ("ok" if spec.channels == 5 else "unsupported")
    assert outcomes["cmyk.jpg"] == ("ok" if spec.channels == 1 else "unsupported")
    assert outcomes["lab.tif"] == ("ok" if spec.channels == 1 else "unsupported")
    assert outcomes["cut_50.png"] == "corrupt"


def test_header_tells_of_too_many_pixels_before_they_take_memory(written):
    folder, expected = written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in [name for name, code in expected.items() if code == "too_large" and name != "over_64_mib.jpg"]:
        with pytest.raises(DecodeError) as raised:
            probe((folder / name).read_bytes())
        assert (name, raised.value.code) == (name, "too_large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB


def test_more_bands_than_any_tiff_has_are_refused_by_the_header(written):
    with pytest.raises(DecodeError) as raised:
        probe((written[0] / "many_bands.npy").read_bytes())
    assert raised.value.detail == "70000 bands; expected at most 65535"


def test_probe_and_decode_say_the_same_of_every_usable_file(written):
    folder, expected = written
    differing = []
    for name in [name for name, code in expected.items() if code == "ok"]:
        content = (folder / name).read_bytes()
        if probe(content) != decode_picture(content, SPEC)[1]:
            differing.append(name)
    assert differing == ["late_exif.png"]


def test_bytes_behind_a_picture_and_wrong_endings_change_no_pixel(written):
    folder, _ = written

    def pixels(name: str) -> np.ndarray:
        return decode_picture((folder / name).read_bytes(), SPEC)[0]

    np.testing.assert_array_equal(pixels("zip_appended.jpg"), pixels("jpeg_inside.png"))
    np.testing.assert_array_equal(pixels("no_iend.png"), pixels("png_inside.jpg"))
    np.testing.assert_array_equal(pixels("exif_garbage.jpg"), pixels("orientation_9.jpg"))


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from pipeline.data.decoding.bands import DecodeError
from pipeline.data.decoding.decode import decode
from pipeline.records import ImageSpec
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
try:
    decode(Path(sys.argv[1]).read_bytes(), ImageSpec(8, 8, 3))
except DecodeError as error:
    print(error.code, error.detail)
"""


def test_lack_of_memory_is_no_fault_of_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png(8000, 5000, b""))
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path / "a.png")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (child.stdout, child.stderr) == ("killed out of memory\n", "")


def test_broken_tiffs_put_no_lines_into_the_log(written, caplog):
    folder, expected = written
    for name in [name for name in expected if name.endswith(".tif")]:
        outcome(f"{folder}/{name}", SPEC)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["third_page_broken.tif", "third_frame_broken.gif"])
def test_damage_behind_the_first_frame_costs_neither_it_nor_its_header(name, written):
    pixels, header = decode_picture((written[0] / name).read_bytes(), ImageSpec(2, 2, 1))
    first = (written[0] / ("loop.tif" if name.endswith(".tif") else "one_frame.gif")).read_bytes()
    np.testing.assert_array_equal(pixels, decode_picture(first, ImageSpec(2, 2, 1))[0])
    assert header.num_frames == 1


def test_table_holds_every_kind_of_outcome():
    assert len(CASES) >= 60
    assert {case.expected for case in CASES.values()} == {"ok", *ERROR_CODES} - {"killed", "refused"}
