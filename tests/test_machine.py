"""What is said when the machine cannot do the work."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pipeline import machine
from pipeline.cli.main import exit_code_of
from pipeline.errors import InvalidUsage
from pipeline.machine import AUTO, Resources, check_backend, has_bfloat16, num_cores, share_resources
from tests.cli.workspace import command, env, pipeline, write_photos


@pytest.mark.parametrize(
    ("backend", "message"),
    [("typo", "KERAS_BACKEND is 'typo', but must be one of tensorflow, jax, torch"), ("torch", "pip install torch")],
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


# ---- GPUs, of which there is none: a script stands for nvidia-smi ----------------------------------------------------

ONE = "0, GPU-aaaa-1, 81559, 80994"
TWO_FULL = "0, GPU-aaaa-1, 81559, 80994\n1, GPU-bbbb-2, 81559, 7000"
SMALL = "0, GPU-aaaa-1, 4096, 3900"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a script of this body in the place of nvidia-smi; the machine has 64 cores and 256 GB."""
    monkeypatch.setattr(machine, "num_cores", lambda: 64)
    monkeypatch.setattr(machine, "available_memory_mb", lambda: 256_000.0)

    def install(body):
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def says(output):
    expected = "--query-gpu=index,uuid,memory.total,memory.free --format=csv,noheader,nounits"
    return f'[ "$*" = "{expected}" ] || exit 9\ncat <<END\n{output}\nEND'


