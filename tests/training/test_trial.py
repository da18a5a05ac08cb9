"""A training learns, reports every epoch, is repeatable, and says why it failed."""

import math
import zipfile

import numpy as np
import pytest

from pipeline.errors import TrialFailed

pytestmark = pytest.mark.heavy

LEARNING = [
    {},
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "muon"},
    {"augment": "light"},
    {"label_smoothing": 0.2},
]
SMALL = {"depth": 1, "filters": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.03}


def stripes(count, seed=0):
    """Labelled pictures of upright (0) and lying (1) stripes with noise."""
    from pipeline.training.images import Labelled

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.int32)
    wave = 128 + 60 * np.sign(np.sin(np.arange(8) * np.pi / 2 + 0.1))
    lying = np.broadcast_to(wave[:, None], (8, 8))
    images = np.where(labels[:, None, None] == 1, lying, lying.T) + rng.normal(0, 15, (count, 8, 8))
    return Labelled(images.clip(0, 255).astype(np.uint8)[..., None], labels)


def run(params=None, epochs=3, validation=True, files=None, **changes):
    from pipeline.training.trial import TrainingConfig, TrainingFiles, train

    rows = []
    config = TrainingConfig(2, (128.0,), (60.0,), **{"samples": 160 * epochs, "seed": 1, **changes})
    held_out = stripes(60, 9) if validation else None
    model, last, _ = train(
        {**SMALL, **(params or {})}, stripes(160), held_out, config, rows.append, files or TrainingFiles()
    )
    return model, last, rows


@pytest.mark.parametrize("params", LEARNING)
def test_a_small_network_learns_stripes(params):
    _, last, rows = run(params, epochs=4, first_step=11)
    assert last.val_accuracy > 0.95
    assert [row.step for row in rows] == [11, 12, 13, 14]
    assert rows[-1] == last
    assert all(0 <= row.accuracy <= 1 and row.val_loss > 0 and row.seconds > 0 for row in rows)


def test_the_learning_rate_rises_to_its_peak_and_ends_at_zero():
    _, _, rows = run({"learning_rate": 0.01}, epochs=5)
    assert rows[0].learning_rate == pytest.approx(0.01, rel=0.01)  # the warm-up is a fifth of the steps
    assert rows[-1].learning_rate == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_is_traced_once(optimizer, monkeypatch):
    import keras

    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(keras.Model, "train_step", lambda *arguments: traced.append(1) or step(*arguments))
    run({"optimizer": optimizer}, epochs=2)
    assert len(traced) == 1  # each trace of a small network takes half a second, in every trial


def test_the_same_seed_gives_the_same_course():
    # Sums on several threads differ in the last bits, so equal to five digits, not to the last.
    assert run()[2][0].loss == pytest.approx(run()[2][0].loss, rel=1e-5)


def test_reported_validation_is_what_the_model_is_worth():
    from pipeline.models.predict import predict_logits
    from pipeline.training.metrics import measure_logits

    model, last, _ = run(epochs=1)
    held_out = stripes(60, 9)
    found = measure_logits(predict_logits(model, held_out.images), held_out.labels)
    for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auc"):
        assert getattr(last, f"val_{name}") == pytest.approx(getattr(found, name), rel=1e-4)


def test_without_validation_images_there_is_no_validation():
    _, last, _ = run(validation=False)
    figures = (last.val_accuracy, last.val_loss, last.val_balanced_accuracy, last.val_macro_f1, last.val_auc)
    assert all(math.isnan(figure) for figure in figures)
    assert last.accuracy > 0.8


def test_samples_that_are_less_than_an_epoch_are_a_short_epoch():
    model, _, rows = run(samples=48)
    assert [row.step for row in rows] == [1]
    assert int(model.optimizer.iterations) == 3


def test_a_loss_that_is_not_finite_fails_with_epoch_and_learning_rate():
    with pytest.raises(TrialFailed) as caught:
        run({"optimizer": "sgd", "learning_rate": 1e30, "norm": "none"})
    assert caught.value.state == "FAILED"
    assert caught.value.reason.endswith("in epoch 1 (learning rate up to 1e+30)")  # not the 0 of the end


def test_an_objective_that_is_not_a_number_fails():
    from pipeline.training.images import Labelled
    from pipeline.training.trial import TrainingConfig, train

    one_class = Labelled(stripes(20).images, np.zeros(20, np.int32))
    with pytest.raises(TrialFailed) as caught:
        train(SMALL, stripes(160), one_class, TrainingConfig(2, (128.0,), (60.0,), 160, 1, "val_auc"), lambda row: None)
    assert caught.value.state == "FAILED"
    assert caught.value.reason.startswith("val_auc became nan in epoch 1 (learning rate up to 0.")


