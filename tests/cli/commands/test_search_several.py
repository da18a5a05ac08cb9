"""A search on images with several labels, from a table of lists to a table of lists."""

import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image, ImageDraw

from tests.cli.workspace import pipeline

pytestmark = pytest.mark.heavy
SHARES = {"circle": 0.5, "red": 0.3, "square": 0.4}


def draw(labels, rng):
    """Return a noisy picture of 16 x 16 pixels with a circle and a square, red or green, and red dots if it is red."""
    picture = Image.fromarray(rng.normal(70, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8))
    brush, ink = ImageDraw.Draw(picture), (230, 60, 60) if "red" in labels else (90, 200, 120)
    left, top = rng.integers(0, 7, 2).tolist()
    if "circle" in labels:
        brush.ellipse((left, top, left + 7, top + 7), outline=ink, width=2)
    if "square" in labels:
        brush.rectangle((top, left, top + 6, left + 6), outline=ink, width=1)
    if "red" in labels:
        brush.point([tuple(rng.integers(0, 16, 2).tolist()) for _ in range(12)], fill=ink)
    return picture


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder with a table of 360 pictures; the labels of each are drawn independently of each other."""
    folder, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    (folder / "pictures").mkdir()
    with (folder / "shapes.jsonl").open("w") as table:
        for number in range(360):
            labels = [name for name, share in SHARES.items() if rng.random() < share]
            path = f"pictures/{number:04d}.png"
            draw(labels, rng).save(folder / path)
            table.write(json.dumps({"path": path, "label": labels}) + "\n")
    return folder


@pytest.fixture(scope="module")
def found(shapes):
    """What a short search of the smallest space found."""
    options = ("--space", "tiny", "--trials", "2", "--epochs", "16", "--average-flips", "--json")
    done = pipeline(shapes, "search", "shapes.jsonl", *options)
    assert done.returncode == 0, done.stderr
    assert "360 images, 3 classes, several labels an image" in done.stderr
    assert "objective val_auc (images have several labels" in done.stderr
    return json.loads(done.stdout)


def test_the_check_takes_lists_of_labels(shapes):
    done = pipeline(shapes, "data", "check", "shapes.jsonl")
    assert (done.returncode, "3 (any number of them an image): circle" in done.stdout) == (0, True)


def test_the_plan_of_a_search_says_that_an_image_has_several_labels(shapes):
    done = pipeline(shapes, "search", "shapes.jsonl", "--space", "tiny", "--trials", "1", "--epochs", "1", "--dry-run")
    assert "3 (any number of them an image): circle, red, square" in done.stdout
    assert "val_auc" in done.stdout


def test_labels_are_learned_and_judged_one_by_one(found):
    test = found["test"]
    assert test["metrics"]["auc"]["value"] > 0.85  # by chance 0.5
    assert (found["objective"], found["is_multi_label"], found["flaw"]) == ("val_auc", True, "")
    assert (test["majority"]["metric"], test["majority"]["value"]) == ("auc", 0.5)
    assert list(found["by_class"]) == sorted(SHARES)
    assert found["by_class"]["red"]["auc"] > 0.9
    assert found["search_gain"]["metric"] == "auc"
    assert found["robustness"]["accuracy"] == test["accuracy"]


def test_scores_are_lists_that_a_search_reads(shapes, found):
    done = pipeline(shapes, "score", "champion", "pictures", "-o", "scores", "--csv", "scores.csv", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    rows = [row for part in sorted((shapes / "scores").glob("*.parquet")) for row in read(part)]
    truth = [set(json.loads(line)["label"]) for line in (shapes / "shapes.jsonl").read_text().splitlines()]
    assert sum(bool(row["label"]) for row in rows) == 360 - counts["unlabelled"]
    assert all(min(row["probability"], default=1) >= 0.5 for row in rows)
    assert all(len(row["label"]) == len(row["probability"]) for row in rows)
    num_wrong = sum(len(set(row["label"]) ^ labels) for row, labels in zip(rows, truth, strict=True))
    assert num_wrong < 0.2 * 3 * 360  # blindly, 0.4
    checked = json.loads(pipeline(shapes, "data", "check", "scores.csv", "--json").stdout)
    assert {name: number for name, number in checked["classes"].items() if number} == counts["labels"]


def read(part):
    return pyarrow.parquet.read_table(part).to_pylist()


def test_wrong_labels_are_not_looked_for(shapes, found):
    done = pipeline(shapes, "data", "suspects", found["study"])
    assert done.returncode == 3
    assert "an image has several labels; expected one" in done.stderr


def test_the_same_command_again_shows_the_result(shapes, found):
    again = pipeline(shapes, "search", "shapes.jsonl", "--name", found["study"])
    assert f"{found['test']['accuracy']:.2%}  (all labels of an image right; 95 % interval" in again.stdout
    assert "all labels of an image right" in pipeline(shapes, "runs", found["study"]).stdout
