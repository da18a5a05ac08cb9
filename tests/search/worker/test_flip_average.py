"""Flip averaging is kept where validation images say so and no limit forbids it."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Baseline, FlipAverage
from pipeline.errors import InvalidUsage
from pipeline.limits import Limits
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.jobs import Chosen, TrainingJob
from pipeline.search.options import SearchOptions, check_averaging
from pipeline.search.worker import flip_average, predictions, validation
from pipeline.search.worker.evaluation import Decided, judge_winner
from pipeline.search.worker.validation import Predictions
from pipeline.workspace import StudyFolder
from tests.search.stubs import answers_of, digests_of, job_in, spec_of

LABELS = (np.arange(60) % 2).astype(np.int32)
DIGESTS = digests_of(60)
RIGHT = np.eye(2, dtype=np.float32)[LABELS]
HALF_RIGHT = np.where(np.arange(60)[:, None] < 30, RIGHT, RIGHT[:, ::-1])
SPEC = spec_of(options={"average_flips": True}, rungs=[100])


def task_in(folder, **changes) -> TrainingJob:
    spec = replace(SPEC, **changes)
    return job_in(folder, 1, 3, 0, 100, {"filters": 16, "depth": 1}, spec=spec, chosen=Chosen(winner=3))


def choose(folder, averaged, **changes):
    """Return what is decided on a winner that is right in half of the images by itself."""
    validation.keep(task_in(folder), [Predictions(HALF_RIGHT, LABELS, averaged, DIGESTS)])
    return flip_average.choose(task_in(folder, **changes), None, model=None)


def test_it_is_kept_where_the_objective_is_better_with_it(tmp_path):
    found = choose(tmp_path, RIGHT)
    assert found == FlipAverage(True, "", alone=0.5, value=1.0)
    assert "val_accuracy 1.0000, without it 0.5000; twice the work" in flip_average.average_text(found, "val_accuracy")


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_it_is_not_where_it_is_as_good_or_worse(tmp_path, objective):
    for averaged in (HALF_RIGHT, RIGHT[:, ::-1]):
        found = choose(tmp_path, averaged, objective=objective)
        assert (found.is_kept, found.reason) == (False, "no better on the validation images")
    assert choose(tmp_path, RIGHT, objective=objective).is_kept  # a smaller loss is better


def test_a_limit_forbids_it_where_twice_the_work_breaks_it(tmp_path):
    mflops = 2 * 2 * (8 * 8 * 9 * 16 + 16 * 2) / 1e6  # both views: one convolution, and a dense layer to 2 classes
    assert choose(tmp_path, RIGHT, limits=Limits(max_mflops=mflops + 0.001)).is_kept
    found = choose(tmp_path, RIGHT, limits=Limits(max_mflops=mflops - 0.001))
    assert (found.is_kept, found.reason.split(" MFLOPs")[0]) == (False, f"twice the work is {mflops:.6g}")
    assert flip_average.average_text(found, "val_accuracy").startswith("not used: twice the work")


def test_without_validation_logits_of_mirror_images_there_is_none(tmp_path):
    found = choose(tmp_path, None)
    assert (found.is_kept, found.reason) == (False, "the winner has no validation logits of mirror images")
    validation.logits_path(StudyFolder(tmp_path).logits, 3).write_bytes(b"damaged")
    assert not flip_average.choose(task_in(tmp_path), None, None).is_kept
    assert not choose(tmp_path, RIGHT, average_flips=False).is_kept  # nobody asked


def test_what_the_folds_said_is_kept_one_after_the_other(tmp_path):
    first = Predictions(RIGHT, LABELS, HALF_RIGHT, DIGESTS)
    second = Predictions(HALF_RIGHT, LABELS, RIGHT, digests_of(60, first=60))
    validation.keep(task_in(tmp_path), [first, second])
    stored = validation.read(StudyFolder(tmp_path).logits, 3)
    for name in Predictions._fields:
        both = [getattr(part, name) for part in (first, second)]
        np.testing.assert_array_equal(getattr(stored, name), np.concatenate(both))
    validation.keep(replace(task_in(tmp_path), training=4), [first, None])  # a lower rung
    assert validation.read(StudyFolder(tmp_path).logits, 4) is None


def test_temperature_and_search_gain_are_those_of_the_logits_that_the_winner_gives(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(np.int32)
    alone = np.eye(2, dtype=np.float32)[np.where(rng.random(400) < 0.8, labels, 1 - labels)]
    validation.keep(task_in(tmp_path), [Predictions(alone, labels, 4 * alone, digests_of(400))])
    values = [
        validation.judge_validation(StudyFolder(tmp_path).logits, [3], "val_accuracy", kept)[1].value
        for kept in (False, True)
    ]
    assert values[1] == pytest.approx(4 * values[0], rel=1e-3)

    baseline = {False: HALF_RIGHT, True: RIGHT}
    for is_averaged, logits in baseline.items():
        predictions.save(baseline_logits(StudyFolder(tmp_path).baseline, is_averaged), DIGESTS, logits=logits)
    for is_kept, gain in ((False, 0.5), (True, 0.0)):
        decided = Decided(3, FlipAverage(is_kept), None, None, Baseline(""))
        found = judge_winner(StudyFolder(tmp_path).for_training, SPEC, decided, answers_of(RIGHT, LABELS), LABELS)
        assert found.search_gain.comparison.gain == gain


@pytest.mark.parametrize("minimise", ["mflops", "latency"])
def test_it_is_refused_where_work_is_to_be_as_little_as_possible(minimise):
    with pytest.raises(InvalidUsage, match=f"doubles the work, while --minimise {minimise}"):
        check_averaging(SearchOptions("photos", average_flips=True, minimise=minimise))
    check_averaging(SearchOptions("photos", average_flips=True, minimise="params"))
    check_averaging(SearchOptions("photos", minimise=minimise))
