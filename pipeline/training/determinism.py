"""The same numbers from the same seed, to the last bit; the one place in training that speaks to a backend directly."""

import os

import keras

_XLA_OPTION = "--xla_gpu_deterministic_ops=true"


def make_deterministic() -> None:
    """Make sums on several threads or on a GPU come out the same each time, which costs time there.

    Keras has no switch of its own for it. TensorFlow is switched for the rest of the process. JAX is deterministic on
    processors; for GPUs it reads an environment variable before its first computation.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    elif _XLA_OPTION not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_OPTION}".strip()
