"""Pretrained networks: their weights, what they cost, and how they rest and learn while a network trains."""

import hashlib
from functools import partial

import numpy as np
import pytest

from pipeline.errors import SpaceError
from pipeline.models.backbones import applications as backbones
from pipeline.models.cost import ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.parts import BACKBONES
from tests.models.weights import write_weights

pytestmark = pytest.mark.heavy


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder in the place of Keras' own."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


def inner_of(model):
    """Return the pretrained network in a model."""
    import keras

    (inner,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return inner


def digest(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def pixels(shape, dtype="uint8"):
    from pipeline.models.build import Pixels

    return Pixels(shape, dtype, (0.3,) * shape[-1], (0.2,) * shape[-1])


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cost_is_that_of_the_network_that_is_built(monkeypatch, name, channels):
    from pipeline.models import build

    monkeypatch.setattr(build, "make_backbone", partial(backbones.make_backbone, has_weights=False))
    shape, params = (48, 64, channels), {"backbone": name, "dense_layers": 1, "dense_units": 16}
    cost = measure(params, shape, 5)
    model = build.build(params, pixels(shape), 5)
    assert (cost.num_params, model.output_shape) == (model.count_params(), (None, 5))
    smallest = 2 * 300e6 * 48 * 64 / 224**2  # MobileNetV2 has 300 million multiplications at 224 x 224
    assert cost.flops > 0.9 * smallest
    assert name != "mobilenet_v2" or cost.flops < 1.2 * smallest
    assert (cost.depthwise_flops > 0) == (name != "resnet50_v2")


def test_images_that_cannot_be_taken_are_refused_with_the_reason():
    with pytest.raises(ImpossibleNetwork, match="at least 32 x 32 pixels, not 28 x 28; give --image-size 96"):
        measure({"backbone": "mobilenet_v2"}, (28, 28, 1), 10)
    with pytest.raises(ImpossibleNetwork, match="these images have 5 channels"):
        measure({"backbone": "mobilenet_v2"}, (64, 64, 5), 10)


def test_the_weights_are_those_of_the_file_and_pixels_go_from_minus_1_to_1(home):
    from pipeline.models.build import build

    known = write_weights(home, "mobilenet_v2")
    model = build({"backbone": "mobilenet_v2"}, pixels((32, 32, 3)), 4)
    found = inner_of(model).get_weights()
    assert sorted(map(digest, found)) == sorted(map(digest, known))  # what does not train comes last
    normalise = model.get_layer("normalise")
    assert np.allclose(np.array([0.0, 255.0]) * np.array(normalise.scale)[0] + np.array(normalise.offset)[0], [-1, 1])


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("uint16", 0, 65535), ("float32", -0.1, 0.7)])
def test_pixels_go_where_a_network_wants_them(dtype, low, high):
    scale, offset = pixels((32, 32, 1), dtype).within(0.0, 255.0)  # float32 of mean 0.3 and deviation 0.2
    assert (scale[0] * low + offset[0], scale[0] * high + offset[0]) == (pytest.approx(0, abs=1e-9), pytest.approx(255))


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_weights_that_are_missing_or_damaged_are_named_with_what_to_do(home, monkeypatch, content):
    def offline(name):
        raise OSError("no network")

    monkeypatch.setattr(backbones, "download", offline)
    path = backbones.weights_path("resnet50_v2")
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with pytest.raises(SpaceError) as caught:
        backbones.fetch_weights(["resnet50_v2"])
    text = str(caught.value)
    assert str(path) in text
    assert BACKBONES["resnet50_v2"].url in text
    assert ("no network" in text) == (content is None)
    assert ("put it there" if content is None else "remove it") in text


def test_weights_that_are_there_are_not_downloaded(home, monkeypatch):
    monkeypatch.setattr(backbones, "download", None)
    write_weights(home, "mobilenet_v2")
    backbones.fetch_weights(["mobilenet_v2"])


