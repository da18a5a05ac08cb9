"""Small real pictures for tests: written by Pillow, told apart by brightness."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, brightness: int, size: tuple[int, int] = (12, 10), mode: str = "L") -> Path:
    """Write a noisy picture, (width, height) in `size`; its format is that of the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(path.name)) % 2**32)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.clip(rng.normal(brightness, 10, shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(root: Path, counts: dict[str, int], mode: str = "L") -> Path:
    """Write a folder with a sub-folder per class, class k around brightness 40 + 60 k."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            write_picture(root / name / f"{index:03d}.png", 40 + 60 * number, mode=mode)
    return root
