"""`pipeline promote`: what it refuses before any time is spent."""

import json
import random

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from tests.cli.workspace import pipeline, write_photos


def run(*arguments: str):
    return CliRunner().invoke(cli, ["promote", *arguments])


def test_an_unknown_study_is_said(folder):
    done = run("photos-9", "--pick", "3")
    assert done.exit_code == 2
    assert "study photos-9 not found" in done.stderr
    assert "found photos-1" in done.stderr


def test_a_damaged_study_is_named(folder):
    (folder / "study.db").write_bytes(b"no database" * 1000)
    done = run("photos-1", "--pick", "3")
    assert (done.exit_code, f"{folder}/study.db: file is not a database" in done.stderr) == (3, True)


def test_a_pick_that_is_no_trial_is_refused_before_images_are_opened(folder):
    before = sorted(folder.parent.parent.rglob("*"))
    done = run("photos-1", "--pick", "3")
    assert done.exit_code == 2
    assert "--pick 3: no trial of study photos-1 with a score" in done.stderr
    assert sorted(folder.parent.parent.rglob("*")) == before


@pytest.mark.heavy
def test_a_table_whose_rows_changed_their_order_promotes_the_same(tmp_path):
    """What the default network and the trials said of images is found again by content; every opening is counted."""
    write_photos(tmp_path)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}\n" for path in sorted(tmp_path.glob("photos/*/*.png"))]

    def run_on(rows, *arguments):
        (tmp_path / "table.csv").write_text("path,label\n" + "".join(rows))
        done = pipeline(tmp_path, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    options = ("--space", "./tiny.yaml", "--trials", "1", "--epochs", "1", "--workers", "1")
    first = run_on(rows, "search", "table.csv", *options)
    random.Random(0).shuffle(rows)
    again = run_on(rows, "promote", "table-1", "--pick", "0")
    assert again["search_gain"]["reason"] == ""
    assert again["search_gain"]["value"] == first["search_gain"]["value"]
    assert again["validation"]["value"] == pytest.approx(first["validation"]["value"])
    other = run_on(rows, "search", "table.csv", *options, "--seed", "1")
    assert [facts["test_opened"] for facts in (first, again, other)] == [1, 2, 3]
    known = run_on(rows, "search", "table.csv", "--name", "table-1", "--resume")
    assert known["test_opened"] == 3
