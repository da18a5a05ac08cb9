"""The parts that networks are made of, as plain values: each kind is one function and one line in a table."""

from pipeline.parts.backbones import BACKBONES, is_pretrained, pixel_range
from pipeline.parts.blocks import ACTIVATIONS, BLOCKS, NORMS, Style, conv
from pipeline.parts.heads import HEADS
from pipeline.parts.layer import Layer, scaled
from pipeline.parts.poolings import POOLINGS

__all__ = [
    "ACTIVATIONS",
    "BACKBONES",
    "BLOCKS",
    "HEADS",
    "NORMS",
    "POOLINGS",
    "Layer",
    "Style",
    "conv",
    "is_pretrained",
    "pixel_range",
    "scaled",
]
