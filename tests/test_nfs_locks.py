"""On NFSv4 a lock needs a descriptor that may read (shared) or write (exclusive); every lock here has one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = Path(__file__).with_name("nfs_flock.c")
CHILD = """
import errno, fcntl, sys
from pathlib import Path
from pipeline.data.cache import folder as cache_folder
from pipeline.files import is_locked, locked
from pipeline.tracking.store import first_use_lock
from pipeline.workspace import Workspace

workspace = Path(sys.argv[1])
for kind, mode in ((fcntl.LOCK_SH, "ab"), (fcntl.LOCK_EX, "rb")):
    try:
        with (workspace / "probe").open(mode) as probe:
            fcntl.flock(probe, kind)
        sys.exit("this is not NFSv4")
    except OSError as error:
        assert error.errno == errno.EBADF

def fill(folder):
    (folder / "images.npy").write_bytes(b"images")

home = Workspace(workspace).cache("images")
built = cache_folder.open_or_build(home, "one", fill)
opened = cache_folder.open_whole(home, "one")
assert (opened.folder / "images.npy").read_bytes() == b"images"
built.close()
assert not cache_folder.clear(home / "one")
opened.close()
assert cache_folder.clear(home / "one")

with locked(workspace / "lock", "study a"), first_use_lock(workspace):
    assert is_locked(workspace / "lock")
assert not is_locked(workspace / "lock")
print("all locks work")
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is a thing of Linux")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, which makes flock behave as on NFSv4")
def test_cache_folders_and_studies_are_locked_on_nfs(tmp_path):
    shim = tmp_path / "nfs_flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"], check=True)
    command = ["env", f"LD_PRELOAD={shim}", sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("all locks work\n", "")
