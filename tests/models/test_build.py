"""The arithmetic agrees with Keras, and what is built does what the plan says."""

import json
import random

import numpy as np
import pytest

from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.models.predict import predict_logits
from pipeline.parts import ACTIVATIONS, BLOCKS, HEADS, NORMS, POOLINGS
from pipeline.space import space_from

pytestmark = pytest.mark.heavy

EVERYTHING = f"""
schema: 1
params:
  depth: {{type: int, min_value: 1, max_value: 6}}
  block: {{type: choice, values: [{", ".join(BLOCKS)}]}}
  convs_per_stage: {{type: int, min_value: 1, max_value: 2}}
  filters: {{type: choice, values: [8, 12, 24]}}
  filters_growth: {{type: choice, values: [1.0, 1.5, 2.0]}}
  kernel_size: {{type: choice, values: [1, 3, 5]}}
  squeeze_excite: {{type: boolean}}
  norm: {{type: choice, values: [{", ".join(NORMS)}]}}
  activation: {{type: choice, values: [{", ".join(ACTIVATIONS)}]}}
  pooling: {{type: choice, values: [{", ".join(POOLINGS)}]}}
  head: {{type: choice, values: [{", ".join(HEADS)}]}}
  dense_layers: {{type: int, min_value: 0, max_value: 2}}
  dense_units: {{type: choice, values: [16, 24]}}
  resolution: {{type: choice, values: [0.3, 0.75, 1.0]}}
"""

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (17, 23, 3), (64, 48, 1)]


def count_flops(model) -> int:
    """Count two FLOPs a multiply-add from the kernels and output shapes of the built layers."""
    flops = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            positions = int(np.prod(layer.output.shape[1:-1])) if len(kernel.shape) == 4 else 1
            flops += 2 * positions * int(np.prod(kernel.shape))
    return flops


def test_arithmetic_equals_keras_on_200_random_configurations():
    import keras

    from pipeline.models.build import Pixels, build

    space, rng = space_from(EVERYTHING.encode(), "everything", "everything.yaml"), random.Random(7)
    num_built = num_refused = 0
    while num_built < 200:
        params, shape = space.sample(rng), rng.choice(SHAPES)
        try:
            cost = measure(params, shape, 10)
        except ImpossibleNetwork:
            num_refused += 1
            pixels = Pixels(shape, "uint8", [0.0] * shape[2], [1.0] * shape[2])
            with pytest.raises(ValueError, match=r"[Nn]egative dimension|output.*shape|size"):
                build(params, pixels, 10)
            continue
        model = build(params, Pixels(shape, "uint8", [0.0] * shape[2], [1.0] * shape[2]), 10)
        assert model.count_params() == cost.num_params, params
        assert count_flops(model) == cost.flops, params
        assert {name: model.get_layer(name).output.shape[1:] for name, _ in cost.shapes} == dict(cost.shapes), params
        num_built += 1
        if num_built % 50 == 0:
            keras.utils.clear_session()
    assert num_refused > 0  # the space holds impossible networks, and they were met


def test_normalisation_is_inside_and_uint8_goes_in():
    from pipeline.models.build import Pixels, build

    model = build({"depth": 1}, Pixels((8, 8, 3), "uint8", mean=[10.0, 20.0, 30.0], std=[1.0, 2.0, 0.0]), 4)
    assert model.input.dtype == "uint8"
    pixels = np.full((1, 8, 8, 3), (11, 24, 30), np.uint8)
    normalised = np.asarray(model.get_layer("normalise")(pixels))
    assert normalised[0, 0, 0] == pytest.approx([1.0, 2.0, 0.0], abs=1e-5)
    assert model.output.shape == (None, 4)


@pytest.mark.parametrize(("dtype", "mean", "std"), [("uint16", 40_000.0, 500.0), ("float32", 300.0, 0.01)])
def test_deep_pixels_are_normalised_on_their_own_scale(dtype, mean, std):
    from pipeline.models.build import Pixels, build

    model = build({"depth": 1}, Pixels((8, 8, 1), dtype, [mean], [std]), 2)
    assert model.input.dtype == dtype
    pixels = np.full((1, 8, 8, 1), mean + 3 * std, dtype)
    assert np.asarray(model.get_layer("normalise")(pixels))[0, 0, 0] == pytest.approx([3.0], abs=0.3)


def test_prediction_does_not_depend_on_the_batch_size():
    from pipeline.models.build import Pixels, build

    model = build({"depth": 2, "filters": 8}, Pixels((12, 12, 1), "uint8", [100.0], [50.0]), 3)
    images = np.random.default_rng(0).integers(0, 256, (37, 12, 12, 1), dtype=np.uint8)
    whole = predict_logits(model, images, 64)
    assert whole.shape == (37, 3)
    assert predict_logits(model, images, 8) == pytest.approx(whole, abs=1e-5)
    assert predict_logits(model, images[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "params",
    [
        {"block": "residual", "head": "gem", "pooling": "blur", "norm": "group"},
        {"block": "mobile", "squeeze_excite": True, "activation": "silu", "resolution": 0.5},
        {"block": "separable", "activation": "gelu", "norm": "layer", "head": "gmp"},
    ],
)
def test_a_saved_network_of_every_part_is_loaded_without_this_package(tmp_path, params):
    import keras

    from pipeline.models.allowed import foreign_classes
    from pipeline.models.build import Pixels, build

    model = build({"depth": 2, "filters": 8, **params}, Pixels((12, 12, 1), "uint8", [100.0], [50.0]), 3)
    assert list(foreign_classes(json.loads(model.to_json()))) == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1), dtype=np.uint8)
    logits = predict_logits(model, images)
    assert np.isfinite(logits).all()
    assert predict_logits(loaded, images) == pytest.approx(logits, abs=1e-5)


def test_a_generalised_mean_of_nothing_has_a_slope():
    import keras

    from pipeline.models.build import Pixels, build

    model = build({"depth": 1, "filters": 8, "head": "gem"}, Pixels((8, 8, 1), "uint8", [0.0], [1.0]), 2)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32), verbose=0)
    assert all(np.isfinite(np.asarray(each)).all() for each in model.get_weights())
