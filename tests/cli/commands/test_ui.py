"""`pipeline ui`: what it refuses, what it prints, and that nothing of the server stays behind."""

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli
from tests.cli.workspace import command

pytestmark = pytest.mark.usefixtures("workspace")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ui", *arguments])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_print_shows_address_and_command_and_creates_nothing(workspace: Path) -> None:
    result = run("--print", "--port", "5007")
    assert result.exit_code == 0, result.output
    address, line = result.stdout.splitlines()
    assert address == "http://127.0.0.1:5007"
    assert f"MLFLOW_BACKEND_STORE_URI=sqlite:///{workspace}/mlflow.db" in line
    assert "PYTHONSAFEPATH=1" in line
    assert "--app-dir" in line
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in line
    assert "--workers 1" in line
    assert list(workspace.iterdir()) == []


def test_print_shows_a_database_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ada:secret@db/mlflow")
    result = run("--print")
    assert result.exit_code == 0, result.output
    assert "MLFLOW_BACKEND_STORE_URI='postgresql://***@db/mlflow'" in result.stdout
    assert "secret" not in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org"])
def test_host_that_others_can_reach_is_refused(host: str) -> None:
    result = run("--host", host)
    assert result.exit_code == 2
    assert "the server has no passwords" in result.stderr


def test_used_port_is_refused_with_a_free_one(workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port))
    assert result.exit_code == 2
    assert f"--port {port}: already in use on 127.0.0.1" in result.stderr
    assert "try `pipeline ui --port " in result.stderr


def test_server_of_the_environment_is_printed_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:secret@mlflow.example.org")
    result = run()
    assert (result.exit_code, result.stdout) == (0, "https://***@mlflow.example.org\n")


def test_old_file_store_is_refused(workspace: Path) -> None:
    (workspace / "mlruns" / "0").mkdir(parents=True)
    (workspace / "mlruns" / "0" / "meta.yaml").touch()
    result = run("--print")
    assert result.exit_code == 7
    assert "mlflow migrate-filestore" in result.stderr


@pytest.mark.heavy
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_signal_ends_the_server_and_all_its_processes(
    number: signal.Signals, code: int, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    (workspace / "mlflow.py").write_text("raise SystemExit('a file of the workspace was imported')")
    port = free_port()
    process = subprocess.Popen(command("ui", "--port", str(port)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert answers(f"http://127.0.0.1:{port}/health", process)
    assert (workspace / "other.db").exists()
    assert not (workspace / "mlflow.db").exists()
    foreign = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/list")
    foreign.add_header("Host", "example.org")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(foreign, timeout=10)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert output.decode().splitlines()[0] == f"http://127.0.0.1:{port}"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Ask until the server answers or dies."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.3)
    return False
