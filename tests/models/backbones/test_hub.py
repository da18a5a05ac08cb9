"""Presets of keras-hub: the network that is built of them, and what is said of those that cannot be used."""

import sys
from functools import partial

import numpy as np
import pytest

from pipeline.errors import SpaceError
from pipeline.models.backbones.applications import fetch_weights, make_backbone
from pipeline.models.measure import measure
from tests.models.presets import OFFSET, SCALE, densenet, efficientnet, resnet, write_preset

pytestmark = pytest.mark.heavy


def images(channels=3, seed=0):
    """Return two uint8 images."""
    return np.random.default_rng(seed).integers(0, 256, (2, 40, 48, channels)).astype(np.uint8)


def build_of(name, shape, dtype="uint8"):
    from pipeline.models.build import Pixels, build

    return build({"backbone": name}, Pixels(shape, dtype, (0.3,) * shape[-1], (0.2,) * shape[-1]), 4)


def features(model, pixels):
    """Return what the pretrained part of a model says, from the pixels that the model takes."""
    import keras

    (head,) = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    return np.asarray(keras.Model(model.inputs, head.input)(pixels))


@pytest.mark.parametrize("make", [None, efficientnet])
def test_the_network_is_that_of_the_preset_with_pixels_as_it_wants_them(tmp_path, make):
    known = write_preset(tmp_path / "preset", make and make())
    name = f"hub:{tmp_path / 'preset'}"
    fetch_weights([name])
    pixels = images()
    wanted = np.asarray(known(pixels.astype(np.float32) * SCALE + OFFSET))
    assert np.ptp(wanted) > 0
    assert np.allclose(features(build_of(name, (40, 48, 3)), pixels), wanted, atol=1e-5)
    grey = images(1)
    as_rgb = np.repeat(grey.astype(np.float32), 3, axis=3)
    assert np.allclose(
        features(build_of(name, (40, 48, 1)), grey), np.asarray(known(as_rgb * SCALE + OFFSET)), atol=1e-5
    )
    deep = build_of(name, (40, 48, 3), "uint16")
    assert np.allclose(features(deep, pixels.astype(np.uint16) * 257), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["resnet", "resnet v2", "resnet vd", "densenet"])
def test_other_families_that_consist_of_plain_layers_can_be_taken(tmp_path, kind):
    networks = {
        "resnet": resnet,
        "resnet v2": partial(resnet, "bottleneck_block", is_v2=True),
        "resnet vd": partial(resnet, "basic_block_vd"),
        "densenet": densenet,
    }
    known = write_preset(tmp_path / "preset", networks[kind]())
    network = make_backbone(f"hub:{tmp_path / 'preset'}", (40, 48, 3))
    pixels = images().astype(np.float32)
    wanted = np.asarray(known(pixels * SCALE + OFFSET))
    assert np.allclose(np.asarray(network(pixels)), wanted, atol=1e-5 * np.abs(wanted).max())


def test_it_consists_of_layers_of_keras_alone_and_its_batch_normalisation_rests(tmp_path):
    import keras

    from pipeline.models.allowed import foreign_classes

    write_preset(tmp_path / "preset", efficientnet())
    network = make_backbone(f"hub:{tmp_path / 'preset'}", (40, 48, 3))
    assert list(foreign_classes(keras.saving.serialize_keras_object(network))) == []
    norms = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 10
    assert not any(layer.trainable for layer in norms)
    assert len(network.trainable_variables) > 10


def test_the_cost_is_that_of_the_network_that_is_built(tmp_path):
    write_preset(tmp_path / "preset", efficientnet())
    name = f"hub:{tmp_path / 'preset'}"
    cost = measure({"backbone": name}, (40, 48, 1), 4)
    assert cost.num_params == build_of(name, (40, 48, 1)).count_params()
    assert cost.flops > 2 * 9 * 3 * 8 * 20 * 24  # the first convolution
    assert cost.depthwise_flops > 0


def refused(name):
    """Return why a preset is refused before a search."""
    with pytest.raises(SpaceError) as caught:
        fetch_weights([name])
    return str(caught.value)


def test_a_preset_that_is_not_whole_is_named_with_what_to_do(tmp_path):
    assert "absolute path to a folder" in refused(f"hub:{tmp_path / 'missing'}")
    write_preset(tmp_path / "preset")
    (tmp_path / "preset" / "image_converter.json").unlink()
    text = refused(f"hub:{tmp_path / 'preset'}")
    assert str(tmp_path / "preset") in text
    assert "expected the name of one, which it downloads, or an absolute path" in text
    write_preset(tmp_path / "other")
    (tmp_path / "other" / "model.weights.h5").write_bytes(b"damaged")
    assert "cannot read this preset" in refused(f"hub:{tmp_path / 'other'}")


def test_networks_that_cannot_be_a_part_of_a_model_are_refused_with_the_reason(tmp_path):
    import keras_hub

    write_preset(tmp_path / "blocks", efficientnet("unfused"))
    assert "layers that are not Keras' own (keras_hub" in refused(f"hub:{tmp_path / 'blocks'}")
    transformer = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=(16, 16), num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8
    )
    write_preset(tmp_path / "vit", transformer)
    assert "ViTBackbone does not end in one map of features" in refused(f"hub:{tmp_path / 'vit'}")


def test_without_keras_hub_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    text = refused("hub:resnet_18_imagenet")
    assert "the Python package keras_hub is not installed" in text
    assert "pip install" in text