@pytest.mark.parametrize(
    ("frozen", "rate", "changes"), [(0.0, 0.1, True), (0.5, 0.1, True), (0.99, 0.1, False), (0.0, 0.0, False)]
)
@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_a_pretrained_part_rests_and_then_learns_slowly(kind, frozen, rate, changes):
    recipe = {"optimizer": kind, "learning_rate": 0.05, "weight_decay": 0.01, "frozen": frozen, "backbone_rate": rate}
    inner, outer = moved_by(recipe, num_parts=1, num_epochs=2)
    assert outer > 0.01
    assert (inner > 0) == changes
    assert inner < outer / 2


@pytest.mark.parametrize(("frozen", "is_moved"), [(0.5, False), (0.4, True)])
def test_a_rest_counts_in_changes_of_the_weights_also_with_micro_batches(frozen, is_moved):
    inner, _ = moved_by({"learning_rate": 0.05, "frozen": frozen}, num_parts=2, num_epochs=1)  # 5 of 10 changes
    assert (inner > 0) == is_moved


def moved_by(values, num_parts, num_epochs):
    """Return how far the weights of a pretrained part and of the last layer moved in epochs of 5 changes, of two."""
    import keras

    from pipeline.space import recipe
    from pipeline.training.images import Steps
    from pipeline.training.recipe import compile_model

    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    image = keras.Input((8,))
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(inner(image)))
    steps = Steps(num_epochs=2, num_batches=5, num_parts=num_parts, part_size=16 // num_parts)
    compile_model(model, recipe({"backbone": "mobilenet_v2", **values}), steps, pretrained=inner.trainable_variables)
    parts = inner, model.get_layer("logits")
    before = [part.get_weights()[0] for part in parts]
    images = np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32)
    data = images, np.arange(80) % 3
    model.fit(*data, batch_size=steps.part_size, epochs=num_epochs, verbose=0, shuffle=False)
    return [float(np.abs(part.get_weights()[0] - old).max()) for part, old in zip(parts, before, strict=True)]


@pytest.mark.parametrize(("rate", "is_moved"), [(0.0, False), (0.5, True)])
def test_in_a_training_batch_normalisation_stays_as_it_came(home, rate, is_moved):
    import keras

    from pipeline.training.images import Labelled
    from pipeline.training.trial import TrainingConfig, train

    write_weights(home, "mobilenet_v2")
    rng = np.random.default_rng(0)
    data = Labelled(rng.integers(0, 255, (32, 32, 32, 3)).astype(np.uint8), np.arange(32, dtype=np.int32) % 2)
    params = {"backbone": "mobilenet_v2", "optimizer": "adamw", "learning_rate": 0.01, "batch_size": 16, "frozen": 0.2,
              "backbone_rate": rate}  # fmt: skip
    setting = TrainingConfig(2, (127.0,) * 3, (64.0,) * 3, samples=64, seed=0)
    model, _, _ = train(params, data, None, setting, lambda row: None)
    fresh = build_of(params)
    pairs = list(zip(inner_of(model).layers, inner_of(fresh).layers, strict=True))
    is_norm = [isinstance(layer, keras.layers.BatchNormalization) for layer, _ in pairs]
    moved = [distance(*pair) for pair in pairs]
    assert sum(is_norm) > 50
    assert max(value for value, norm in zip(moved, is_norm, strict=True) if norm) == 0
    assert (max(moved) > 0) == is_moved


def distance(layer, other) -> float:
    """Return the largest difference between the weights of two layers."""
    pairs = zip(layer.get_weights(), other.get_weights(), strict=True)
    return max((float(np.abs(left - right).max()) for left, right in pairs), default=0.0)


def build_of(params):
    from pipeline.models.build import build

    return build(params, pixels((32, 32, 3)), 2)


def test_a_model_within_a_model_of_the_user_does_not_rest():
    import keras

    from pipeline.space import Builder
    from pipeline.training.trial import TrainingConfig, pretrained_variables

    image = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model = keras.Model(image, inner(image))
    setting = TrainingConfig(4, (0.0,), (1.0,), samples=1, seed=0)
    assert len(pretrained_variables(model, setting)) == 2
    own = TrainingConfig(4, (0.0,), (1.0,), samples=1, seed=0, builder=Builder("a.py", "build", ""))
    assert pretrained_variables(model, own) == []
