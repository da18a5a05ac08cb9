"""A training that was stopped goes on to the very weights that it would have had."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import TrialFailed
from pipeline.heartbeat import Heart

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("deterministic", "stoppable")]

PARAMS = {"depth": 1, "filters": 8, "batch_size": 8, "dropout": 0.3, "learning_rate": 0.01, "augment": "strong"}
NUM_STEPS = 40  # of an epoch; Keras fetches some of them ahead


class Stopping:
    """Images that ask for a stop when the step `stop_at` (from 0, over all epochs) is fetched."""

    def __init__(self, images, stop_at):
        self.images = images
        self.shape = images.shape
        self.stop_at = stop_at

    def __getitem__(self, rows):
        from pipeline.training.stopping import SIGNAL

        self.stop_at -= 1
        if self.stop_at < 0:
            os.kill(os.getpid(), SIGNAL)
        return self.images[rows]


def noise(count, seed):
    from pipeline.training.images import Labelled

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = rng.integers(0, 100, (count, 8, 8, 1)) + 50 * labels[:, None, None, None]
    return Labelled(images.astype(np.uint8), labels)


class Run:
    """One training whose state is kept in a folder, tried as often as it takes."""

    def __init__(self, folder, params=None, epochs=3, **changes):
        from pipeline.training.trial import TrainingConfig, TrainingFiles

        folder.mkdir()
        self.params = {**PARAMS, **(params or {})}
        self.beats = []
        self.files = TrainingFiles(folder / "trial.npz", heart=Heart(self.beats.append))
        self.config = TrainingConfig(
            3, (128.0,), (60.0,), epochs * NUM_STEPS * 8, seed=4, is_deterministic=True, **changes
        )
        self.rows = []

    def train(self, stop_at=None, stop_after=None):
        """Train, with a stop when a step is fetched or an epoch is reported."""
        from pipeline.training.stopping import SIGNAL
        from pipeline.training.trial import train

        def report(row):
            self.rows.append(row)
            if row.step == stop_after:
                os.kill(os.getpid(), SIGNAL)

        training = noise(NUM_STEPS * 8, 1)
        if stop_at is not None:
            training = replace(training, images=Stopping(training.images, stop_at))
        self.rows = []
        return train(self.params, training, noise(30, 2), self.config, report, self.files)

    def failure(self, **stops):
        """Return how a training ends that does not come to its end: state and reason."""
        with pytest.raises(TrialFailed) as caught:
            self.train(**stops)
        return caught.value.state, caught.value.reason


def state(model):
    """Every number that the future of a training depends on."""
    return [np.asarray(variable).tobytes() for variable in (*model.variables, *model.optimizer.variables)]


@pytest.mark.parametrize(
    ("params", "num_parts"), [({}, 1), ({"optimizer": "sgd", "learning_rate": 0.1}, 2)], ids=["adamw", "sgd in parts"]
)
def test_a_training_stopped_within_and_between_epochs_ends_at_the_same_weights(tmp_path, params, num_parts):
    whole, broken = (Run(tmp_path / name, params, num_micro_batches=num_parts) for name in ("whole", "broken"))
    model, _, _ = whole.train()

    ended, reason = broken.failure(stop_at=NUM_STEPS * num_parts + 5)
    words = re.fullmatch(rf"it was stopped after 1 of 3 epochs and (\d+) of {NUM_STEPS * num_parts} steps", reason)
    assert ended == "STOPPED"
    assert 0 < int(words[1]) < NUM_STEPS * num_parts
    assert broken.failure(stop_after=2) == ("STOPPED", "it was stopped after 2 of 3 epochs")
    assert [row.step for row in broken.rows] == [1, 2]
    resumed, last, _ = broken.train()

    assert state(resumed) == state(model)
    assert last == broken.rows[-1]
    for one, other in zip(broken.rows, whole.rows, strict=True):
        assert (one.step, one.val_loss, one.val_auc) == (other.step, other.val_loss, other.val_auc)
        assert (one.loss, one.accuracy) == pytest.approx((other.loss, other.accuracy), rel=1e-5)
        assert one.seconds > 0


def test_a_training_that_is_at_its_end_is_not_trained_again(tmp_path):
    run = Run(tmp_path / "run", epochs=1)
    model, last, _ = run.train()
    written = run.files.checkpoint.stat().st_mtime_ns
    again, same, _ = run.train(stop_after=1)  # too late
    assert same == last
    assert run.rows == [last]
    assert state(again) == state(model)
    assert run.files.checkpoint.stat().st_mtime_ns == written


def test_a_stop_before_the_first_batch_keeps_nothing_and_is_followed_once(tmp_path):
    from pipeline.training.stopping import SIGNAL

    run = Run(tmp_path / "run", epochs=1)
    os.kill(os.getpid(), SIGNAL)
    assert run.failure() == ("STOPPED", "it was stopped after 0 of 1 epochs")
    assert not run.files.checkpoint.exists()
    run.train()
    assert len(run.rows) == 1


def test_a_damaged_or_foreign_checkpoint_is_not_used(tmp_path, capfd):
    run, other = Run(tmp_path / "run", epochs=1), Run(tmp_path / "other", epochs=1, first_step=5)
    model, _, _ = run.train()
    content = run.files.checkpoint.read_bytes()

    other.files.checkpoint.write_bytes(content)
    other.train()
    assert [row.step for row in other.rows] == [5]
    assert "the checkpoint is not used: ValueError: it belongs to another training" in capfd.readouterr().err

    run.files.checkpoint.write_bytes(content[: len(content) // 2])
    again, _, _ = run.train()
    assert "trial.npz: the checkpoint is not used: BadZipFile" in capfd.readouterr().err
    assert state(again) == state(model)


def test_a_rung_can_begin_with_the_weights_of_the_one_before(tmp_path, capfd):
    lower = Run(tmp_path / "lower", {"norm": "none"}, epochs=2)
    model, before, _ = lower.train()
    upper = Run(tmp_path / "upper", {"norm": "none"}, epochs=1, first_step=3)
    upper.files = replace(upper.files, start_from=lower.files.checkpoint)
    upper.config = replace(upper.config, seed=5)
    upper.params |= {"learning_rate": 1e-9, "weight_decay": 0.0}
    moved, after, _ = upper.train()
    assert (after.step, after.val_accuracy) == (3, before.val_accuracy)
    for one, other in zip(model.trainable_variables, moved.trainable_variables, strict=True):
        assert np.asarray(other) == pytest.approx(np.asarray(one), abs=1e-6)
    assert int(moved.optimizer.iterations) == NUM_STEPS
    assert capfd.readouterr().err.count("not used") == 0

    upper.files.checkpoint.unlink()
    lower.files.checkpoint.write_bytes(b"no archive")
    _, fresh, _ = upper.train()
    assert fresh.val_loss > before.val_loss + 0.1
    assert "trial.npz: the checkpoint is not used: BadZipFile: File is not a zip file" in capfd.readouterr().err


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    from pipeline.training.checkpoint import DAMAGES, read_arrays

    path = tmp_path / "arrays.npz"
    np.savez(path, one=np.arange(50, dtype=np.float32), facts=np.array('{"step": 1}'))
    content, arrays = path.read_bytes(), read_arrays(path)
    num_refused = 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            found = read_arrays(path)
        except DAMAGES:
            num_refused += 1
            continue
        # What no CRC covers is the time of a file in the archive, and the like.
        for name in arrays.keys() & found.keys():
            assert (found[name] == arrays[name]).all()
    assert num_refused > len(content) / 6


def test_heartbeats_show_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.heartbeat.SEND_SECONDS", 0.0)
    run = Run(tmp_path / "run", epochs=2)
    run.train()
    assert run.beats[0].batch == 0
    seen = run.beats[-1]
    assert (seen.epoch, seen.num_epochs, seen.batch, seen.num_batches) == (2, 2, NUM_STEPS, NUM_STEPS)
    assert 0 < seen.step_seconds < 1
