"""Every usable image is predicted once, by a model that did not see it; predictions are kept and never mixed up."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle import write_bundle
from pipeline.card import ModelCard
from pipeline.data.cache import folder as cache_folder
from pipeline.data.source import NOT_GIVEN, Files, Source
from pipeline.data.splits import manifest
from pipeline.errors import DataError, StoppedEarly
from pipeline.files import write_json
from pipeline.machine import Resources
from pipeline.records import EpochRow, ImageSpec
from pipeline.search import out_of_fold
from pipeline.search.engines.local import LocalEngine
from pipeline.search.storage.attempts import Attempt
from pipeline.search.storage.store import StudyStore
from pipeline.states import AttemptState, TrainingKind

NUM_IMAGES = 42
UNUSABLE = 41
PARAMS = {"depth": 1, "filters": 8, "batch_size": 8, "learning_rate": 0.02}
SPEC = ImageSpec(8, 8, 1)
DIGESTS = np.random.default_rng(1).integers(0, 256, (NUM_IMAGES, 32), np.uint8)


@pytest.fixture
def store(tmp_path):
    """A finished study of 42 images, odd ones bright; the last one is unusable, 0 and 2 are near-duplicates."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES, dtype=np.int32) % 2
    clusters = np.full((2, NUM_IMAGES), -1)
    clusters[1, [0, 2]] = 0

    def fill(folder):
        pixels = rng.normal(60 + 120 * labels[:, None, None, None], 10, (NUM_IMAGES, 8, 8, 1))
        np.save(folder / "images.npy", pixels.astype(np.uint8))
        np.save(folder / "clusters.npy", clusters)
        np.save(folder / "facts.npy", DIGESTS.view([("sha256", "u1", 32)]).ravel())

    cache_folder.open_or_build(tmp_path / "images", "key", fill).close()
    study = tmp_path / "study"
    splits = np.repeat(np.array([0, 1, 2, NOT_GIVEN], np.uint8), (25, 8, 8, 1))
    (study / "data").mkdir(parents=True)
    for name, array in (("labels", labels), ("splits", splits)):
        np.save(study / "data" / f"{name}.npy", array)
    write_images(study, splits, labels)
    write_model(study, PARAMS)
    store = StudyStore(study / "study.db")
    store.create(
        {
            "study": "photos-1", "dataset": "photos", "source": "photos",
            "fingerprint": "f", "cache": str(tmp_path / "images" / "key"),
            "image": asdict(SPEC), "classes": ["dark", "light"], "mean": [120.0], "std": [60.0], "seed": 0,
            "objective": "val_accuracy", "space": {}, "oracle": "asha", "versions": {"pipeline": "0"},
            "num_images": {"train": 25, "val": 8, "test": 8},
        }
    )  # fmt: skip
    store.put_attempt(Attempt(1, TrainingKind.FINAL, 2, 99, 3, 1, 1, AttemptState.DONE, 0.9, 9.9, ended=2))
    store.save()
    for step in (1, 2, 3):
        store.put_epoch(1, EpochRow(step, 0.1, 0.9, 0.1, *[0.9] * 4, learning_rate=0.01, seconds=3.3))
    store.save()
    yield store
    store.close()


def write_images(study, splits, labels, groups=None):
    paths = [f"{row}.png" for row in range(NUM_IMAGES)]
    source = Source("photos", "photos", ("dark", "light"), paths, labels, splits, Files("photos", paths), groups)
    manifest.write_record(study / "data" / "split.parquet", source, splits, DIGESTS)


def write_model(study, params):
    (study / "model").mkdir(exist_ok=True)
    (study / "model" / "model.keras").write_bytes(b"weights")
    write_bundle(study / "model", ModelCard(("dark", "light"), SPEC, params=params, trial=3, epochs=3))


def assign(plan, store):
    spec = store.spec()
    out_of_fold.assign_images(plan, spec, Path(spec.cache))


def keep_predictions(plan):
    """Write made-up predictions of all folds: the logits of image i are i and -i."""
    folds = plan.folds()
    for number in range(plan.num_folds):
        rows = np.flatnonzero(folds == number).astype(np.float32)
        np.save(plan.logits_path(number), np.stack([rows, -rows], axis=1))


def test_every_usable_image_is_in_one_fold_and_each_fold_holds_every_class(store):
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assert out_of_fold.missing_folds(plan) == [0, 1, 2, 3]
    assign(plan, store)
    folds = plan.folds()
    assert folds[UNUSABLE] == NOT_GIVEN
    sizes = [np.bincount(np.arange(NUM_IMAGES)[folds == number] % 2, minlength=2) for number in range(4)]
    assert np.sum(sizes) == NUM_IMAGES - 1
    assert np.min(sizes) >= 4
    assert folds[0] == folds[2]


def test_labels_in_another_order_than_the_decoded_images_are_refused(store, monkeypatch):
    """A search was killed while it wrote the data of a table whose rows had changed their order."""
    data = store.path.parent / "data"
    monkeypatch.setattr("tests.search.test_out_of_fold.DIGESTS", DIGESTS[::-1])
    write_images(data.parent, np.load(data / "splits.npy"), np.load(data / "labels.npy"))
    with pytest.raises(DataError, match=r"in different orders.*pipeline search DATA --name photos-1 --resume"):
        assign(out_of_fold.plan_out_of_fold(store, 4), store)


