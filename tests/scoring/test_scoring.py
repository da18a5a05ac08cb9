"""Scoring as a whole, with a stand-in for the model: one row for every file, whatever happens."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.card import Calibration, Evaluation
from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.files import locked
from pipeline.scoring.export import export_csv, read_rows
from pipeline.scoring.inputs import find_inputs
from pipeline.scoring.output import MANIFEST_FILE, SUCCESS_FILE, move_aside
from pipeline.scoring.score import already_scored, label_rows, score
from tests.data.loopback import serve
from tests.scoring.colours import COLOURS, mean_colour, parts_table, silent, write_colours

pytestmark = pytest.mark.heavy  # files are decoded by child processes
PEAK = float(np.exp(1) / (np.exp(1) + 2))  # softmax of (1, 0, 0)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*.parquet"))}


def refuse(images):
    raise AssertionError("nothing is left to score")


def write_odd_files(folder: Path) -> dict[str, str]:
    """Write one file for each fault and return what its row must say: a label, or an error code."""
    colour = Image.new("RGB", (4, 4), COLOURS["red"])
    folder.mkdir()
    colour.save(folder / "good.png")
    colour.save(folder / "wrong extension.txt", "PNG")
    colour.save(folder / "new\nline.png")
    colour.save(folder / os.fsdecode(b"caf\xe9.png"), "PNG")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(folder / "cmyk.jpg", quality=100)
    Image.new("RGBA", (4, 4), (0, 255, 0, 255)).save(folder / "rgba.png")
    Image.new("RGB", (4, 4), COLOURS["blue"]).quantize(4).save(folder / "palette.png")
    Image.fromarray(np.full((4, 4), 0xFFFF, np.uint16)).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), COLOURS["green"]).save(folder / "rotated.jpg", exif=exif, quality=100)
    (folder / "zero.png").touch()
    Image.effect_noise((64, 64), 90).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:500])
    (folder / "whole.jpg").unlink()
    (folder / "text.jpg").write_text("just text")
    os.mkfifo(folder / "fifo.png")
    (folder / "dangling.png").symlink_to(folder / "nothing")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "folder.png").mkdir()
    return {
        "caf\\xe9.png": "red",
        "cmyk.jpg": "red",
        "cut.jpg": "corrupt",
        "dangling.png": "missing",
        "fifo.png": "not_regular",
        "good.png": "red",
        "loop.png": "unreadable",
        "new\nline.png": "red",
        "palette.png": "blue",
        "rgba.png": "green",
        "rotated.jpg": "green",
        "sixteen.png": "red",  # white: a tie, which goes to the first class
        "text.jpg": "unsupported",
        "wrong extension.txt": "red",
        "zero.png": "empty",
    }


def test_every_file_has_one_row_with_its_label_or_its_reason(tmp_path, make_job):
    import pandas

    expected = write_odd_files(tmp_path / "in")
    facts = score(make_job(find_inputs([str(tmp_path / "in")]).paths, batch_size=4), mean_colour, silent)
    table = parts_table(tmp_path / "out")
    found = {Path(row.path).name: row.error_code if pandas.isna(row.label) else row.label for row in table.itertuples()}
    assert found == expected
    assert (facts.rows, facts.ok, facts.errors) == (15, 9, 6)
    assert facts.errors_by_code == dict.fromkeys(
        ("corrupt", "missing", "not_regular", "unreadable", "unsupported", "empty"), 1
    )
    assert facts.labels == {"red": 6, "green": 2, "blue": 1}
    errors = table[table.status == "error"]
    assert errors.probability.isna().all()
    assert errors.top1_label.isna().all()
    assert errors.error_detail.str.len().min() > 5
    assert table[table.status == "ok"].error_code.isna().all()


def test_urls_are_scored_anew_when_their_content_changed(tmp_path, make_job):
    red, green = (path.read_bytes() for path in map(Path, map(os.fsdecode, write_colours(tmp_path / "in", 2))))
    contents = {"/a.png": red, "/b.png": red}
    with serve(contents) as address:
        job = replace(make_job([f"{address}{name}".encode() for name in contents]), hosts=("127.0.0.1",))
        assert score(job, mean_colour, silent).labels == {"red": 2}
        assert already_scored(job).labels == {"red": 2}
        contents["/a.png"] = green
        with pytest.raises(InvalidUsage, match="holds rows of another run"):
            already_scored(replace(job))
        fresh = replace(job, out=tmp_path / "fresh")
        assert score(fresh, mean_colour, silent).labels == {"red": 1, "green": 1}
        unnamed = score(replace(job, hosts=(), out=tmp_path / "unnamed"), mean_colour, silent)
        assert unnamed.errors_by_code == {"refused": 2}


def test_row_holds_the_best_classes_in_order(tmp_path, make_job):
    paths = write_colours(tmp_path / "in", 3)
    score(make_job(paths, top_k=2), mean_colour, silent)
    table = parts_table(tmp_path / "out")
    ranked = ["top1_label", "top1_probability", "top2_label", "top2_probability"]
    assert list(table) == ["path", "label", "probability", "status", "error_code", "error_detail", *ranked]
    assert table.label.tolist() == ["red", "green", "blue"]
    assert table.top1_label.tolist() == ["red", "green", "blue"]
    assert table.top2_label.tolist() == ["green", "red", "red"]
    np.testing.assert_allclose(table.probability, PEAK, rtol=1e-6)
    np.testing.assert_allclose(table.top2_probability, (1 - PEAK) / 2, rtol=1e-6)
    assert table.path.tolist() == [path.decode() for path in paths]


def test_top_k_is_at_most_the_number_of_classes(tmp_path, make_job):
    score(make_job(write_colours(tmp_path / "in", 1), top_k=99), mean_colour, silent)
    assert list(parts_table(tmp_path / "out"))[-1] == "top3_probability"


def test_every_batch_has_the_same_shape(tmp_path, make_job):
    shapes = []

    def spy(images):
        shapes.append(images.shape)
        return mean_colour(images)

    (tmp_path / "zero.png").touch()
    paths = [*write_colours(tmp_path / "in", 13), str(tmp_path / "zero.png").encode()]
    score(make_job(paths, batch_size=4, shard_size=6), spy, silent)
    assert shapes == [(4, 4, 4, 3)] * 5


def test_manifest_adds_up(tmp_path, make_job):
    score(make_job(write_colours(tmp_path / "in", 10), shard_size=4, num_skipped=7), mean_colour, silent)
    manifest = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())
    assert [part["rows"] for part in manifest["parts"]] == [4, 4, 2]
    assert (manifest["rows"], manifest["ok"], manifest["errors"]) == (10, 10, 0)
    assert manifest["model"] == {"uri": "models:/colours/1", "sha256": "0" * 64}
    assert manifest["classes"] == ["red", "green", "blue"]
    assert manifest["labels"] == {"red": 4, "green": 3, "blue": 3}
    assert manifest["skipped"] == 7


def test_progress_ends_at_the_total(tmp_path, make_job):
    reports = []
    (tmp_path / "zero.png").touch()
    paths = [*write_colours(tmp_path / "in", 5), str(tmp_path / "zero.png").encode()]
    score(make_job(paths, batch_size=4), mean_colour, lambda *numbers: reports.append(numbers))
    assert reports == [(0, 6, 0), (4, 6, 0), (6, 6, 1)]


def test_logits_that_are_not_finite_make_a_row_without_a_label(tmp_path, make_job):
    def broken(images):
        logits = mean_colour(images)
        logits[1] = np.nan
        return logits

    facts = score(make_job(write_colours(tmp_path / "in", 3)), broken, silent)
    assert facts.errors_by_code == {"not_finite": 1}
    assert parts_table(tmp_path / "out").label.tolist()[::2] == ["red", "blue"]


def test_complete_output_is_not_scored_again(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 5))
    assert already_scored(job) is None
    facts = score(job, mean_colour, silent)
    assert already_scored(job) == facts
    assert score(job, refuse, silent) == facts


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_part_is_scored_again(tmp_path, make_job, damage):
    job = make_job(write_colours(tmp_path / "in", 10), shard_size=4, batch_size=4)
    score(job, mean_colour, silent)
    whole = contents(job.out)
    part = job.out / "part-00001.parquet"
    content = bytearray(whole[part.name])
    content[len(content) // 3] ^= 4
    part.write_bytes(content if damage == "flip" else content[:-20])
    if damage == "delete":
        part.unlink()
    batches = []

    def spy(images):
        batches.append(len(images))
        return mean_colour(images)

    assert already_scored(job) is None
    facts = score(job, spy, silent)
    assert len(batches) == 1
    assert facts.rows == 10
    assert contents(job.out) == whole


@pytest.mark.parametrize("name", ["part-00000.json", "_PLAN.json"])
def test_facts_nested_beyond_measure_are_damaged_ones(tmp_path, make_job, name):
    job = make_job(write_colours(tmp_path / "in", 4))
    score(job, mean_colour, silent)
    (path,) = job.out.rglob(name)
    path.write_bytes(b"[" * 200_000)
    if name == "_PLAN.json":
        with pytest.raises(InvalidUsage, match="expected the plan of an earlier run"):
            score(job, mean_colour, silent)
    else:
        assert score(job, mean_colour, silent).rows == 4


def test_failure_keeps_the_parts_before_it(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 10), shard_size=4, batch_size=2)
    calls = []

    def failing(images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return mean_colour(images)

    with pytest.raises(KeyboardInterrupt):
        score(job, failing, silent)
    assert list(contents(job.out)) == ["part-00000.parquet"]
    assert not (job.out / SUCCESS_FILE).exists()
    reports = []
    score(job, mean_colour, lambda *numbers: reports.append(numbers))
    assert reports[0] == (4, 10, 0)
    other = make_job(job.paths, "other", shard_size=4, batch_size=2)
    score(other, mean_colour, silent)
    assert contents(other.out) == contents(job.out)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"top_k": 1}, "top_k 3, now 1"), ({"shard_size": 2}, "shard_size"), (None, "num_paths 3, now 2")],
)
def test_rows_of_another_run_are_refused(tmp_path, make_job, change, field):
    paths = write_colours(tmp_path / "in", 3)
    score(make_job(paths), mean_colour, silent)
    before = contents(tmp_path / "out")
    other = make_job(paths[:2]) if change is None else make_job(paths, **change)
    with pytest.raises(InvalidUsage, match=f"{field}.*--overwrite"):
        score(other, refuse, silent)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_changed_file_is_another_run(tmp_path, make_job, change):
    job = make_job(write_colours(tmp_path / "in", 3))
    score(job, mean_colour, silent)
    path = tmp_path / "in" / "0001.png"
    status = path.stat()
    if change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    else:
        path.unlink()
    with pytest.raises(InvalidUsage, match=r"paths_sha256 .*choose another folder with -o, or .*--overwrite"):
        already_scored(replace(job))


def with_card(job, **changes):
    """Return a job of a model of which model.json says something else."""
    return replace(job, bundle=replace(job.bundle, card=replace(job.bundle.card, **changes)))


def softened(temperature):
    return Evaluation(temperature=Calibration(temperature))


def test_other_class_names_are_another_run(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 1))
    score(job, mean_colour, silent)
    renamed = with_card(job, classes=("rot", "gruen", "blau"))
    with pytest.raises(InvalidUsage, match="classes_sha256"):
        already_scored(renamed)


def test_temperature_changes_probabilities_and_no_label_and_makes_another_run(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 6))
    score(job, mean_colour, silent)
    soft = replace(with_card(job, evaluation=softened(2.5)), out=tmp_path / "soft")
    score(soft, mean_colour, silent)
    for plain, scaled in zip(read_rows(job.out), read_rows(soft.out), strict=True):
        assert plain["top1_label"] == scaled["top1_label"]
        ratios = [row["top1_probability"] / row["top2_probability"] for row in (plain, scaled)]
        assert ratios[1] == pytest.approx(ratios[0] ** (1 / 2.5), rel=1e-4)
    with pytest.raises(InvalidUsage, match=r"temperature 1\.0, now 2\.5"):
        already_scored(replace(soft, out=job.out))


def test_label_is_that_of_the_largest_logit_where_rounding_makes_probabilities_equal(make_job):
    logits = np.array([[30.0, 30.000002, 0.0]], np.float32)
    bundle = with_card(make_job([]), evaluation=softened(10.0)).bundle
    (row,) = label_rows([b"a.png"], [np.zeros(1)], logits, bundle, 1)
    assert row.best[0][0] == row.labels[0][0] == "green"


@pytest.fixture
def several(make_job):
    """Return a function that makes jobs of a stand-in that answers any number of colours, from brightness 51 on."""

    def make(paths, **options):
        job = make_job(paths, **options)
        return with_card(job, is_multi_label=True)

    return make


def brighter_than_a_fifth(images):
    return mean_colour(images) - np.float32(0.2)


def test_a_multi_label_model_gives_lists_that_are_read_again_as_labels(tmp_path, several):
    from pipeline.data.readers.registry import open_source

    (tmp_path / "in").mkdir()
    colours = {"both.png": (255, 51, 0), "none.png": (0, 0, 0), "blue.png": (0, 50, 255)}
    for name, colour in colours.items():
        Image.new("RGB", (4, 4), colour).save(tmp_path / "in" / name)
    (tmp_path / "in" / "text.jpg").write_text("just text")
    job = several(sorted(str(path).encode() for path in (tmp_path / "in").iterdir()))
    facts = score(job, brighter_than_a_fifth, silent)
    assert (facts.labels, facts.ok, facts.unlabelled) == ({"red": 1, "green": 1, "blue": 1}, 3, 1)
    rows = {Path(row["path"]).name: row for row in read_rows(job.out)}
    assert {name: row["label"] for name, row in rows.items()} == {
        "blue.png": ["blue"],
        "both.png": ["red", "green"],
        "none.png": [],
        "text.jpg": None,
    }
    high = 1 / (1 + np.exp(-0.8))
    assert rows["both.png"]["probability"] == pytest.approx([high, 0.5])
    assert (rows["both.png"]["top3_label"], rows["both.png"]["top1_probability"]) == ("blue", pytest.approx(high))
    export_csv(job.out, tmp_path / "rows.csv")
    kept = [line for line in (tmp_path / "rows.csv").read_text().splitlines() if "text.jpg" not in line]
    assert '"[""red"", ""green""]","[0.6899745, 0.5]",ok' in kept[2]
    (tmp_path / "labelled.csv").write_text("\n".join(kept) + "\n")
    source = open_source(str(tmp_path / "labelled.csv"), tmp_path)
    assert [source.label_text(row) for row in range(3)] == ["blue", "green|red", "no label"]


def test_a_model_that_is_said_to_be_multi_label_is_another_run(tmp_path, make_job, several):
    paths = write_colours(tmp_path / "in", 3)
    score(make_job(paths), mean_colour, silent)
    with pytest.raises(InvalidUsage, match="is_multi_label False, now True"):
        already_scored(several(paths))


def test_scoring_needs_no_call_that_macos_lacks(tmp_path, make_job, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert score(make_job(write_colours(tmp_path / "in", 1)), mean_colour, silent).ok == 1


def test_same_relative_names_in_another_folder_are_another_run(tmp_path, make_job, monkeypatch):
    for site in ("north", "south"):
        write_colours(tmp_path / site, 1)
    monkeypatch.chdir(tmp_path / "north")
    score(make_job([b"0000.png"]), mean_colour, silent)
    monkeypatch.chdir(tmp_path / "south")
    with pytest.raises(InvalidUsage, match="paths_sha256"):
        score(make_job([b"0000.png"]), refuse, silent)


def test_foreign_files_are_never_touched(tmp_path, make_job):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidUsage, match=r"holds thesis.tex; expected a new or empty folder"):
        score(make_job(write_colours(tmp_path / "in", 1)), refuse, silent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_output_that_is_a_file_is_refused(tmp_path, make_job):
    (tmp_path / "out").write_text("text")
    with pytest.raises(InvalidUsage, match="is a file, not a folder; choose another folder with -o"):
        score(make_job(write_colours(tmp_path / "in", 1)), refuse, silent)


def test_moving_aside_keeps_the_old_rows(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 3))
    assert move_aside(job.out) is None
    score(job, mean_colour, silent)
    before = contents(job.out)
    aside = move_aside(job.out)
    assert aside.name.startswith("out.old-")
    assert contents(aside) == before
    assert not job.out.exists()


def test_folder_that_is_no_output_is_not_moved_aside(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidUsage, match=r"out: holds thesis.tex and no _PLAN.json; expected an output"):
        move_aside(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_cannot_be_made_is_the_systems_error(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 1), "closed/out")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        score(job, refuse, silent)


def test_output_below_a_file_is_the_systems_error(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 1), "file/out")
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as raised:
        score(job, refuse, silent)
    assert isinstance(raised.value, (NotADirectoryError, FileExistsError))


def test_second_process_is_told_to_wait(tmp_path, make_job):
    job = make_job(write_colours(tmp_path / "in", 1))
    with (
        locked(job.out / ".lock", "test"),
        pytest.raises(StoppedEarly, match=f"in use by process {os.getpid()}") as raised,
    ):
        score(job, refuse, silent)
    assert raised.value.exit_code == 5


def test_csv_export_disarms_formulas_and_keeps_numbers(tmp_path, make_job, monkeypatch):
    import pandas

    monkeypatch.chdir(tmp_path)
    for name in ("=cmd|'x'!A0", "@sum", "-1", "-1+cmd", "a,b", 'q"q', "x;=1"):
        Image.new("RGB", (4, 4), COLOURS["blue"]).save(name, "PNG")
    Path("zero").touch()
    paths = [b"=cmd|'x'!A0", b"@sum", b"-1", b"-1+cmd", b"a,b", b'q"q', b"x;=1", b"zero"]
    score(make_job(paths, shard_size=4), mean_colour, silent)
    assert export_csv(tmp_path / "out", tmp_path / "rows.csv") == 8
    table = pandas.read_csv(tmp_path / "rows.csv")
    assert table.path.tolist() == ["'=cmd|'x'!A0", "'@sum", "-1", "'-1+cmd", "a,b", 'q"q', "'x;'=1", "zero"]
    assert table.label.tolist()[:7] == ["blue"] * 7
    np.testing.assert_allclose(table.probability[:7], PEAK, rtol=1e-6)
    assert table.error_code.tolist()[7] == "empty"
    assert (tmp_path / "rows.csv").read_text().splitlines()[8] == "zero,,,error,empty,zero bytes,,,,,,"


CHILD = """
import sys
from pathlib import Path
from tests.scoring.colours import COLOURS, mean_colour
from pipeline.bundle import Bundle
from pipeline.card import ModelCard
from pipeline.records import ImageSpec
from pipeline.scoring.inputs import find_inputs
from pipeline.scoring.score import ScoreJob, score
bundle = Bundle(Path(), ModelCard(tuple(COLOURS), ImageSpec(4, 4, 3), sha256="0" * 64))
paths = find_inputs([sys.argv[1]]).paths
job = ScoreJob(bundle, "models:/colours/1", paths, Path(sys.argv[2]), batch_size=8, shard_size=16)
def report(done, total, errors):
    print(done, total, flush=True)
    if done == total:
        sys.stdin.readline()  # the end waits, so that a kill always comes before it
score(job, mean_colour, report)
"""


def start_child(source: Path, out: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-c", CHILD, str(source), str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.heavy
def test_killed_runs_give_the_bytes_of_an_unkilled_one(tmp_path):
    paths = write_colours(tmp_path / "in", 150)
    (tmp_path / "in" / "0077.png").write_bytes(b"")
    with start_child(tmp_path / "in", tmp_path / "whole") as child:
        child.communicate()
    for num_lines in (1, 4, 7, 6, 9):
        with start_child(tmp_path / "in", tmp_path / "killed") as child:
            for _ in range(num_lines):
                done, total = child.stdout.readline().split()
                if done == total:
                    break
            child.kill()
        assert child.returncode == -signal.SIGKILL
    with start_child(tmp_path / "in", tmp_path / "killed") as child:
        child.communicate()
    assert child.returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    table = parts_table(tmp_path / "killed")
    assert table.path.tolist() == [path.decode() for path in paths]
    assert (table.status == "error").sum() == 1
    assert not list((tmp_path / "killed").glob(".*.tmp-*"))
