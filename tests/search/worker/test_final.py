"""The last training of a winner: which test images judge it, and whose answers of a teacher it learns."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.card import Evaluation, NotFinite
from pipeline.data.source import Files, Source
from pipeline.data.splits import manifest
from pipeline.data.splits.dataset import StoredDataset
from pipeline.errors import TrialFailed
from pipeline.heartbeat import Heart
from pipeline.records import ImageSpec
from pipeline.search.worker import predictions
from pipeline.search.worker.evaluation import judge_test
from pipeline.search.worker.final import answered, not_finite
from pipeline.search.worker.student import teacher_logits
from pipeline.search.worker.teacher import answers_path, keep_if_best
from pipeline.tracking.figures import evaluation_metrics
from pipeline.workspace import StudyFolder
from tests.search.noise_study import make_noise_study, real_task
from tests.search.stubs import Network, digests_of, spec_of

NAMES = [f"photos/{number}.tif" for number in range(40)]
FIRST_OF_TEST = 32
RIGHT = np.eye(2, dtype=np.float32)[np.arange(8) % 2]


@pytest.fixture
def dataset(tmp_path):
    """24 images of train, 8 of val and 8 of test, the last of which has a copy in train."""
    folder = make_noise_study(tmp_path / "mlruns" / "studies" / "noise-1")
    stored = StoredDataset(folder / "data", folder, ImageSpec(8, 8, 1))
    labels, splits = stored.column("labels"), stored.column("splits")
    source = Source("photos", "photos", ("a", "b"), NAMES, labels, splits, Files("/", NAMES))
    manifest.write_record(folder / "data" / "split.parquet", source, splits, digests_of(40))
    return stored


def test_test_images_without_a_finite_answer_are_named_and_do_not_count(dataset):
    test, logits = dataset.split("test"), RIGHT.copy()
    logits[1] = np.nan
    logits[4, 0] = -np.inf
    counted = answered(dataset, test, dataset.digests(test.images), logits)
    assert counted.places.tolist() == [0, 2, 3, 5, 6, 7]
    np.testing.assert_array_equal(counted.digests, digests_of(40)[FIRST_OF_TEST + counted.places])
    np.testing.assert_array_equal(counted.labels, counted.places % 2)
    assert counted.is_clean.tolist() == [True] * 5 + [False]
    found = not_finite(dataset, test, logits)
    names = [os.path.join("/", NAMES[FIRST_OF_TEST + place]) for place in (1, 4)]  # noqa: PTH118
    assert found == NotFinite(2, tuple(names))
    verdict = judge_test(counted, np.arange(24) % 2, "val_accuracy")
    assert (verdict.num_images, verdict.accuracy) == (5, 1.0)
    evaluation = Evaluation(replace(verdict, not_finite=found))
    assert evaluation_metrics(evaluation)["test/num_not_finite"] == 2


def test_a_network_without_a_finite_answer_to_any_test_image_has_failed(dataset):
    test = dataset.split("test")
    with pytest.raises(TrialFailed, match="gives NaN or infinity for every test image"):
        answered(dataset, test, dataset.digests(test.images), np.full_like(RIGHT, np.nan))


@pytest.mark.heavy
def test_answers_of_a_teacher_belong_to_images_whatever_their_order(dataset):
    """The rows of the table changed their order after the teacher was asked."""
    study = Path(dataset.folder).parent
    spec = spec_of(objective="val_loss", options={"distill": True}, rungs=[48])
    job = replace(real_task(study, 3), spec=spec)
    keep_if_best(job, Network(1.0), 0.5)
    order = np.random.default_rng(0).permutation(32)
    answers = np.stack([np.arange(32), np.zeros(32)], axis=1).astype(np.float32)
    predictions.save(answers_path(StudyFolder(study).teacher, 3), digests_of(40)[:32][order], logits=answers[order])
    found = teacher_logits(job, dataset, dataset.split("val"), Heart(lambda beat: None))
    np.testing.assert_array_equal(found, answers[24:32])
