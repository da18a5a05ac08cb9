"""Files are whole or absent, and locks are held by the living."""

import subprocess
import sys

import pytest

from pipeline.errors import StoppedEarly
from pipeline.files import is_locked, locked, replacing, sha256_json, write_json
from pipeline.intervals import wilson_interval


def test_a_file_keeps_its_old_content_when_the_writer_fails(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})

    def fail_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_half_way()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path):
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.files import locked\n"
        "with locked(Path(sys.argv[1]), 'study a'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with (
        pytest.raises(StoppedEarly, match=rf"study a is in use by process {process.pid} on "),
        locked(tmp_path / "lock", "study a"),
    ):
        pass
    assert is_locked(tmp_path / "lock")
    process.kill()
    process.communicate()
    with locked(tmp_path / "lock", "study a"):  # the lock of a dead process does not block
        pass
    assert not is_locked(tmp_path / "lock")


def test_a_json_hash_does_not_depend_on_the_order_of_keys():
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


@pytest.mark.parametrize(
    ("num_correct", "num_total", "low", "high"),
    # 50 of 100 and 0 of 10: the values of R's binom.confint(method="wilson").
    [(50, 100, 0.4038315, 0.5961685), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval(num_correct, num_total, low, high):
    assert wilson_interval(num_correct, num_total) == pytest.approx((low, high), abs=1e-6)
