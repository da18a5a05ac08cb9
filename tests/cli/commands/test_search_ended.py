"""`pipeline search` with children killed, killed itself, ended by signals: real processes, real signals."""

import contextlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.cli.workspace import pipeline, started, write_photos

pytestmark = pytest.mark.heavy

OPTIONS = ("--space", "./tiny.yaml", "--workers", "1", "--json")


def study_rows(folder, study="photos-1", query="SELECT number, state, reason FROM trial ORDER BY number"):
    with sqlite3.connect(folder / "mlruns" / "studies" / study / "study.db", timeout=30) as connection:
        return connection.execute(query).fetchall()


def wait_for(condition, seconds=300.0):
    """Return the first true value of `condition()`, asked until it comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def children(pid):
    """Return the live child processes of a process that train (not the resource tracker)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            line = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z" and b"spawn_main" in line:
            found.append(int(stat.parent.name))
    return found


def num_epochs(folder, study="photos-1"):
    path = folder / "mlruns" / "studies" / study / "study.db"
    if not path.exists():
        return 0
    try:
        return study_rows(folder, study, "SELECT COUNT(*) FROM epoch")[0][0]
    except sqlite3.OperationalError:
        return 0


def test_a_child_that_is_killed_is_recorded_and_the_search_goes_on(tmp_path):
    write_photos(tmp_path)
    with started(tmp_path, "search", "photos", "--trials", "2", *OPTIONS) as process:
        wait_for(lambda: num_epochs(tmp_path))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["trials"]["completed"] == 2
    reasons = [reason for _, _, reason in study_rows(tmp_path) if reason]
    assert any("its process died (signal 9" in reason for reason in reasons)


def test_a_search_killed_with_its_children_is_resumed_where_it_was(tmp_path):
    write_photos(tmp_path)
    with started(tmp_path, "search", "photos", "--trials", "2", *OPTIONS) as process:
        wait_for(lambda: num_epochs(tmp_path) > 26)  # the first trial has ended, the second trains
        for pid in (process.pid, *children(process.pid)):
            os.kill(pid, signal.SIGKILL)
    done = "SELECT trial, rung, score FROM attempt WHERE state = 'DONE' ORDER BY id"
    before = study_rows(tmp_path, query=done)
    interrupted = study_rows(tmp_path, query="SELECT id, trial, rung, epochs FROM attempt WHERE state = 'STARTED'")
    resumed = pipeline(tmp_path, "search", "--resume", "--json")  # with its own data and options
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["trials"]["completed"] == 2
    after = study_rows(tmp_path, query=done)
    assert before
    assert after[: len(before)] == before
    assert sorted(trial for trial, rung, _ in after if rung == 0 and trial >= 0) == [0, 1]
    for attempt, trial, rung, _ in interrupted:  # it went on from the last epoch that was saved
        (count,) = study_rows(tmp_path, query=f"SELECT COUNT(*) FROM epoch WHERE attempt = {attempt}")[0]
        (ended,) = study_rows(
            tmp_path, query=f"SELECT id FROM attempt WHERE trial = {trial} AND rung = {rung} AND state = 'DONE'"
        )[0]
        seconds = study_rows(tmp_path, query=f"SELECT step, seconds FROM epoch WHERE attempt = {ended} ORDER BY step")
        earlier = study_rows(tmp_path, query=f"SELECT step, seconds FROM epoch WHERE attempt = {attempt} ORDER BY step")
        assert sum(one == other for one, other in zip(seconds, earlier, strict=False)) >= count - 1
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("photos").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_running_search_turns_a_second_one_away_and_ends_resumably_at_a_signal(tmp_path, number, code):
    write_photos(tmp_path)
    with started(tmp_path, "search", "photos", "--trials", "50", *OPTIONS) as process:
        wait_for(lambda: num_epochs(tmp_path))
        second = pipeline(tmp_path, "search", "photos", "--trials", "50", "--resume", *OPTIONS)
        assert second.returncode == 5
        assert f"study photos-1 is in use by process {process.pid} on " in second.stderr
        pids = children(process.pid)
        begun = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert time.monotonic() - begun < 10
    assert process.returncode == code, stderr
    assert "continue with: pipeline search photos --name photos-1 --resume" in stderr
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


