"""Files are whole or absent, and locks are held by the living."""

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import StoppedEarly
from pipeline.files import is_locked, is_network_folder, locked, move_folder, replacing, sha256_json, write_json
from pipeline.intervals import wilson_interval
from pipeline.scoring.output import is_temporary


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


def test_writers_that_share_a_process_id_keep_apart(tmp_path):
    """As two containers do that share a workspace: each numbers its processes from one."""
    path = tmp_path / "state.json"
    with replacing(path) as first:
        assert is_temporary(first)
        assert first.read_bytes() == b""  # the name is taken
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_a_folder_takes_a_name_that_is_free_and_no_other(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert move_folder(tmp_path / "first", tmp_path / "name")
    assert not move_folder(tmp_path / "second", tmp_path / "name")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first", "name", "second", "second"]
    with pytest.raises(FileNotFoundError):
        move_folder(tmp_path / "third", tmp_path / "other")


@pytest.mark.heavy
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


def test_asking_for_a_lock_writes_nothing_and_does_not_keep_others_from_taking_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROBE_SECONDS", 60.0)
    path = tmp_path / "lock"
    with locked(path, "study a"):
        before = path.read_bytes(), path.stat().st_mtime_ns
        assert is_locked(path)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with path.open("rb") as probe:  # what `is_locked` of another process does, stretched
        fcntl.flock(probe, fcntl.LOCK_SH)
        assert not is_locked(path)
        threading.Timer(0.05, fcntl.flock, (probe.fileno(), fcntl.LOCK_UN)).start()
        with locked(path, "study a"):
            assert is_locked(path)


def test_a_lock_that_was_moved_away_while_it_was_waited_for_is_none(tmp_path, monkeypatch):
    """As `pipeline score --overwrite` of another process moves a whole output aside."""
    out, aside = tmp_path / "out", tmp_path / "aside"
    out.mkdir()
    other = (out / "lock").open("a+")
    fcntl.flock(other, fcntl.LOCK_EX)

    def move_away(seconds):
        out.rename(aside)
        other.close()

    monkeypatch.setattr(time, "sleep", move_away)  # between the first try and the second
    with (
        pytest.raises(StoppedEarly, match=r"out has just been moved by another process; try again"),
        locked(out / "lock", "out"),
    ):
        pass
    assert not is_locked(aside / "lock")
    assert (is_locked(out / "lock"), files.lock_owner(out / "lock")) == (False, "an unknown process")  # both are gone
    with locked(out / "lock", "out"):
        assert is_locked(out / "lock")


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/export /work nfs4 rw,vers=4.2 0 0
tmpfs /work/scratch tmpfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
user@host:/home /home/remote fuse.sshfs rw 0 0
/dev/vdb /mnt/my xfs rw 0 0
overlay /var/lib/my\\134odd overlay rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "is_network"),
    [
        ("/home/user", False),
        ("/work", True),
        ("/work/project/mlruns", True),
        ("/workshop", False),  # only the same letters
        ("/work/scratch/a", False),  # a local disk within a remote one
        ("/mnt/my share/a", True),
        ("/mnt/my", False),
        ("/home/remote/a", True),
    ],
)
def test_a_network_file_system_is_told_by_the_closest_mount(tmp_path, folder, is_network):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert is_network_folder(Path(folder), mounts) is is_network


def test_the_last_of_two_mounts_on_one_folder_counts_and_without_a_list_nothing_is_known(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("a /data nfs rw 0 0\nb /data ext4 rw 0 0\n")
    assert not is_network_folder(Path("/data/x"), mounts)
    mounts.write_text("b /data ext4 rw 0 0\na /data nfs rw 0 0\n")
    assert is_network_folder(Path("/data/x"), mounts)
    assert not is_network_folder(Path("/data/x"), tmp_path / "missing")
