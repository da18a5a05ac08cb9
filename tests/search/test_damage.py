"""A state file is cut, emptied or overwritten: the study opens with what remains, or says which file and what to do."""

import random
import shutil
from pathlib import Path

import pytest

from pipeline.bundle import read_bundle
from pipeline.errors import DataError, ModelRefused, PipelineError, StoppedEarly
from pipeline.files import locked
from pipeline.search.finish import finish
from pipeline.search.loop import note, run_trials
from pipeline.search.snapshot import read_snapshot
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import list_studies, open_study
from pipeline.workspace import Workspace
from tests.search.stubs import InstantEngine, Silence, ends, make_study, train, unlimited

NUM_TRIALS = 12
DAMAGE = ("empty", "half", "garbage", "page", "tail")


class Interrupting(Silence):
    """Ends a search after some tasks, as Ctrl-C does."""

    def __init__(self, num_tasks: int) -> None:
        self.num_left = num_tasks

    def refresh(self, running):
        self.num_left -= 1
        if self.num_left == 0:
            raise StoppedEarly("enough")


def begin(folder: Path, num_tasks: int) -> None:
    """Leave a study as a kill does in the middle: the log is not merged, a checkpoint and a heartbeat are there."""
    study = make_study(folder.parent / "work", unlimited(NUM_TRIALS))
    with pytest.raises(StoppedEarly):
        run_trials(study, InstantEngine(train), Interrupting(num_tasks))
    job = study.ask()
    study.store.save()
    train(job, lambda event: note(study, [event]))  # its end is not told
    study.store.save()
    shutil.copytree(folder.parent / "work", folder)  # with the log, which closing would merge
    study.store.close()


def run(folder: Path):
    """Search to the end; return the study."""
    study = make_study(folder, unlimited(NUM_TRIALS))
    run_trials(study, InstantEngine(train), Silence())
    finish(study, InstantEngine(train), Silence())
    return study


def damage(path: Path, how: str) -> None:
    """Damage a file: to no bytes, to a half, to noise, noise in one page in its middle, or noise at its end."""
    content, noise = path.read_bytes(), random.Random(how).randbytes
    middle = len(content) // 2 // 4096 * 4096
    damaged = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "garbage": noise(len(content)),
        "page": content[:middle] + noise(min(4096, len(content) - middle)) + content[middle + 4096 :],
        "tail": content[: -len(content) // 5] + noise(len(content) // 5),
    }
    path.write_bytes(damaged[how])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study that came to its end."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    run(folder).store.close()
    return folder


@pytest.fixture(scope="module")
def half_done(tmp_path_factory) -> Path:
    """A study that was killed in the middle."""
    folder = tmp_path_factory.mktemp("half") / "study"
    begin(folder, 9)
    return folder


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_study_is_refused_by_name_and_nothing_is_begun_anew(tmp_path, whole, how):
    folder = Workspace(tmp_path).studies / "study"
    shutil.copytree(whole, folder)
    damage(folder / "study.db", how)
    before = (folder / "study.db").read_bytes()
    message = (
        rf"{folder}/study.db: .*, so it is not a usable study; if the disk is full, .* damaged, restore it from a copy"
    )
    with pytest.raises(DataError, match=message):
        make_study(folder)
    with pytest.raises(DataError, match=message):
        open_study(tmp_path, "study")
    with pytest.raises(DataError, match=message):
        read_snapshot(tmp_path, "study")
    assert list_studies(tmp_path) == ["study"]
    assert (folder / "study.db").read_bytes() == before


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["study.db-wal", "study.db-shm", "lock", "pulses/*", "checkpoints/*.npz"])
def test_other_damaged_files_cost_at_most_what_they_held(tmp_path, whole, half_done, name, how):
    folder = tmp_path / "study"
    shutil.copytree(half_done, folder)
    (folder / "lock").write_text("process 1 on elsewhere")
    path = next(folder.glob(name))
    damage(path, how)
    with locked(folder / "lock", "study"):
        study = run(folder)
    original = StudyStore(whole / "study.db")
    assert ends(study.store.trials()) == ends(original.trials())
    assert read_bundle(folder / "model").card == read_bundle(whole / "model").card


def test_facts_of_a_young_study_survive_the_loss_of_its_log(tmp_path):
    study = make_study(tmp_path / "work")
    study.ask()
    study.store.save()
    shutil.copytree(tmp_path / "work", tmp_path / "copy")
    damage(tmp_path / "copy" / "study.db-wal", "garbage")
    store = StudyStore(tmp_path / "copy" / "study.db")
    assert store.is_created()
    assert store.get("study") == "stub-1"
    study.store.close()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.keras", "model.json"])
def test_a_damaged_model_is_refused_by_name(tmp_path, whole, name, how):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    damage(folder / "model" / name, how)
    study = make_study(folder, unlimited(NUM_TRIALS))
    with pytest.raises(ModelRefused, match=rf"{folder}/model/.*{name}.*restore"):
        finish(study, InstantEngine(train), Silence())


@pytest.mark.parametrize("num_places", [40, pytest.param(2000, marks=pytest.mark.faults)])
def test_noise_anywhere_in_a_study_is_never_a_traceback(tmp_path, whole, num_places):
    folder, rng = tmp_path / "study", random.Random(num_places)
    shutil.copytree(whole, folder)
    whole_content = (folder / "study.db").read_bytes()
    refusals = []
    for _ in range(num_places):
        content = bytearray(whole_content)
        place = rng.randrange(len(content) - 64)
        content[place : place + 64] = rng.randbytes(64)
        (folder / "study.db").write_bytes(content)
        try:
            study = make_study(folder, unlimited(NUM_TRIALS))
            finish(study, InstantEngine(train), Silence())
            study.store.close()
        except PipelineError as error:
            refusals.append(str(error))
        for log in folder.glob("study.db-*"):
            log.unlink()
    assert len(refusals) > num_places / 10
    assert all(str(folder) in refusal for refusal in refusals)


def test_a_study_of_another_version_of_the_file_is_left_alone(tmp_path):
    folder = Workspace(tmp_path).studies / "photos-1"
    store = make_study(folder, unlimited(2)).store
    store.put("schema", 99)
    store.close()
    with pytest.raises(DataError, match=r"study\.db: this file has version 99, not \d; open it with"):
        open_study(tmp_path, "photos-1")
