"""`pipeline doctor`: what it finds and what it advises."""

import json
import platform
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.workflows import doctor

pytestmark = pytest.mark.usefixtures("workspace")


def test_lock_is_read_without_hashes_and_comments(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "click==8.2.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n"
        'pywin32==311 ; sys_platform == "win32" \\\n    --hash=sha256:cc\n'
    )
    assert doctor.locked_requirements(lock) == ["click==8.2.0", 'pywin32==311 ; sys_platform == "win32"']


def test_package_of_another_version_and_missing_package_are_named() -> None:
    found = doctor.mismatches(["click==0.1", "no-such-package>=2", "click>=1"])
    assert found[0].startswith("click is ")
    assert found[0].endswith("(expected ==0.1)")
    assert found[1:] == ["no-such-package is missing (expected >=2)"]


def test_package_for_another_system_or_of_an_extra_is_not_asked_for() -> None:
    assert doctor.mismatches(['pywin32==311 ; sys_platform == "win32"', 'no-such==1 ; extra == "ray"']) == []


@pytest.mark.parametrize(
    ("installed", "machine", "name"),
    [
        ({"tensorflow-cpu"}, "x86_64", "requirements.lock"),
        ({"tensorflow-cpu", "tensorflow"}, "x86_64", "requirements.lock"),
        ({"tensorflow"}, "x86_64", "requirements-gpu.lock"),
        ({"tensorflow"}, "arm64", "requirements.lock"),
        (set(), "x86_64", "requirements.lock"),
    ],
)
def test_lock_is_that_of_the_installed_tensorflow(installed: set[str], machine: str, name: str) -> None:
    assert doctor.lock_name(installed, machine) == name
    assert (doctor.SOURCE / name).is_file()


@pytest.mark.parametrize(
    ("system", "release", "state", "text"),
    [
        ("Linux", "6.1.0", "ok", "Linux 6.1.0, x86_64"),
        (
            "Linux",
            "5.15-microsoft-standard-WSL2",
            "ok",
            "Linux in WSL2 5.15-microsoft-standard-WSL2, x86_64",
        ),
        ("Darwin", "24.0.0", "ok", "macOS 24.0.0, x86_64"),
        ("FreeBSD", "14.1", "information", "FreeBSD 14.1, x86_64"),
    ],
)
def test_the_system_is_named(system: str, release: str, state: str, text: str) -> None:
    check = doctor.check_system(platform.uname_result(system, "host", release, "", "x86_64"))
    assert (check.state, check.found, check.advice == "") == (state, text, state == "ok")


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.10.14", "failed"), ("3.11.0", "ok"), ("3.13.5+", "ok"), ("3.14.0rc1", "failed"), ("4.0.0", "failed")],
)
def test_python_has_to_be_one_that_tensorflow_supports(version: str, state: str) -> None:
    check = doctor.check_python(version)
    assert check.state == state
    assert (check.advice == "install Python 3.11 or newer, but older than 3.14") == (state == "failed")


@pytest.mark.heavy
def test_child_imports_nothing_of_the_workspace(workspace: Path) -> None:
    (workspace / "json.py").write_text("raise SystemExit('a file of the workspace was imported')")
    assert doctor.ask_child("import json; print(json.dumps({'ok': 1}))", workspace) == {"ok": 1}


@pytest.mark.heavy
def test_child_that_fails_is_a_finding(workspace: Path) -> None:
    assert doctor.ask_child("raise ValueError('no such backend')", workspace) == {
        "error": "ValueError: no such backend"
    }


@pytest.mark.heavy
def test_child_that_hangs_is_a_finding(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHILD_SECONDS", 0.2)
    assert doctor.ask_child("input() if False else __import__('time').sleep(60)", workspace) == {
        "error": "no answer within 0.2 s"
    }


def test_little_space_is_a_failure(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 1e9)
    check = doctor.check_disk(workspace)
    assert check.state == "failed"
    assert check.advice.startswith("free ")


def test_folder_that_is_gone_is_a_failure(workspace: Path) -> None:
    assert doctor.check_writable(workspace / "gone").state == "failed"


@pytest.mark.heavy
def test_healthy_machine_passes_and_a_missing_gpu_is_an_information(workspace: Path) -> None:
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    report = json.loads(result.stdout)
    checks = {check["check"]: check for check in report["checks"]}
    assert list(checks) == ["system", "python", "packages", "keras", "disk", "workspace", "mlflow"]
    assert checks["keras"]["state"] in ("ok", "information")
    assert checks["keras"]["found"].startswith("Keras 3.")
    assert checks["mlflow"]["state"] == "ok"
    assert checks["mlflow"]["found"].endswith(f"at sqlite:///{workspace}/mlflow.db")
    assert report["ok"] == (result.exit_code == 0)
    assert not list(workspace.glob(".pipeline-doctor-*"))
    assert "pipeline spaces" not in result.stderr


@pytest.mark.heavy
def test_old_file_store_fails_with_exit_code_4(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "KERAS_SCRIPT", 'print(\'{"backend": "jax", "version": "3", "devices": [], "why_no_gpu": ""}\')'
    )
    (workspace / "mlruns" / "0").mkdir(parents=True)
    (workspace / "mlruns" / "0" / "meta.yaml").touch()
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 4
    assert "mlflow migrate-filestore" in result.stdout
    assert "failed: " in result.stderr
