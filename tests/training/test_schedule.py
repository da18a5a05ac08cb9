"""The learning rate of each step, and a training that is shortened while it runs."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import TrialFailed
from tests.training.test_trial import SMALL, stripes

pytestmark = pytest.mark.heavy

PEAK = 0.4
PAUSE = 0.02  # seconds of a step


def rates(num_updates, num_parts=1, length=None):
    """The rates of all steps of an SGD whose schedule is as long as was planned, or as long as it became."""
    import keras

    from pipeline.training.schedule import OneCycle, set_length

    schedule = OneCycle(PEAK, num_updates, num_parts)
    optimizer = keras.optimizers.SGD(schedule)
    schedule.bind(optimizer)
    if length is not None:
        set_length(optimizer, length)
    return [float(schedule(step)) for step in range((length or num_updates) * num_parts + 1)]


def test_the_rate_rises_in_a_line_for_a_fifth_and_falls_by_a_cosine_to_zero():
    found = rates(100)
    assert found[:20] == pytest.approx([PEAK * (0.1 + 0.9 * step / 20) for step in range(20)])
    assert found[20:] == pytest.approx([PEAK * (1 + math.cos(math.pi * i / 80)) / 2 for i in range(81)], abs=1e-6)


def test_all_parts_of_a_batch_have_the_same_rate():
    assert rates(10, num_parts=3)[:-1] == pytest.approx(np.repeat(rates(10)[:-1], 3))


def test_a_schedule_that_was_made_shorter_is_that_of_a_shorter_training():
    assert rates(100, length=60) == pytest.approx(rates(60))


class Slow:
    """Images of which each batch takes its time."""

    def __init__(self, images):
        self.images = images
        self.shape = images.shape

    def __getitem__(self, rows):
        time.sleep(PAUSE)
        return self.images[rows]


def slow_run(folder, epochs=10, report=None, **changes):
    """Train with steps of PAUSE seconds, ten an epoch; return the model, its rows, the plan and the seconds."""
    from pipeline.training.trial import TrainingConfig, TrainingFiles, train

    data, rows = stripes(160), []
    config = TrainingConfig(2, (128.0,), (60.0,), 160 * epochs, 1, keeps_unfinished=True, **changes)
    files = TrainingFiles(folder / "trial.npz")
    started = time.monotonic()
    trained = train(SMALL, replace(data, images=Slow(data.images)), None, config, report or rows.append, files)
    return trained, rows, time.monotonic() - started


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_a_training_that_would_be_late_is_shortened_and_its_rate_still_ends_at_zero(tmp_path, num_micro_batches):
    wanted = 7.0  # of 12 seconds and the start
    trained, rows, seconds = slow_run(
        tmp_path, epochs=60 // num_micro_batches, seconds_wanted=wanted, num_micro_batches=num_micro_batches
    )
    assert 2 <= len(rows) == trained.num_planned < 60 // num_micro_batches
    assert rows[-1].learning_rate == pytest.approx(0.0, abs=1e-6)
    assert max(row.learning_rate for row in rows) > 0.5 * SMALL["learning_rate"]
    assert 0.75 * wanted < seconds < wanted + 1.5  # what Keras needs to begin once more
    assert int(trained.model.optimizer.iterations) < 10 * 60


def test_a_training_that_is_in_time_is_as_long_as_planned(tmp_path):
    trained, rows, _ = slow_run(tmp_path, epochs=4, seconds_wanted=60.0)
    assert (len(rows), trained.num_planned, int(trained.model.optimizer.iterations)) == (4, 4, 40)


def test_a_shortened_training_that_was_stopped_keeps_its_new_plan(tmp_path, stoppable):
    import os

    from pipeline.training.stopping import SIGNAL

    rows = []

    def stop_in_third(row):
        rows.append(row)
        if row.step == 3:
            os.kill(os.getpid(), SIGNAL)

    with pytest.raises(TrialFailed) as caught:
        slow_run(tmp_path, epochs=60, seconds_wanted=6.0, report=stop_in_third)
    assert caught.value.state == "STOPPED"
    planned = int(caught.value.reason.split(" of ")[1].split()[0])
    assert planned < 60
    trained, again, _ = slow_run(tmp_path, epochs=60)
    assert (trained.num_planned, len(again)) == (planned, planned)
    assert [row.loss for row in again[:3]] == [row.loss for row in rows]
    assert again[-1].learning_rate == pytest.approx(0.0, abs=1e-6)
