"""Predictions belong to images, whatever order these come in; openings of test images are counted by their content."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.card import Baseline, FlipAverage
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.storage.openings import count_openings, note_opening, openings_path
from pipeline.search.worker import predictions, validation
from pipeline.search.worker.evaluation import Decided, judge_winner
from pipeline.search.worker.validation import Predictions, judge_validation, read_mean
from pipeline.states import TrainingKind
from pipeline.workspace import StudyFolder
from tests.search.stubs import answers_of, digests_of, job_in, spec_of

NUM_IMAGES = 60
LABELS = (np.arange(NUM_IMAGES) % 2).astype(np.int32)
LOGITS = np.random.default_rng(0).normal(size=(NUM_IMAGES, 2)).astype(np.float32)
SHUFFLED = np.random.default_rng(1).permutation(NUM_IMAGES)
DIGESTS = digests_of(NUM_IMAGES)

DECIDED = Decided(3, FlipAverage(False), None, None, Baseline(""))


def keep(folder, number, logits, order=slice(None)):
    validation.keep(job_in(folder, 1, number, 2), [Predictions(logits[order], LABELS[order], None, DIGESTS[order])])


def test_predictions_are_found_again_in_another_order(tmp_path):
    predictions.save(tmp_path / "some.npz", DIGESTS, logits=LOGITS)
    found = predictions.load_for(tmp_path / "some.npz", DIGESTS[SHUFFLED])
    np.testing.assert_array_equal(found["logits"], LOGITS[SHUFFLED])


def test_copies_of_an_image_have_its_predictions(tmp_path):
    twice = np.repeat(DIGESTS, 2, axis=0)
    predictions.save(tmp_path / "some.npz", twice, logits=np.repeat(LOGITS, 2, axis=0))
    found = predictions.load_for(tmp_path / "some.npz", twice[::-1])
    np.testing.assert_array_equal(found["logits"], np.repeat(LOGITS, 2, axis=0)[::-1])


def test_an_image_without_a_prediction_is_an_error(tmp_path):
    predictions.save(tmp_path / "some.npz", DIGESTS[:50], logits=LOGITS[:50])
    with pytest.raises(ValueError, match="10 of 60 images are missing"):
        predictions.load_for(tmp_path / "some.npz", DIGESTS)
    predictions.save(tmp_path / "none.npz", DIGESTS[:0], logits=LOGITS[:0])
    with pytest.raises(ValueError, match="60 of 60 images are missing"):
        predictions.load_for(tmp_path / "none.npz", DIGESTS)


def test_predictions_of_nobody_knows_whom_are_not_used(tmp_path):
    np.savez(tmp_path / "earlier.npz", logits=LOGITS, labels=LABELS)
    with pytest.raises(ValueError, match="does not say which images it belongs to"):
        predictions.load(tmp_path / "earlier.npz")


def test_the_mean_of_a_trial_and_its_twin_is_one_of_the_same_images(tmp_path):
    """The rows of the table changed their order between the two trainings."""
    keep(tmp_path, 3, LOGITS)
    keep(tmp_path, TrainingKind.SECOND_SEED, 3 * LOGITS, SHUFFLED)
    answers = read_mean(StudyFolder(tmp_path).logits, [3, TrainingKind.SECOND_SEED])
    np.testing.assert_allclose(answers.logits, 2 * LOGITS, rtol=1e-6)
    np.testing.assert_array_equal(answers.labels, LABELS)


def test_images_that_a_network_answers_with_nan_do_not_judge_it(tmp_path):
    spoiled = LOGITS.copy()
    spoiled[[4, 9]] = np.nan, -np.inf
    keep(tmp_path, 3, spoiled)
    whole, kept = np.arange(NUM_IMAGES), np.setdiff1d(np.arange(NUM_IMAGES), [4, 9])
    np.testing.assert_array_equal(read_mean(StudyFolder(tmp_path).logits, [3]).logits, LOGITS[kept])
    assert np.isfinite(judge_validation(StudyFolder(tmp_path).logits, [3], "val_loss")[0].value)
    keep(tmp_path, 3, np.full_like(LOGITS, np.nan)[whole])
    assert judge_validation(StudyFolder(tmp_path).logits, [3], "val_loss")[0] is None


@pytest.mark.parametrize("order", [slice(None), SHUFFLED], ids=["as it was", "shuffled"])
def test_what_a_search_gained_does_not_depend_on_the_order_of_the_rows(tmp_path, order):
    right = np.eye(2, dtype=np.float32)[LABELS]
    default = np.where(np.arange(NUM_IMAGES)[:, None] < 45, right, 1 - right)
    predictions.save(baseline_logits(StudyFolder(tmp_path).baseline), DIGESTS[order], logits=default[order])
    found = judge_winner(
        StudyFolder(tmp_path).for_training, spec_of(), DECIDED, answers_of(right, LABELS), LABELS
    ).search_gain
    assert (found.baseline.reason, found.comparison.value, found.comparison.gain) == ("", 0.75, 0.25)


def test_a_default_network_is_compared_where_both_answer(tmp_path):
    folder = StudyFolder(tmp_path).for_training
    right = np.eye(2, dtype=np.float32)[LABELS]
    default = np.where(np.arange(NUM_IMAGES)[:, None] < 30, np.float32(np.nan), right)
    predictions.save(baseline_logits(folder.baseline), DIGESTS, logits=default)
    found = judge_winner(folder, spec_of(), DECIDED, answers_of(right, LABELS), LABELS)
    assert (found.search_gain.comparison.value, found.search_gain.comparison.gain) == (1.0, 0.0)
    predictions.save(baseline_logits(folder.baseline), DIGESTS, logits=np.full_like(default, np.nan))
    found = judge_winner(folder, spec_of(), DECIDED, answers_of(right, LABELS), LABELS)
    assert found.search_gain.baseline.reason.endswith("cannot be used: ValueError: no prediction is finite")


def test_openings_are_counted_by_the_content_of_the_test_images_in_the_workspace(tmp_path):
    studies = [tmp_path / "mlruns" / "studies" / name for name in ("photos-1", "photos-2", "others-1")]
    splits = np.repeat(np.array([0, 2], np.uint8), 30)
    digests = [DIGESTS, DIGESTS[::-1], digests_of(NUM_IMAGES, first=100)]
    for study, of_study, order in zip(studies, digests, (1, -1, 1), strict=True):
        (study / "data").mkdir(parents=True)
        np.save(study / "data" / "sha256.npy", of_study)
        np.save(study / "data" / "splits.npy", splits[::order])
    assert [count_openings(StudyFolder(study)) for study in studies] == [0, 0, 0]
    note_opening(StudyFolder(studies[0]), 7)
    note_opening(StudyFolder(studies[1]), 9)
    assert [count_openings(StudyFolder(study)) for study in studies] == [2, 2, 0]
    lines = openings_path(StudyFolder(studies[0]), DIGESTS[30:]).read_text().splitlines()
    assert [(json.loads(line)["study"], json.loads(line)["attempt"]) for line in lines] == [
        ("photos-1", 7), ("photos-2", 9)
    ]  # fmt: skip


def test_answers_without_a_copy_in_train_count_unless_all_have_one():
    answers = answers_of(LOGITS, LABELS, is_clean=np.arange(NUM_IMAGES) < 20, slices={"site": (["a"], LABELS)})
    counted = answers.counted()
    np.testing.assert_array_equal(counted.logits, LOGITS[:20])
    assert (counted.places.tolist(), len(counted.slices["site"][1])) == (list(range(20)), 20)
    nobody = replace(answers, is_clean=np.zeros(NUM_IMAGES, bool))
    assert nobody.counted() is nobody