def test_a_training_without_time_is_pruned():
    with pytest.raises(TrialFailed) as caught:
        run(seconds_limit=0.0)
    assert caught.value.state == "PRUNED"
    assert caught.value.reason == "the time was over after 0 of 3 epochs"


def test_a_winner_whose_time_is_over_is_kept_as_it_is():
    model, last, rows = run(seconds_limit=0.0, keeps_unfinished=True)
    assert model.output_shape == (None, 2)
    assert math.isnan(last.loss)
    assert rows == []


@pytest.mark.parametrize(("num_micro_batches", "batch"), [(1, "batch 16"), (3, "batch 16 in 4 parts")])
def test_running_out_of_memory_is_infeasible(num_micro_batches, batch):
    with pytest.raises(TrialFailed) as caught:
        run(
            {"dense_layers": 1, "head": "flatten", "dense_units": 2_000_000_000},  # 4 TB of weights
            num_micro_batches=num_micro_batches,
        )
    assert caught.value.state == "INFEASIBLE"
    assert caught.value.reason == f"out of memory at {batch}"


def test_an_allocation_that_jax_refuses_is_lack_of_memory():
    from pipeline.training.trial import is_out_of_memory

    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("INVALID_ARGUMENT: shapes"))


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adamw", 0.01), ("sgd", 0.1), ("muon", 0.01)])
def test_parts_of_batches_give_what_whole_batches_give(optimizer, learning_rate):
    params = {"norm": "none", "optimizer": optimizer, "learning_rate": learning_rate}
    (whole, last, _), (parts, last_of_parts, _) = run(params, 2), run(params, 2, num_micro_batches=4)
    assert int(parts.optimizer.iterations) == int(whole.optimizer.iterations) == 20
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    assert last_of_parts.learning_rate == pytest.approx(last.learning_rate, abs=1e-9)
    assert last_of_parts.loss == pytest.approx(last.loss, rel=1e-3)


@pytest.mark.parametrize("params", [{}, {"optimizer": "muon"}, {"label_smoothing": 0.1}])
def test_a_model_is_saved_without_a_class_of_ours(tmp_path, params):
    import keras

    from pipeline.training.recipe import without_recipe

    model, _, _ = run(params, epochs=1, num_micro_batches=2)
    without_recipe(model).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"pipeline" not in archive.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    images = stripes(8).images
    assert np.asarray(loaded(images)) == pytest.approx(np.asarray(model(images)), abs=1e-6)


def test_label_smoothing_spreads_a_share_over_all_classes():
    from pipeline.training.losses import smoothed_crossentropy

    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32))
    labels = np.array([0, 2], np.int32)
    targets = 0.3 / 3 + 0.7 * np.eye(3)[labels]
    expected = -(targets * logits).sum(axis=1)
    assert np.asarray(smoothed_crossentropy(0.3)(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_offsets_of_logits_count_in_the_loss_only():
    import keras

    from pipeline.training.losses import smoothed_crossentropy
    from pipeline.training.recipe import log_priors

    assert log_priors(np.array([0, 0, 0, 1]), 3) == pytest.approx(np.log([3 / 4.5, 1 / 4.5, 0.5 / 4.5]))
    logits, labels = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32), np.array([1, 0])
    offsets = [-0.1, -2.0]
    expected = -np.log(np.exp(logits + offsets) / np.exp(logits + offsets).sum(axis=1, keepdims=True))[[0, 1], labels]
    found = keras.ops.convert_to_numpy(smoothed_crossentropy(0.0, offsets)(labels, logits))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_several_labels_is_the_mean_binary_crossentropy_with_smoothing_towards_a_half():
    import keras

    from pipeline.training.losses import all_right, smoothed_binary_crossentropy

    logits = np.array([[2.0, -1.0, 0.0], [-300.0, 300.0, 0.5]], np.float32)
    labels = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    plain = keras.ops.convert_to_numpy(smoothed_binary_crossentropy(0.0)(labels, logits))
    by_hand = [(np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log(2)) / 3, (300 + np.log1p(np.exp(-0.5))) / 3]
    assert plain == pytest.approx(by_hand, rel=1e-5)
    smooth = keras.ops.convert_to_numpy(smoothed_binary_crossentropy(0.2, [0.0, 0.5, 0.0])(labels[:1], logits[:1]))
    shares, targets = 1 / (1 + np.exp(-(logits[0] + [0, 0.5, 0]))), np.array([0.9, 0.1, 0.9])
    expected = -(targets * np.log(shares) + (1 - targets) * np.log(1 - shares)).mean()
    assert smooth == pytest.approx([expected], rel=1e-5)
    assert keras.ops.convert_to_numpy(all_right(labels, logits)).tolist() == [1.0, 0.0]


def test_offsets_of_several_labels_are_the_logarithms_of_their_odds():
    from pipeline.training.recipe import log_priors

    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.uint8)
    assert log_priors(labels, 3) == pytest.approx(np.log([1 / 3, 4 / 0.5, 0.5 / 4]))