def test_images_of_one_group_are_in_one_fold(store):
    data = store.path.parent / "data"
    groups = [f"plant-{row // 4}" for row in range(NUM_IMAGES)]
    write_images(data.parent, np.load(data / "splits.npy"), np.load(data / "labels.npy"), groups)
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assign(plan, store)
    folds = plan.folds()[:40].reshape(10, 4)
    assert (folds == folds[:, :1]).all()
    assert set(folds.ravel()) == {0, 1, 2, 3}


def test_a_fold_trains_on_usable_images_outside_of_it_and_predicts_the_others():
    training, held_out = out_of_fold.rows_of_fold(np.array([0, 1, NOT_GIVEN, 2, 1], np.uint8), 1)
    assert (training.tolist(), held_out.tolist()) == ([0, 3], [1, 4])


def test_predictions_are_put_together_in_the_order_of_the_images(store):
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assign(plan, store)
    keep_predictions(plan)
    rows, logits = out_of_fold.read_predictions(plan)
    assert rows.tolist() == list(range(UNUSABLE))
    assert logits[:, 0].tolist() == rows.tolist()


def test_only_the_folds_without_predictions_are_missing(store):
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assign(plan, store)
    folds = plan.folds()
    keep_predictions(plan)
    plan.logits_path(2).unlink()
    assert out_of_fold.missing_folds(out_of_fold.plan_out_of_fold(store, 4)) == [2]
    assert np.array_equal(plan.folds(), folds)
    assert out_of_fold.missing_folds(out_of_fold.plan_out_of_fold(store, 5)) == [0, 1, 2, 3, 4]
    assert out_of_fold.missing_folds(plan) == [2]  # those of four folds are still kept


@pytest.mark.parametrize("changed", ["model", "images", "fingerprint", "facts"])
def test_predictions_of_another_model_or_other_images_are_not_used(store, changed):
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assign(plan, store)
    keep_predictions(plan)
    if changed == "model":
        write_model(plan.study.path, {**PARAMS, "filters": 16})
    elif changed == "images":
        write_images(plan.study.path, np.zeros(NUM_IMAGES, np.uint8), np.zeros(NUM_IMAGES, np.int32))
    elif changed == "fingerprint":
        store.put("fingerprint", "g")
    else:
        plan.facts_path.write_text('{"fing')
    assert out_of_fold.missing_folds(out_of_fold.plan_out_of_fold(store, 4)) == [0, 1, 2, 3]
    assert not plan.logits_path(0).exists()


def test_the_estimate_follows_the_epochs_of_the_last_training(store):
    plan = out_of_fold.plan_out_of_fold(store, 4)
    assign(plan, store)
    one, all_folds = (out_of_fold.estimate_seconds(plan, store, numbers) for numbers in ([1], range(4)))
    num_held_out = int((plan.folds() == 1).sum())
    passes = 3 * (41 - num_held_out) + num_held_out / 3
    assert one == pytest.approx(12 + 1.5 + passes * 3.3 / 33)
    assert all_folds == pytest.approx(12 + 4 * 1.5 + (3 * 41 * 3 + 41 / 3) * 3.3 / 33)


def test_a_study_without_a_winner_says_how_to_finish_it(store):
    with store.transaction() as connection:
        connection.execute("DELETE FROM attempt")
    with pytest.raises(DataError, match=r"photos-1 is not finished.*pipeline search DATA --name photos-1 --resume"):
        out_of_fold.plan_out_of_fold(store, 4)


def test_images_that_were_cleared_away_are_asked_for(store):
    spec = store.spec()
    out_of_fold.hold_images(spec).close()
    write_json(store.path.parent.parent / "images" / "key" / "meta.json", {})
    with pytest.raises(DataError, match=r"cleared away.*pipeline search DATA --name photos-1 --resume"):
        out_of_fold.hold_images(spec)


@pytest.mark.heavy
def test_a_fold_is_trained_in_a_child_and_what_cannot_be_trained_says_why(store):
    plan = out_of_fold.plan_out_of_fold(store, 3)
    assign(plan, store)
    before = dict(os.environ)
    engine = LocalEngine([Resources(1)], plan.folder / "folds.log")
    engine.start()
    try:
        accuracy = out_of_fold.run_fold(plan, engine, 1)
        logits, labels = np.load(plan.logits_path(1)), np.flatnonzero(plan.folds() == 1) % 2
        assert logits.shape == (len(labels), 2)
        assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
        assert out_of_fold.missing_folds(plan) == [0, 2]
        huge = replace(plan, params={**PARAMS, "head": "flatten", "dense_layers": 1, "dense_units": 1_000_000_000})
        with pytest.raises(StoppedEarly, match="fold 3 of 3: out of memory at batch 8"):
            out_of_fold.run_fold(huge, engine, 2)
    finally:
        engine.stop()
        os.environ.clear()
        os.environ.update(before)
    assert {path.name for path in plan.folder.iterdir()} == {
        "folds-of-3.npy", "folds-of-3.json", "fold-2-of-3.npy", "folds.log",
    }  # fmt: skip


def test_a_study_of_several_labels_is_refused(store):
    store.put("is_multi_label", True)
    with pytest.raises(DataError, match=r"study photos-1: an image has several labels; expected one, .*by_class"):
        out_of_fold.plan_out_of_fold(store, 3)
