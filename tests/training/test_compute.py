"""In bfloat16 and with fused normalisation a training goes as before, and the model is as before."""

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def network(**norm):
    import keras

    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 64, -2.0, name="normalise"),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv"),
            keras.layers.BatchNormalization(momentum=0.9, name="norm", **norm),
            keras.layers.ReLU(name="relu"),
            keras.layers.GlobalAveragePooling2D(name="head"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def trained(precision, num_steps=5):
    """Return losses and logits of some steps, and the model after them."""
    import keras

    from pipeline.training.compute import computing

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.uint8), rng.integers(0, 3, 32)
    model = network()
    with computing(model, precision):
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        losses = [float(model.train_on_batch(images, labels)) for _ in range(num_steps)]
        logits = np.asarray(model.predict_on_batch(images))
    return losses, logits, model, images


def by_keras(num_steps=5):
    """Return the same by Keras' own layers."""
    import keras

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.uint8), rng.integers(0, 3, 32)
    model = network()
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    losses = [float(model.train_on_batch(images, labels)) for _ in range(num_steps)]
    return losses, np.asarray(model.predict_on_batch(images)), model


def test_fused_normalisation_computes_what_keras_does():
    losses, logits, model, _ = trained("float32")
    expected_losses, expected_logits, expected = by_keras()
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    assert logits == pytest.approx(expected_logits, abs=1e-3)
    for one, other in zip(model.weights, expected.weights, strict=True):
        assert np.asarray(one) == pytest.approx(np.asarray(other), rel=1e-3, abs=1e-4), one.path


def test_bfloat16_goes_like_float32_and_is_another_computation():
    losses, logits, model, images = trained("bfloat16")
    expected_losses, expected_logits, _ = by_keras()
    assert losses == pytest.approx(expected_losses, rel=0.02)
    assert logits != pytest.approx(expected_logits, abs=1e-6)
    assert logits.dtype == np.float32
    assert np.asarray(model.predict_on_batch(images)) == pytest.approx(logits, abs=0.05)


def test_afterwards_a_model_is_of_keras_own_float32_layers(tmp_path):
    import keras

    _, logits, model, images = trained("bfloat16")
    assert type(model.get_layer("norm")) is keras.layers.BatchNormalization
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    exact = np.asarray(model.predict_on_batch(images))
    assert exact != pytest.approx(logits, abs=1e-6)  # it is not computed in bfloat16 any more
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.asarray(loaded.predict_on_batch(images)) == pytest.approx(exact, abs=1e-5)


def test_pixels_and_logits_are_always_exact():
    from pipeline.training.compute import computing

    model = network()
    with computing(model, "bfloat16"):
        policies = {layer.name: layer.dtype_policy.name for layer in model.layers}
    assert {name for name, policy in policies.items() if policy == "float32"} == {"normalise", "logits"}


@pytest.mark.parametrize(
    "norm", [{"renorm": True}, {"axis": 1}, {"scale": False}, {"center": False}, {"epsilon": 1e-6}]
)
def test_a_normalisation_that_tensorflow_cannot_fuse_stays_keras_own(norm):
    import keras

    from pipeline.training.compute import computing

    model = network(**norm)
    with computing(model, "float32"):
        assert type(model.get_layer("norm")) is keras.layers.BatchNormalization


def test_the_moving_variance_is_that_of_all_pixels_not_of_a_sample():
    from pipeline.training.compute import computing

    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    model = network()
    convolved = np.asarray(model.layers[1](model.layers[0](images)))
    with computing(model, "float32"):
        model(images, training=True)
    expected = 0.9 + 0.1 * convolved.var(axis=(0, 1, 2))  # momentum 0.9, from 1
    assert np.asarray(model.get_layer("norm").moving_variance) == pytest.approx(expected, rel=1e-4)


def test_the_feed_of_a_training_is_not_tuned_and_that_of_others_is_as_before():
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    from pipeline.training.compute import computing

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int32)

    def is_tuned():
        return PyDatasetAdapter(Batches(), shuffle=False).get_tf_dataset().options().autotune.enabled

    before = is_tuned()
    with computing(network(), "float32"):
        assert is_tuned() is False  # its thread would sleep on, for up to a minute, when a training ends
    assert is_tuned() is before is not False


def test_tensorflow_is_told_how_much_of_a_shared_gpu_it_may_take(monkeypatch):
    import tensorflow

    from pipeline.training.compute import limit_gpu_memory

    told = []
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tensorflow.config, "set_logical_device_configuration", lambda *call: told.append(call))
    limit_gpu_memory(0.0)
    assert told == []
    limit_gpu_memory(1234.0)
    ((device, (part,)),) = told
    assert (device, part.memory_limit) == ("GPU", 1234.0)