def test_a_network_learns_several_labels_and_reports_what_they_are_worth():
    """Two labels an image: whether its upper half is bright, and whether its lower half is, which is rare."""
    from pipeline.models.predict import predict_logits
    from pipeline.training.images import Labelled
    from pipeline.training.metrics import measure_logits
    from pipeline.training.trial import TrainingConfig, train

    rng = np.random.default_rng(0)
    labels = (rng.random((300, 2)) < (0.5, 0.2)).astype(np.uint8)
    images = rng.normal(80, 15, (300, 8, 8, 1)) + 90 * labels.repeat(4, 1)[:, :, None, None]
    data = Labelled(images.clip(0, 255).astype(np.uint8), labels, np.ones(300, np.float32))
    rows = []
    config = TrainingConfig(2, (110.0,), (50.0,), 8 * 300, 0, "val_auc")
    params = {**SMALL, "augment": "none", "label_smoothing": 0.1, "head": "flatten"}
    model, last, _ = train(params, data, data, config, rows.append)
    found = measure_logits(predict_logits(model, data.images), labels)
    assert last.val_auc > 0.98
    assert last.val_accuracy > 0.9
    for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auc"):
        assert getattr(last, f"val_{name}") == pytest.approx(getattr(found, name), rel=1e-4)
    assert last.accuracy == pytest.approx(last.val_accuracy, abs=0.1)
    assert last.loss == pytest.approx(last.val_loss, abs=0.1)  # neither is smoothed
    assert rows[0].loss > rows[-1].loss


def test_adjusted_logits_let_a_rare_class_be_found():
    """Two classes that overlap, nine to one: without adjustment the rare one is hardly ever answered."""
    from pipeline.models.predict import predict_logits
    from pipeline.training.images import Labelled
    from pipeline.training.trial import TrainingConfig, train

    rng = np.random.default_rng(0)
    labels = (np.arange(600) % 10 == 0).astype(np.int32)
    brightness = rng.normal(110 + 30 * labels, 20).clip(0, 255)
    images = brightness.astype(np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)
    data = Labelled(images, labels)
    recalls = []
    for adjusts in (False, True):
        config = TrainingConfig(2, (110.0,), (30.0,), 12 * 600, 0, "val_balanced_accuracy", adjusts_logits=adjusts)
        params = {"depth": 1, "filters": 8, "augment": "none", "label_smoothing": 0.0, "dropout": 0.0}
        model, _, _ = train(params, data, data, config, lambda row: None)
        recalls.append((predict_logits(model, images).argmax(axis=1) == labels)[labels == 1].mean())
    assert recalls[1] > recalls[0] + 0.2


def test_reported_losses_are_without_smoothing():
    params = {"learning_rate": 1e-9, "head": "gap"}  # the weights stay as they are
    plain, smooth = (run({**params, "label_smoothing": share}, epochs=1)[1] for share in (0.0, 0.9))
    assert smooth.loss == pytest.approx(plain.loss, rel=1e-4)
    assert smooth.val_loss == pytest.approx(plain.val_loss, rel=1e-4)


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adamw", 0.01), ("sgd", 0.1), ("muon", 0.01)])
def test_weight_decay_is_a_part_of_each_kernel_and_of_nothing_else(optimizer, learning_rate):
    params = {"optimizer": optimizer, "learning_rate": learning_rate, "norm": "none", "weight_decay": 0.0}
    free, _, _ = run({**params}, samples=16)
    decayed, _, _ = run({**params, "weight_decay": 0.5}, samples=16)
    for one, other in zip(free.trainable_variables, decayed.trainable_variables, strict=True):
        lost = np.abs(np.asarray(one) - np.asarray(other)).max()
        assert (lost > 0.01) == one.path.endswith("kernel"), one.path


def test_muon_makes_the_update_of_a_convolution_nearly_orthogonal():
    import keras

    from pipeline.training.recipe import KernelMuon

    variable = keras.Variable(np.zeros((3, 3, 4, 8), np.float32), name="kernel")
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
    KernelMuon(1.0, weight_decay=None, rms_rate=None).apply([keras.ops.convert_to_tensor(gradient)], [variable])
    singular = np.linalg.svd(np.asarray(variable).reshape(36, 8), compute_uv=False)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
