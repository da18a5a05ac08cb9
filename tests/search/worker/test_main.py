"""A worker is ready to train soon, since it imports nothing that no training uses; and it needs no study to train."""

import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest

from pipeline.search.events import EpochEnded
from pipeline.search.worker.main import absent
from pipeline.states import TrainingKind
from pipeline.workspace import StudyFolder
from tests.search.noise_study import make_noise_study, real_task

WARM = """
import sys
from pipeline.search.worker.main import warm_up

warm_up()
print([name for name in ("matplotlib", "pandas", "sklearn", "tensorflow") if name in sys.modules])
import pandas
print(pandas.DataFrame({"a": [1, 2]}).a.sum())
"""


@pytest.mark.heavy
def test_a_warm_child_has_imported_what_trains_and_can_import_the_rest():
    done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['tensorflow']", "3"]


def test_a_package_is_absent_for_a_while_and_one_that_is_imported_stays(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with absent(["this", "sys"]):
        assert import_module("sys") is sys
        with pytest.raises(ModuleNotFoundError):
            import_module("this")
    assert "this" not in sys.modules


@pytest.mark.heavy
def test_a_child_that_shares_a_gpu_takes_its_part_of_the_memory(monkeypatch):
    from pipeline.search.worker import main as worker
    from pipeline.training import compute

    told = []
    monkeypatch.setattr(compute, "limit_gpu_memory", told.append)
    monkeypatch.setattr(worker, "gpu_mb", lambda names: (80_000.0, 1.0))
    monkeypatch.setattr("pipeline.training.stopping.listen", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.90")  # alone on it
    worker.warm_up()
    assert told == []
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.45")
    worker.warm_up()
    assert told == [36_000.0]


@pytest.mark.heavy
def test_a_worker_trains_where_there_is_no_study(tmp_path):
    """All that it needs is in the job: the arrays of the images, and folders to write to."""
    from pipeline.search.worker.main import run_job

    folder, elsewhere = make_noise_study(tmp_path / "study"), tmp_path / "elsewhere"
    job = real_task(folder, TrainingKind.FINAL)
    shutil.move(folder / "data", elsewhere / "data")
    (folder / "study.db").unlink()
    folders = StudyFolder(elsewhere).for_training
    events = []
    outcome = run_job(replace(job, folders=folders, is_final=True), events.append)
    assert (outcome.state, outcome.reason) == ("COMPLETED", "")
    assert [event.row.step for event in events if isinstance(event, EpochEnded)] == [1, 2]
    assert (folders.model / "model.keras").is_file()
    assert {path.name for path in folder.iterdir()} == {"images.npy"}
