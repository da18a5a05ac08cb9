"""What is done to training images at random: policies by name, or one of the user's in a file; no backend is needed."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.space.values import check_keys, described, refuse
from pipeline.space.yaml_file import parse, read_bytes

_SHIFT = 0.08  # of the side; airbench shifts 32 px images by 2 px (6 %), Page's recipe by 4 px (12 %)
MOST_SHIFT, MOST_CUTOUT = 0.5, 0.9  # of the side: beyond them little of an image is left
_KEYS = ("shift", "flip", "cutout")
_EXAMPLE = "shift: 0.1"


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images at random.

    They are moved by up to `shift` of their side, flipped left to right with `flips`, and a square whose side is
    `cutout` of theirs is hidden.
    """

    shift: float = 0.0
    flips: bool = False
    cutout: float = 0.0

    def as_text(self) -> str:
        """Return what `augmentation_of` reads, such as shift=0.1,flip,cutout=0.25."""
        parts = [f"shift={self.shift:g}"] if self.shift else []
        parts += ["flip"] if self.flips else []
        parts += [f"cutout={self.cutout:g}"] if self.cutout else []
        return ",".join(parts) or "none"


AUGMENTATIONS = {
    "none": Augmentation(),
    "light": Augmentation(_SHIFT),
    "standard": Augmentation(_SHIFT, flips=True),
    "strong": Augmentation(_SHIFT, flips=True, cutout=0.3),
}
"""By the values of the hyperparameter `augment`."""


def augmentation_of(text: str) -> Augmentation:
    """Return what a value of the hyperparameter `augment` means: a key of AUGMENTATIONS, or a policy as text.

    Raises:
        ValueError: it means nothing.
    """
    if text in AUGMENTATIONS:
        return AUGMENTATIONS[text]
    values = dict(part.partition("=")[::2] for part in text.split(","))
    if not values.keys() <= set(_KEYS) or values.get("flip"):
        raise ValueError(f"{text!r} is not an augmentation")
    found = Augmentation(float(values.get("shift", 0)), "flip" in values, float(values.get("cutout", 0)))
    if not (0 <= found.shift <= MOST_SHIFT and 0 <= found.cutout <= MOST_CUTOUT):
        raise ValueError(f"{text!r} is out of range")
    return found


def read_augmentation(path: Path) -> Augmentation:
    """Return the policy in a YAML file that says one or more of _KEYS.

    Raises:
        SpaceError: no such file, or something else in it.
    """
    raw, where = parse(read_bytes(path), str(path)), str(path)
    if not isinstance(raw, dict) or not raw:
        refuse(where, described(raw), f"one or more of {', '.join(_KEYS)}", f"write such as `{_EXAMPLE}`")
    check_keys(where, raw, _KEYS)
    flips = raw.get("flip", False)
    if not isinstance(flips, bool):
        refuse(f"{where}: flip", described(flips), "true or false", "write one of these")
    shift = _checked_part(f"{where}: shift", raw.get("shift", 0.0), MOST_SHIFT)
    return Augmentation(shift, flips, _checked_part(f"{where}: cutout", raw.get("cutout", 0.0), MOST_CUTOUT))


def _checked_part(where: str, value: object, most: float) -> float:
    """Return a part of the side of an image."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        refuse(where, described(value), f"a part of the image's side, 0 to {most:g}", "write such a number")
    return float(f"{value:.6g}")
