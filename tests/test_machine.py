"""What is said when the machine cannot do the work."""

import errno
import os
import sqlite3
import subprocess
import sys
import zipfile

import pytest

from pipeline.cli.main import exit_code_of
from pipeline.errors import InvalidUsage
from pipeline.machine import check_backend, num_cores
from tests.cli.workspace import env, pipeline, write_photos


@pytest.mark.parametrize(
    ("backend", "message"),
    [("typo", "KERAS_BACKEND is 'typo'; expected one of tensorflow, jax, torch"), ("torch", "pip install torch")],
)
def test_a_backend_that_is_not_there_is_named(monkeypatch, backend, message):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(InvalidUsage, match=message.replace("(", r"\(")):
        check_backend()


@pytest.mark.heavy
def test_a_search_with_an_unknown_backend_ends_at_once(tmp_path):
    write_photos(tmp_path)
    done = pipeline(tmp_path, "search", "photos", "--trials", "1", KERAS_BACKEND="typo")
    assert (done.returncode, "KERAS_BACKEND is 'typo'" in done.stderr) == (2, True)


def test_cores_are_those_this_process_may_use():
    assert 1 <= num_cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2),
        (OSError(errno.EROFS, "Read-only file system", "mlruns"), 2),
        (sqlite3.OperationalError("database or disk is full"), 5),
        (sqlite3.OperationalError("attempt to write a readonly database"), 2),
        (sqlite3.OperationalError("no such column: x"), None),
        (OSError(errno.EINVAL, "Invalid argument"), None),
    ],
)
def test_a_full_disk_can_be_resumed_and_an_unwritable_place_is_usage(error, code):
    assert exit_code_of(error) == code


@pytest.mark.heavy
def test_an_installed_wheel_finds_its_spaces_in_any_folder(tmp_path):
    root = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        root,
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert "search_spaces/cnn.yaml" in names
    assert "pipeline/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "spaces", "show", "cnn", "--json"],
        cwd=tmp_path / "elsewhere",
        env=env(PYTHONPATH=str(tmp_path / "installed")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '"learning_rate"' in done.stdout
