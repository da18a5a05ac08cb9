"""One layer of a network as a plain value: what is built and what is counted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer. `kind` is a key of `models.build.BUILDERS`; the other fields are read by the kinds that need them.

    `sources` names the layers that it takes; without any it takes the one before.
    """

    kind: str
    name: str
    units: int = 0
    kernel: int = 0
    stride: int = 1
    rate: float = 0.0
    use_bias: bool = True
    sources: tuple[str, ...] = ()


def scaled(side: int, share: float) -> int:
    """Return a share of a side in whole pixels, at least one."""
    return max(1, round(side * share))
