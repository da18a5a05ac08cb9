"""Several networks in a real child process: all are in the model, and a stop between them costs nothing."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.machine import Resources
from pipeline.search import validation
from pipeline.search.checkpoints import NEW_MODEL, checkpoint_path
from pipeline.search.engine import LocalEngine
from pipeline.search.store import FINAL_TRIAL, TWIN_TRIAL, Attempt, StudyStore
from pipeline.search.validation import Predictions
from tests.search.noise_study import make_noise_study, real_task

pytestmark = pytest.mark.heavy

NUM_EPOCHS = 100
LABELS = np.arange(8, dtype=np.int32) % 2


def make_ensemble(folder):
    """Write a study of which two networks like that of trial 0 are to answer."""
    folder.mkdir()
    ensemble = {
        "is_kept": True, "reason": "", "winner": 0, "alone": 0.7, "averaged": 0.6, "num_networks": 2,
        "samples": 32 * NUM_EPOCHS,
    }  # fmt: skip
    make_noise_study(folder, ensemble=ensemble, options={"ensemble": True}, is_deterministic=True, seed=3)
    for sureness, number in enumerate((0, TWIN_TRIAL)):
        logits = 2 * sureness * np.eye(2, dtype=np.float32)[LABELS]
        validation.keep(real_task(folder, number), [Predictions(logits, LABELS, None)])
    return folder


def train_final(folder, attempt, interrupt=False):
    """Train the winner's last training in a child; interrupted, when the second network has begun."""
    store = StudyStore(folder / "study.db")
    store.put_attempt(Attempt(attempt, FINAL_TRIAL, 0, 48, 2 * NUM_EPOCHS, 1, 1, "STARTED"))
    store.save()
    engine = LocalEngine([Resources(1)], folder / "trials.log")
    engine.start()
    try:
        engine.submit(replace(real_task(folder, FINAL_TRIAL), attempt=attempt, is_final=True))
        while not (ended := engine.wait(0.02)):
            if interrupt and len(store.epochs(FINAL_TRIAL)) > NUM_EPOCHS:
                ended = engine.interrupt(seconds=60.0)
                break
        return ended[0], store.epochs(FINAL_TRIAL)
    finally:
        engine.stop()
        store.close()


def test_both_are_in_the_model_and_a_stop_between_them_changes_nothing(tmp_path):
    import keras

    from pipeline.models.predict import predict_logits

    whole, stopped = (make_ensemble(tmp_path / name) for name in ("whole", "stopped"))
    outcome, epochs = train_final(whole, 9)
    found = outcome.facts
    assert (outcome.state, found["epochs"], found["planned_epochs"]) == ("COMPLETED", 100, 100), outcome.reason
    assert [row.step for row in epochs] == list(range(1, 201))
    assert epochs[100].learning_rate > epochs[99].learning_rate  # that of the second network rises and falls anew
    assert (found["ensemble"]["is_kept"], found["ensemble"]["epochs"]) == (True, [100, 100])
    assert found["validation"]["value"] == pytest.approx(np.log1p(np.exp(-1)), abs=1e-5)  # of the mean of 0 and 2

    model = keras.saving.load_model(whole / NEW_MODEL / "model.keras", compile=False, safe_mode=True)
    images = np.load(whole / "images.npy")[32:]
    alone = [predict_logits(layer, images) for layer in model.layers if isinstance(layer, keras.Model)]
    logits = np.load(whole / NEW_MODEL / "test_logits.npy")
    np.testing.assert_allclose(logits, np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.1

    interrupted, _ = train_final(stopped, 9, interrupt=True)
    assert interrupted.state == "STOPPED"
    final = real_task(stopped, FINAL_TRIAL)
    assert checkpoint_path(final).exists()
    assert checkpoint_path(final, 1).exists()
    resumed, epochs = train_final(stopped, 10)
    assert (resumed.state, [row.step for row in epochs]) == ("COMPLETED", list(range(1, 201)))
    np.testing.assert_array_equal(np.load(stopped / NEW_MODEL / "test_logits.npy"), logits)
