"""The cost of a network, and the error for an impossible one; `measure` and `keras_cost` find out both."""

from dataclasses import dataclass

Shape = tuple[int, ...]
ImageShape = tuple[int, int, int]  # height, width, channels


class ImpossibleNetwork(ValueError):
    """A network that pools the image away, or that a user's own code cannot build; the message says where."""


@dataclass(frozen=True)
class Cost:
    """What a network costs. `num_params` counts all weights as Keras does, the moving statistics included.

    `flops` is for one image, forward: two per multiply-add of convolutions and dense layers, the rest left out.
    `depthwise_flops` are those of them that are spent on channels by themselves.
    """

    num_params: int
    flops: int
    shapes: tuple[tuple[str, Shape], ...]
    depthwise_flops: int = 0

    @property
    def mflops(self) -> float:
        """Millions of FLOPs, rounded to three digits after the point."""
        return round(self.flops / 1e6, 3)
