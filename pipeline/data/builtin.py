"""The built-in sets: handwritten digits that ship with scikit-learn, and Fashion-MNIST from idx files or a download."""

import gzip
import hashlib
import shutil
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.files import replacing

NAMES = ("digits", "fashion-mnist")

FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
# SHA-256 of the idx data after gunzip: the same whoever compressed it.
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # the address in its README
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts them
DOWNLOAD_SECONDS = 30.0


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 digits (8 x 8, 17 grey levels) as PNG files below folder/digits and return that.

    Every third image is test, the others train. The folder appears whole or not at all.
    """
    target = folder / "digits"
    if target.is_dir():
        return target
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".digits-", dir=folder) as temporary:
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            split = "test" if index % 3 == 2 else "train"
            path = Path(temporary, "digits", split, str(label), f"{index:04d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
        Path(temporary, "digits").rename(target)
    return target


def read_fashion_mnist(folder: Path, source: str | None) -> tuple[NDArray[np.uint8], list[str], list[str]]:
    """Return images uint8 (70000, 28, 28), class names and splits ("train" or "test") of Fashion-MNIST.

    The idx files are taken from `source`, else from `folder` (an earlier download), else from Debian's package, else
    they are downloaded into `folder`, where their SHA-256 is checked. A user's own copy may differ (a subset, say).

    Raises:
        DataError: nowhere to be had (all ways are named), or not idx files of one image size.
    """
    origin = find_idx_folder(folder, source)
    if origin is None:
        download_fashion_mnist(folder)
        origin = folder
    parts = {name: read_idx(origin, name) for name in FASHION_SHA256}
    for kind in ("train", "t10k"):
        num_images, num_labels = (len(parts[f"{kind}-{what}-ubyte"]) for what in ("images-idx3", "labels-idx1"))
        if num_images != num_labels:
            raise DataError(
                f"{origin}: found {num_images} {kind} images and {num_labels} labels; expected as many of both"
            )
    sides = {parts[f"{kind}-images-idx3-ubyte"].shape[1:] for kind in ("train", "t10k")}
    largest = max(int(parts[f"{kind}-labels-idx1-ubyte"].max(initial=0)) for kind in ("train", "t10k"))
    if len(sides) > 1 or largest >= len(FASHION_CLASSES):
        raise DataError(
            f"{origin}: found images of {len(sides)} size(s) and labels up to {largest}; expected one size and labels "
            f"0 to {len(FASHION_CLASSES) - 1}; these are not Fashion-MNIST's files"
        )
    images = np.concatenate([parts["train-images-idx3-ubyte"], parts["t10k-images-idx3-ubyte"]])
    numbers = np.concatenate([parts["train-labels-idx1-ubyte"], parts["t10k-labels-idx1-ubyte"]])
    splits = ["train"] * len(parts["train-labels-idx1-ubyte"]) + ["test"] * len(parts["t10k-labels-idx1-ubyte"])
    return images, [FASHION_CLASSES[number] for number in numbers], splits


def find_idx_folder(folder: Path, source: str | None) -> Path | None:
    """Return the first folder that holds all idx files; a `source` that does not is an error."""
    if source is not None:
        if not holds_idx(Path(source)):
            raise DataError(
                f"--source {source}: found no {next(iter(FASHION_SHA256))}[.gz]; expected the four idx files "
                f"{', '.join(FASHION_SHA256)}, each with or without .gz"
            )
        return Path(source)
    return next((place for place in (folder, FASHION_DEBIAN) if holds_idx(place)), None)


def holds_idx(folder: Path) -> bool:
    """Tell whether all idx files are in a folder, compressed or not."""
    return all((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in FASHION_SHA256)


def download_fashion_mnist(folder: Path) -> None:
    """Download the four files into `folder`, each by rename after its SHA-256 was checked."""
    for name, digest in FASHION_SHA256.items():
        with replacing(folder / f"{name}.gz") as temporary:
            address = f"{FASHION_URL}/{name}.gz"
            try:
                with (
                    urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as response,
                    temporary.open("wb") as file,
                ):
                    shutil.copyfileobj(response, file)
                content = gzip.decompress(temporary.read_bytes())
            except (OSError, urllib.error.URLError, EOFError, zlib.error) as error:
                raise DataError(
                    f"fashion-mnist: {address} cannot be downloaded ({error}); expected one of three ways: "
                    "a connection to that address; `--source FOLDER` with the four idx files; or Debian's package, "
                    "`apt-get install dataset-fashion-mnist`"
                ) from error
            check_sha256(content, digest, f"{FASHION_URL}/{name}.gz")


def read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Return the array of an idx file (magic 0x0000 08 ndim, big-endian sides, uint8 values), with or without .gz.

    Raises:
        DataError: unreadable, or not as long as its header says.
    """
    path = folder / name
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}[.gz]: cannot be read ({error}); fetch the file again") from error
    num_axes = 3 if "idx3" in name else 1
    header = 4 + 4 * num_axes
    shape = np.frombuffer(content[4:header].ljust(4 * num_axes, b"\0"), ">u4").astype(int)
    if content[:4] != bytes((0, 0, 8, num_axes)) or len(content) != header + shape.prod():
        raise DataError(
            f"{path}[.gz]: found {len(content)} bytes that start with {content[:4]!r}; expected an idx file of uint8 "
            f"with {num_axes} axes; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def check_sha256(content: bytes, expected: str, where: str) -> None:
    """Raise DataError unless the bytes have the expected SHA-256."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{where}: sha256 of the data is {found}; expected {expected}; fetch the file again")
