"""A search on data that needs care: a given split that leaks, deep grey pixels, weights, folds."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.workspace import TINY, pipeline

pytestmark = pytest.mark.heavy
NUM_LEAKED = 4


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """A table of 16-bit pictures with a split in which four test pictures are copies of training pictures."""
    folder = tmp_path_factory.mktemp("leaking")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "deep").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        for label, level in (("dark", 10_000), ("light", 40_000)):
            pixels = np.clip(rng.normal(level, 3_000, (10, 12)), 0, 65_535).astype(np.uint16)
            name = f"deep/{label}-{number}.png"
            Image.fromarray(pixels).save(folder / name)
            rows.append([name, label, "test" if number >= 48 else "train", 1 + number % 2])
            if number < NUM_LEAKED / 2:
                Image.fromarray(pixels).save(folder / f"deep/{label}-{number}-copy.tif")
                rows.append([f"deep/{label}-{number}-copy.tif", label, "test", 1])
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "weight"], *rows])
    return folder


def test_a_leaking_split_is_refused_with_what_to_do(leaking):
    done = pipeline(leaking, "search", "table.csv", "--space", "tiny.yaml", "--trials", "1")
    assert done.returncode == 3
    assert "the given split leaks: 4 picture(s) or groups stand in two splits" in done.stderr
    assert "--allow-leak" in done.stderr
    checked = pipeline(leaking, "data", "check", "table.csv", "--json")
    assert checked.returncode == 3
    assert json.loads(checked.stdout)["verdict"] == "refuse"
    assert len(json.loads(checked.stdout)["leaks"]) == NUM_LEAKED


def test_folds_leaks_weights_and_deep_pixels_go_through_a_whole_search(leaking):
    import pyarrow.parquet
    from mlflow.tracking import MlflowClient

    done = pipeline(
        leaking,
        "search",
        "table.csv",
        "--space",
        "tiny.yaml",
        "--trials",
        "1",
        "--folds",
        "2",
        "--allow-leak",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert "4 test image(s) have a copy in train or val" in done.stderr
    assert "2 folds of train + val" in done.stderr
    assert facts["test"]["num_images"] == 24
    assert facts["test"]["leaked"]["num_images"] == NUM_LEAKED
    assert facts["winner"]["val_accuracy"] > 0.9
    client = MlflowClient(f"sqlite:///{leaking}/mlflow.db")
    (parent,) = [run for run in client.search_runs(["1"]) if run.data.tags.get("mlflow.runName") == "table-1"]
    local = client.download_artifacts(parent.info.run_id, "data/split.parquet", str(leaking))
    manifest = pyarrow.parquet.read_table(local).to_pylist()
    assert len(manifest) == 124
    assert {row["split"] for row in manifest} == {"train", "val", "test"}
    assert all(len(row["sha256"]) == 64 for row in manifest)
    assert parent.inputs.dataset_inputs[0].dataset.name == "table"
    shown = pipeline(leaking, "search", "table.csv", "--name", "table-1", "--resume").stdout
    assert "if 4 test images counted that have a copy in train or val" in shown
    scored = pipeline(leaking, "score", "champion", "deep", "-o", "scores", "--csv", "scores.csv")
    assert scored.returncode == 0, scored.stderr
    with (leaking / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 124
    assert sum(row["label"] in row["path"] for row in rows) > 115