def count_per_gpu(visible, monkeypatch, trials_per_gpu=AUTO, num_workers=None):
    """Return how many children each GPU gets, in order."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = [each.gpu for each in share_resources(num_workers, trials_per_gpu)]
    return {gpu: gpus.count(gpu) for gpu in gpus}


@pytest.mark.parametrize(
    ("output", "visible", "count"),
    [
        (ONE, "0", {"0": 4}),  # the most that is chosen
        ("0, GPU-aaaa-1, 8192, 7800", "0", {"0": 2}),  # 2 x 3 GB of 7 GB
        (SMALL, "0", {"0": 1}),  # too little for two
        (TWO_FULL, "0,1", {"0": 2, "1": 2}),  # as on the fullest
        (TWO_FULL, "0", {"0": 2}),  # CUDA's first may be nvidia-smi's second
        (TWO_FULL, "GPU-aaaa-1", {"GPU-aaaa-1": 4}),
        (TWO_FULL, "GPU-bbbb", {"GPU-bbbb": 2}),  # a UUID may be shortened
        (TWO_FULL, "GPU-aaaa-1,GPU-bbbb-2", {"GPU-aaaa-1": 2, "GPU-bbbb-2": 2}),
        (TWO_FULL, "GPU-cccc", {"GPU-cccc": 1}),
        (ONE, "MIG-aaaa-1", {"MIG-aaaa-1": 1}),
        (ONE, "MIG-GPU-aaaa-1/1/0", {"MIG-GPU-aaaa-1/1/0": 1}),
        (ONE, "", {None: 4}),  # no GPU: children on the cores, as without the option
    ],
)
def test_as_many_children_share_a_gpu_as_its_free_memory_holds(nvidia_smi, monkeypatch, output, visible, count):
    nvidia_smi(says(output))
    found = count_per_gpu(visible, monkeypatch)
    assert found == count if visible else list(found.values()) == [4]


@pytest.mark.parametrize(
    "body",
    [
        "exit 1",
        "echo NVIDIA-SMI has failed because it could not communicate with the driver; exit 9",
        "echo '0, GPU-aaaa-1, [N/A], [N/A]'",
        "echo '0, GPU-aaaa-1, 81559'",
        "head -c 10000 /dev/urandom",
        "kill -9 $$",
        "true",
    ],
)
def test_where_nvidia_smi_does_not_say_each_gpu_has_one_child(nvidia_smi, monkeypatch, body):
    nvidia_smi(body)
    assert count_per_gpu("0,1", monkeypatch) == {"0": 1, "1": 1}


def test_where_nvidia_smi_is_missing_each_gpu_has_one_child(nvidia_smi, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert count_per_gpu("0,1", monkeypatch) == {"0": 1, "1": 1}


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and not yet fetched does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.heavy
def test_an_nvidia_smi_that_hangs_is_given_up_with_all_it_started(nvidia_smi, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "GPU_QUERY_SECONDS", 0.5)
    nvidia_smi(f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    begun = time.monotonic()
    assert count_per_gpu("0", monkeypatch) == {"0": 1}
    assert time.monotonic() - begun < 5
    pid = int((tmp_path / "pid").read_text())
    while is_alive(pid):  # it was killed, and dies when the kernel comes to it
        assert time.monotonic() - begun < 10
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("cores", "memory_mb", "count"),
    [(3, 256_000.0, 1), (4, 256_000.0, 2), (64, 9_000.0, 1), (64, 16_000.0, 3), (64, 0.0, 4), (1, 0.0, 1)],
)
def test_cores_and_memory_bound_the_children_of_two_gpus(nvidia_smi, monkeypatch, cores, memory_mb, count):
    nvidia_smi(says("0, GPU-aaaa-1, 81559, 80994\n1, GPU-bbbb-2, 81559, 80994"))
    monkeypatch.setattr(machine, "num_cores", lambda: cores)
    monkeypatch.setattr(machine, "available_memory_mb", lambda: memory_mb)
    assert count_per_gpu("0,1", monkeypatch) == {"0": count, "1": count}


def test_without_the_option_a_gpu_has_one_child_and_nvidia_smi_is_not_asked(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(f"touch {tmp_path}/asked")
    assert count_per_gpu("0,1", monkeypatch, None) == {"0": 1, "1": 1}
    assert count_per_gpu("0,1", monkeypatch, 3) == {"0": 3, "1": 3}
    assert not (tmp_path / "asked").exists()


def test_fewer_workers_than_fit_are_spread_over_the_gpus_and_share_their_memory(nvidia_smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert share_resources(3, 4) == [
        Resources(21, gpu="0", gpu_share=0.45, memory_mb=76_800.0),
        Resources(21, gpu="1", gpu_share=0.9, memory_mb=76_800.0),
        Resources(21, gpu="0", gpu_share=0.45, memory_mb=76_800.0),
    ]


@pytest.mark.parametrize("value", ["0", "33", "all", "1.5", "-1"])
def test_a_number_of_processes_that_cannot_be_is_refused(tmp_path, value):
    done = pipeline(tmp_path, "search", "digits", "--trials-per-gpu", value)
    assert (done.returncode, "write auto, or 1 to 32" in done.stderr) == (2, True), done.stderr


@pytest.mark.heavy
def test_a_search_takes_the_number_and_remembers_that_it_was_chosen(nvidia_smi, tmp_path):
    nvidia_smi(says(ONE))
    write_photos(tmp_path)
    cores = ("taskset", "--cpu-list", ",".join(map(str, sorted(os.sched_getaffinity(0))[:2])))
    done = subprocess.run(
        [*cores, *command("search", "photos", "--trials", "1", "--trials-per-gpu", "auto", "--dry-run", "--json")],
        cwd=tmp_path, env=env(CUDA_VISIBLE_DEVICES="GPU-aaaa-1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["workers"] == min(2, num_cores())
    assert plan["command"].endswith("--trials-per-gpu auto")


def test_cores_are_those_this_process_may_use():
    assert 1 <= num_cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16", True), ("amx_bf16 sse", True), ("fpu avx512f", False), ("avx512_bf16_emulated", False)],
)
def test_bfloat16_is_read_from_the_flags_of_the_processor(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: none\n")
    assert has_bfloat16(tmp_path / "cpuinfo") is expected
    assert has_bfloat16(tmp_path / "absent") is False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert has_bfloat16(tmp_path / "absent") is True


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