DEAF = """
import multiprocessing
import signal

import keras


def build(hp, image_shape, num_classes):
    if multiprocessing.parent_process() is not None:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    units = hp.Int("units", 4, 64)
    return keras.Sequential([keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(units),
                             keras.layers.Dense(num_classes)])
"""


def test_a_signal_ends_a_search_within_10_seconds_though_children_and_mlflow_do_not_answer(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "deaf.py").write_text(DEAF)
    options = ("--space", "deaf.py:build", "--workers", "2", "--epochs", "1000000")
    with started(tmp_path, "search", "photos", *options) as process:
        trained = "SELECT COUNT(DISTINCT attempt) FROM epoch"
        wait_for(lambda: num_epochs(tmp_path) and study_rows(tmp_path, query=trained) == [(2,)])
        wait_for(lambda: (tmp_path / "mlflow.db").exists())
        pids = children(process.pid)
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", timeout=60, isolation_level=None)) as mlflow:
            mlflow.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
            seconds = time.monotonic() - begun
    assert process.returncode == 130, stderr
    assert 5 < seconds < 10
    assert "MLflow does not hold the whole study: no end within" in stderr
    assert "continue with: pipeline search photos --name photos-1 --resume" in stderr
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert {(state, reason) for _, state, reason in study_rows(tmp_path)} == {("PLANNED", "")}
    rested = study_rows(tmp_path, query="SELECT state, reason FROM attempt")
    assert rested == [("STOPPED", "stopped before it could save; it goes on from its last checkpoint")] * 2


def test_a_wanted_score_ends_a_search_before_its_trials(tmp_path):
    write_photos(tmp_path)
    limits = ("--trials", "50", "--epochs", "20", "--until", "val_accuracy=0.9")
    done = pipeline(tmp_path, "search", "photos", *limits, *OPTIONS)
    assert done.returncode == 0, done.stderr
    scores = study_rows(tmp_path, query="SELECT score FROM attempt WHERE state = 'DONE' AND trial >= 0 ORDER BY id")
    assert max(score for (score,) in scores[-2:]) >= 0.9
    assert max((score for (score,) in scores[:-2]), default=0.0) < 0.9
    assert len(study_rows(tmp_path)) < 50


def test_a_limit_that_no_network_holds_is_named_with_its_cure(tmp_path):
    write_photos(tmp_path)
    limits = ("--trials", "2", "--epochs", "1", "--max-latency-ms", "0.0001")
    done = pipeline(tmp_path, "search", "photos", *limits, *OPTIONS)
    assert done.returncode == 5
    assert [state for _, state, _ in study_rows(tmp_path)] == ["INFEASIBLE"] * 2
    assert "most often INFEASIBLE: " in done.stderr
    assert " ms for one image on one core, more than 0.0001; expected at least one; " in done.stderr
    assert "or looser limits; then run it again" in done.stderr


def test_a_second_signal_ends_a_search_at_once(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "deaf.py").write_text(DEAF)
    options = ("--space", "deaf.py:build", "--workers", "1", "--epochs", "1000000")
    with started(tmp_path, "search", "photos", *options) as process:
        wait_for(lambda: num_epochs(tmp_path))
        pids = children(process.pid)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it gives the child its time to save
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert time.monotonic() - begun < 2
    assert process.returncode == 130
    wait_for(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], seconds=30)
    resumed = pipeline(tmp_path, "search", "photos", "--name", "photos-1", "--resume", "--dry-run", *options)
    assert resumed.returncode == 0, resumed.stderr  # neither its lock nor its study is broken


def test_children_are_deaf_to_ctrl_c_from_their_first_moment(tmp_path):
    write_photos(tmp_path)
    with started(tmp_path, "search", "photos", "--trials", "2", *OPTIONS) as process:
        pid = wait_for(lambda: children(process.pid))[0]
        status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn"))]
    assert len(masks) == 2
    assert any(mask & 1 << signal.SIGINT - 1 for mask in masks)
