"""`pipeline data suspects` as a user runs it: flipped labels come first, and no training is lost or repeated."""

import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InvalidUsage
from pipeline.workflows import suspects as workflow
from tests.cli.workspace import TINY, pipeline, started

CLASSES = ("dark", "grey", "light")
FLIPPED = {"photos/light/dark-5.png": "dark", "photos/dark/grey-7.png": "grey", "photos/grey/light-2.png": "light"}


def write_flipped_photos(folder):
    """Write 3 classes of 24 noise pictures that brightness tells apart, three of them in a wrong folder."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for index in range(24):
            pixels = np.clip(rng.normal(40 + 60 * number, 10, (10, 12)), 0, 255).astype(np.uint8)
            path = folder / "photos" / name / f"{name}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for wrong, name in FLIPPED.items():
        (folder / "photos" / name / wrong.rpartition("/")[2]).rename(folder / wrong)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A workspace in which a search on photos with three wrong labels has ended."""
    folder = tmp_path_factory.mktemp("suspects")
    (folder / "tiny.yaml").write_text(TINY)
    write_flipped_photos(folder)
    done = pipeline(folder, "search", "photos", "--trials", "1", "--space", "./tiny.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def suspects(folder, *arguments):
    return pipeline(folder, "data", "suspects", "photos-1", *arguments)


def wait_for(path, seconds=300.0):
    wait_until(path.exists, seconds)


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.heavy
def test_flipped_labels_come_first_also_after_an_interruption(searched):
    kept = searched / "mlruns" / "studies" / "photos-1" / "suspects"
    with started(searched, "data", "suspects", "photos-1", "--folds", "3") as process:
        wait_for(kept / "fold-1-of-3.npy")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "continue with: pipeline data suspects photos-1 --folds 3 --top 20" in stderr
    first = (kept / "fold-1-of-3.npy").stat()

    done = suspects(searched, "--folds", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert "of 3 folds, 25 epoch(s) each: about" in done.stderr
    assert "fold 1 of 3: accuracy" not in done.stderr
    assert "fold 3 of 3: accuracy" in done.stderr
    assert (kept / "fold-1-of-3.npy").stat().st_mtime_ns == first.st_mtime_ns

    facts = json.loads(done.stdout)
    assert (facts["schema"], facts["study"], facts["num_images"], facts["num_folds"]) == (1, "photos-1", 72, 3)
    assert {found["path"]: found["suggested"] for found in facts["suspects"][:3]} == FLIPPED
    assert facts["estimated_errors"] == 3
    assert facts["accuracy"] == pytest.approx(69 / 72)
    assert len(facts["suspects"]) == 20
    first, scores = facts["suspects"][0], [found["score"] for found in facts["suspects"]]
    assert set(first) == {"path", "label", "suggested", "p_label", "p_suggested", "score", "split"}
    assert first["label"] == first["path"].split("/")[1]
    assert first["p_label"] < 0.1 < 0.9 < first["p_suggested"]
    assert scores == sorted(scores, reverse=True)
    assert {found["split"] for found in facts["suspects"]} <= {"train", "val", "test"}


def children_of(parent):
    """Return the processes below a process, as /proc tells."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return found - {parent}


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(process, number, after=None):
    """Kill a command once a file is there, or as soon as it has children, which import then; these end with it."""
    wait_until(after.exists if after else lambda: len(children_of(process.pid)) > 1, 300)
    children = children_of(process.pid)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    assert children
    wait_until(lambda: not any(map(is_running, children)), 5)


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_call_leaves_no_child_and_the_next_one_goes_on(searched):
    first_fold = searched / "mlruns" / "studies" / "photos-1" / "suspects" / "fold-1-of-2.npy"
    for number, after in ((signal.SIGKILL, None), (signal.SIGTERM, first_fold)):
        with started(searched, "data", "suspects", "photos-1", "--folds", "2") as process:
            kill(process, number, after)
    (first_fold.parent / ".fold-2-of-2.npy.tmp-1").write_bytes(b"half")  # as a kill between two writes leaves it
    done = suspects(searched, "--folds", "2")
    assert done.returncode == 0, done.stderr
    assert "fold 1 of 2" not in done.stderr
    assert "fold 2 of 2: accuracy" in done.stderr
    assert not list(first_fold.parent.glob(".*"))


def test_a_page_of_another_name_is_refused_before_anything_is_trained(tmp_path):
    request = workflow.SuspectsRequest("photos-1", html=Path("tiny.yaml"), workspace=tmp_path)
    with pytest.raises(
        InvalidUsage, match=r"--html tiny\.yaml: the ending '\.yaml' is not supported; use \.html, \.htm"
    ):
        workflow.run(request)


@pytest.mark.heavy
def test_a_second_call_trains_nothing_and_shows_table_and_pictures(searched):
    suspects(searched, "--folds", "3")
    kept = searched / "mlruns" / "studies" / "photos-1" / "suspects"
    dates = {path: path.stat().st_mtime_ns for path in kept.glob("fold-*-of-3.npy")}
    done = suspects(searched, "--folds", "3", "--top", "4", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    assert "the predictions of 3 folds are kept from an earlier call" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in dates} == dates
    assert len(dates) == 3
    lines = done.stdout.splitlines()
    assert lines[0] == "images                72, each judged by a network that did not see it"
    assert lines[2].startswith("labels to look at     about 3 (4.2%)")
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert {row[1]: row[3] for row in rows[:3]} == FLIPPED
    assert "write a table with" in done.stdout
    page = (searched / "page.html").read_text()
    assert page.count("<img") == 4
    assert all(path in page for path in FLIPPED)


@pytest.mark.heavy
def test_cleared_images_and_unknown_studies_say_what_to_do(searched):
    images = searched / "mlruns" / "cache" / "images"
    images.rename(images.with_name("elsewhere"))
    done = suspects(searched, "--folds", "5")
    shutil.rmtree(images, ignore_errors=True)
    images.with_name("elsewhere").rename(images)
    assert done.returncode == 3
    assert "were cleared away" in done.stderr
    assert "pipeline search DATA --name photos-1 --resume (DATA was photos)" in done.stderr
    assert "Traceback" not in done.stderr
    unknown = pipeline(searched, "data", "suspects", "never")
    assert (unknown.returncode, "study never: not found" in unknown.stderr) == (3, True)
