"""Presets of keras-hub in a folder, of small networks that were not trained."""

from pathlib import Path
from typing import Any

SCALE, OFFSET = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.118, -2.036, -1.804]  # of a red, a green and a blue value


def write_preset(folder: Path, network: Any = None) -> Any:
    """Write a preset as `save_to_preset` of an image classifier does; return its network (default: a small VGG)."""
    import keras_hub

    network = network or keras_hub.models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 16])
    (converter,) = [
        each for each in keras_hub.layers.ImageConverter.__subclasses__() if each.backbone_cls is type(network)
    ]
    folder.mkdir(parents=True)
    network.save_to_preset(str(folder))
    converter(scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return network


def resnet(kind: str = "basic_block", is_v2: bool = False) -> Any:
    """Return a residual network of two blocks: version 1, 2 or with `basic_block_vd` D."""
    import keras_hub

    stem = [64] if kind != "basic_block_vd" else [32, 32, 64]
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=stem,
        input_conv_kernel_sizes=[7] if len(stem) == 1 else [3, 3, 3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type=kind,
        use_pre_activation=is_v2,
    )


def densenet() -> Any:
    """Return a network of two dense blocks."""
    import keras_hub

    return keras_hub.models.DenseNetBackbone(stackwise_num_repeats=[2, 2], compression_ratio=0.5, growth_rate=8)


def efficientnet(kind: str = "v1") -> Any:
    """Return a network of three blocks; those of EfficientNet v1 are plain layers, `unfused` ones of keras-hub."""
    import keras_hub

    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0.25] * 2,
        stackwise_block_types=[kind] * 2,
    )
