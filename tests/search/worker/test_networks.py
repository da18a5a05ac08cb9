"""Several networks are trained one after the other: all are in the model, and a stop between them costs nothing."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Ensemble
from pipeline.errors import TrialFailed
from pipeline.machine import Resources
from pipeline.records import EpochRow
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.engines.local import LocalEngine
from pipeline.search.events import EpochEnded, TrainingEnded
from pipeline.search.jobs import Chosen
from pipeline.search.worker import networks, validation
from pipeline.search.worker.predictions import load
from pipeline.search.worker.validation import Predictions
from pipeline.states import OutcomeState, TrainingKind
from tests.search.noise_study import make_noise_study, real_task
from tests.search.stubs import digests_of, job_in, spec_of

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
    for sureness, number in enumerate((0, TrainingKind.SECOND_SEED)):
        logits = 2 * sureness * np.eye(2, dtype=np.float32)[LABELS]
        validation.keep(real_task(folder, number), [Predictions(logits, LABELS, None, digests_of(8))])
    return folder


def train_final(folder, attempt, interrupt=False):
    """Train the winner's last training in a child; interrupted, when the second network has begun."""
    engine = LocalEngine([Resources(1)], folder / "trials.log")
    engine.start()
    try:
        engine.submit(replace(real_task(folder, TrainingKind.FINAL), attempt=attempt, is_final=True))
        epochs = []
        while True:
            events = engine.poll(0.02)
            epochs += [event.row for event in events if isinstance(event, EpochEnded)]
            if interrupt and len(epochs) > NUM_EPOCHS:
                events = engine.interrupt(seconds=60.0)
            if ended := [event.outcome for event in events if isinstance(event, TrainingEnded)]:
                return ended[0], epochs
    finally:
        engine.stop()


@pytest.mark.heavy
def test_both_are_in_the_model_and_a_stop_between_them_changes_nothing(tmp_path):
    import keras

    from pipeline.models.predict import predict_logits

    whole, stopped = (make_ensemble(tmp_path / name) for name in ("whole", "stopped"))
    outcome, epochs = train_final(whole, 9)
    found, epochs_seen = outcome.findings.evaluation, outcome.findings.epochs
    assert (outcome.state, epochs_seen, found.planned_epochs) == ("COMPLETED", 100, 100), outcome.reason
    assert [row.step for row in epochs] == list(range(1, 201))
    assert epochs[100].learning_rate > epochs[99].learning_rate  # that of the second network rises and falls anew
    assert (found.ensemble.is_kept, found.ensemble.epochs) == (True, (100, 100))
    assert found.validation.value == pytest.approx(np.log1p(np.exp(-1)), abs=1e-5)  # of the mean of 0 and 2

    model = keras.saving.load_model(whole / "model.new" / "model.keras", compile=False, safe_mode=True)
    images = np.load(whole / "images.npy")[32:]
    alone = [predict_logits(layer, images) for layer in model.layers if isinstance(layer, keras.Model)]
    logits = load(whole / "model.new" / "test_logits.npz")["logits"]
    np.testing.assert_allclose(logits, np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.1

    interrupted, _ = train_final(stopped, 9, interrupt=True)
    assert interrupted.state == "STOPPED"
    final = real_task(stopped, TrainingKind.FINAL)
    assert checkpoint_path(final).exists()
    assert checkpoint_path(final, 1).exists()
    resumed, epochs = train_final(stopped, 10)
    assert (resumed.state, [row.step for row in epochs]) == ("COMPLETED", list(range(1, 201)))
    np.testing.assert_array_equal(load(stopped / "model.new" / "test_logits.npz")["logits"], logits)


# ---- without Keras -------------------------------------------------------------------------------------------------


def trained(monkeypatch, outcomes, is_kept=True):
    """Train networks whose trainings end as named; return what became of them and the tasks."""
    jobs = []

    def train_watched(job, training, held_out, reporter, fold):
        jobs.append((job, fold))
        outcome = outcomes[len(jobs) - 1]
        if isinstance(outcome, str):
            raise TrialFailed(outcome, "by design")
        return f"model {len(jobs) - 1}", EpochRow(job.first_step + outcome[0] - 1, *[0.0] * 9), outcome[1]

    monkeypatch.setattr(networks, "train_watched", train_watched)
    monkeypatch.setattr(networks, "bare", lambda model: model)
    ensemble = Ensemble(is_kept, num_networks=3, samples=33, winner=7)
    job = job_in(
        "study", 1, TrainingKind.FINAL, 2, 99, {"filters": 8}, spec=spec_of(seed=3), seed=11, first_step=5,
        num_micro_batches=4, seconds_wanted=60.0, is_final=True, chosen=Chosen(7, ensemble=ensemble),
    )  # fmt: skip
    return *networks.train_networks(job, None, None), jobs


def test_networks_train_one_after_the_other_and_share_what_is_left(monkeypatch):
    found, ensemble, jobs = trained(monkeypatch, [(4, 4), (2, 2), (3, 3)])
    assert [(each.model, each.epochs) for each in found] == [("model 0", 4), ("model 1", 2), ("model 2", 3)]
    assert [fold for _, fold in jobs] == [None, 1, 2]
    assert [(job.samples, job.first_step, job.num_micro_batches) for job, _ in jobs] == [
        (33, 5, 4), (33, 9, 4), (33, 11, 4),
    ]  # fmt: skip
    assert [job.seconds_limit for job, _ in jobs] == [pytest.approx(60, abs=0.2)] * 3  # who is late takes the others'
    wanted = [job.seconds_wanted for job, _ in jobs]
    assert wanted == [pytest.approx(20, abs=0.2), pytest.approx(30, abs=0.2), pytest.approx(60, abs=0.2)]
    seeds = [job.seed for job, _ in jobs]
    assert (seeds[0], len(set(seeds))) == (11, 3)
    assert (ensemble.is_kept, ensemble.epochs) == (True, (4, 2, 3))


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([(4, 4), OutcomeState.FAILED], "the last training of another network ended as FAILED: by design"),
        ([(4, 4), (2, 2), (1, 3)], "the time was over before all were trained"),
    ],
)
def test_the_first_answers_alone_where_another_does_not_train_to_its_end(monkeypatch, outcomes, text):
    found, ensemble, _ = trained(monkeypatch, outcomes)
    assert [each.model for each in found] == ["model 0"]
    assert (ensemble.is_kept, ensemble.reason) == (False, text)


@pytest.mark.parametrize("outcomes", [[OutcomeState.FAILED], [OutcomeState.STOPPED], [(4, 4), OutcomeState.STOPPED]])
def test_a_first_network_that_fails_and_a_stop_end_the_training(monkeypatch, outcomes):
    with pytest.raises(TrialFailed):
        trained(monkeypatch, outcomes)


def test_without_an_ensemble_the_task_is_trained_as_it_is(monkeypatch):
    found, ensemble, jobs = trained(monkeypatch, [(3, 4)], is_kept=False)
    assert found == [("model 0", 3, 4)]
    assert not ensemble.is_kept
    ((job, fold),) = jobs
    assert (job.samples, job.seed, fold) == (99, 11, None)
