"""How a network is computed while it trains: in bfloat16, and with fused batch normalisation. After it is as before.

Beside `determinism.py` the one place in training that speaks to a backend directly: Keras 3.15 computes batch
normalisation on TensorFlow as some twenty operations in float32, more than half of the time of a step on a CPU; and
TensorFlow remembers trainings that are over, and lets them wait for a thread that sleeps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from pipeline.models.keras_cost import leaves

FLOAT32, BFLOAT16 = "float32", "bfloat16"
_POLICIES = {FLOAT32: "float32", BFLOAT16: "mixed_bfloat16"}  # variables are float32 in both
_EXACT = (keras.layers.Rescaling, keras.layers.Normalization)  # they take pixels of up to 16 bits
_MIN_EPSILON = 1.001e-5  # below it cuDNN refuses


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """The same variables and results, by TensorFlow's one operation for (batch, height, width, channels)."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return normalised inputs of their own dtype; in training the moving statistics follow."""
        import tensorflow

        is_training = bool(training) and self.trainable
        gamma, beta, mean, variance = (
            keras.ops.convert_to_tensor(each)
            for each in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        unused = keras.ops.zeros((0,))
        outputs, batch_mean, batch_variance, *_ = tensorflow.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=unused if is_training else mean,
            variance=unused if is_training else variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )
        if is_training:
            # TensorFlow divides the variance by n - 1, Keras by n.
            count = keras.ops.cast(keras.ops.size(inputs) // inputs.shape[-1], "float32")
            batch_variance = batch_variance * (count - 1) / count
            self.moving_mean.assign(mean * self.momentum + batch_mean * (1 - self.momentum))
            self.moving_variance.assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return outputs


@contextmanager
def computing(model: keras.Model, precision: str) -> Iterator[None]:
    """Compute a model in FLOAT32 or BFLOAT16, and with fused batch normalisation, for the length of the block.

    Its variables stay as they are. The normalisation of pixels and the last layer, which gives the logits, are always
    float32. To be entered before the model is compiled or called.
    """
    layers = list(leaves(model))
    plain = [layer for layer in layers if type(layer) is keras.layers.BatchNormalization and _can_be_fused(layer)]
    short = [
        layer
        for layer in layers[:-1]
        if precision != FLOAT32 and layer.dtype_policy.name == FLOAT32 and not isinstance(layer, _EXACT)
    ]
    restore_feed = _feed_without_tuning()
    for layer in plain:
        layer.__class__ = FusedBatchNormalization
    for layer in short:
        layer.dtype_policy = keras.DTypePolicy(_POLICIES[precision])
    try:
        yield
    finally:
        restore_feed()
        for layer in plain:
            layer.__class__ = keras.layers.BatchNormalization
        for layer in short:
            layer.dtype_policy = keras.DTypePolicy(FLOAT32)
        model.train_function = model.test_function = model.predict_function = None  # they were made for the block
        _forget_gradients()


def _feed_without_tuning() -> Callable[[], None]:
    """Let TensorFlow feed trainings without tuning its feed; return what undoes that.

    TensorFlow 2.21 tunes in a thread that sleeps ever longer, up to a minute, and the end of a training waits until it
    wakes: 13 s at the end of one of 68 s were seen. There is nothing to tune in a feed of one generator.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda: None
    import tensorflow
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    options = tensorflow.data.Options()
    options.autotune.enabled = False
    original = PyDatasetAdapter.get_tf_dataset

    def untuned(adapter: Any) -> Any:
        return original(adapter).with_options(options)

    PyDatasetAdapter.get_tf_dataset = untuned

    def restore() -> None:
        PyDatasetAdapter.get_tf_dataset = original

    return restore


def limit_gpu_memory(limit_mb: float) -> None:
    """Let TensorFlow take at most so many MB of a GPU that it shares; 0 is no limit, because the size is not known.

    To be called before its first computation. JAX reads its limit from the environment.
    """
    if keras.backend.backend() != "tensorflow" or not limit_mb:
        return
    import tensorflow

    part = tensorflow.config.LogicalDeviceConfiguration(memory_limit=limit_mb)
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.set_logical_device_configuration(gpu, [part])


def _forget_gradients() -> None:
    """Forget the gradients that TensorFlow registered for the steps of a training.

    Its registry keeps each custom gradient for good, and with it the graphs of the training and their feed: some MB a
    training (tests/training/test_memory.py). It is private, so a TensorFlow that has none is left alone.
    """
    if keras.backend.backend() != "tensorflow":
        return
    from tensorflow.python.framework import ops

    registered = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]


def _can_be_fused(layer: Any) -> bool:
    """Tell whether FusedBatchNormalization computes what a layer does: on TensorFlow, for pictures, with all parts."""
    return (
        keras.backend.backend() == "tensorflow"
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not (layer.renorm or layer.synchronized)
        and layer.epsilon >= _MIN_EPSILON
        and layer.dtype_policy.name == FLOAT32
    )
