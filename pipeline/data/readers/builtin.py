"""The built-in sets: what they are, and where their files are found or downloaded from; others read them."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.data.cache import download
from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.readers import cifar, idx
from pipeline.data.readers.folders import from_folder
from pipeline.data.source import Source
from pipeline.errors import DataError, InvalidUsage
from pipeline.files import move_folder
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class BuiltinSet:
    """A set that can be named: `image` is the size and kind, `megabytes` the download below `url`.

    `where` is where it would come from now.
    """

    name: str
    title: str
    num_images: int
    image: str
    num_classes: int
    licence: str
    megabytes: float
    url: str
    where: str = ""


_GREY = "28 x 28 grey"
COLOUR = "32 x 32 colour"
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"  # the mirror that TensorFlow Datasets uses
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # the address in its README
_KMNIST_URL = "http://codh.rois.ac.jp/kmnist/dataset/kmnist"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz"
# Licences: MNIST as keras.io/api/datasets/mnist states it, the others from their own pages; CIFAR's page states none.
SETS = {
    one.name: one
    for one in (
        BuiltinSet(
            "digits", "Handwritten digits of UCI", 1797, "8 x 8 grey", 10, "CC BY 4.0", 0.0,
            "https://archive.ics.uci.edu/dataset/80",
        ),
        BuiltinSet("mnist", "Handwritten digits", 70_000, _GREY, 10, "CC BY-SA 3.0", 11.6, _MNIST_URL),
        BuiltinSet("fashion-mnist", "Clothes", 70_000, _GREY, 10, "MIT", 30.9, _FASHION_URL),
        BuiltinSet("kmnist", "Cursive Japanese characters", 70_000, _GREY, 10, "CC BY-SA 4.0", 21.2, _KMNIST_URL),
        BuiltinSet("cifar10", "Animals and vehicles", 60_000, COLOUR, 10, "none stated", 170.1, _CIFAR_URL),
        BuiltinSet("cifar100", "Things, fine labels", 60_000, COLOUR, 100, "none stated", 168.5, _CIFAR_URL),
    )
}  # fmt: skip
NAMES = tuple(SETS)

# SHA-256 of the files as they are downloaded: the same in tensorflow/datasets (url_checksums/) and in
# ankane/torchvision-ruby (lib/torchvision/datasets/).
DIGESTS = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    "cifar100": {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
}
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts them

# The classes by number, as published.
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    ),
}  # fmt: skip


def catalogue(workspace: Path) -> list[BuiltinSet]:
    """Return the built-in sets with where each would come from in this workspace."""
    return [replace(one, where=_where_from(one, workspace)) for one in SETS.values()]


def _where_from(one: BuiltinSet, workspace: Path) -> str:
    """Tell where a built-in set would come from now."""
    if one.name == "digits":
        return "ships with scikit-learn"
    place = _find_local(one.name, workspace)
    if place is None:
        return f"download from {one.url}"
    return f"local: {place}" if place == FASHION_DEBIAN else f"downloaded: {Path('data', one.name)}"


def open_builtin(name: str, workspace: Path, source_folder: str | None, limit_bytes: int = LIMIT_BYTES) -> Source:
    """Return a built-in set, split as published.

    Its files are taken from `source_folder`, else from an earlier download in workspace/data, else from Debian's
    package, else they are downloaded to workspace/data and checked. A user's own copy may differ (a subset, say).

    Raises:
        DataError: nowhere to be had (all ways are named), or not the files of this set.
        InvalidUsage: a source folder for digits, which needs none.
    """
    if name == "digits":
        if source_folder is not None:
            raise InvalidUsage("--source: digits ships with scikit-learn; expected no folder; leave --source out")
        source = from_folder(write_digits(Workspace(workspace).builtin_sets), name, name)
    else:
        place = _find_place(name, workspace, source_folder)
        layout = cifar.LAYOUTS.get(name)
        if layout is None:
            source = idx.from_idx_folder(place, workspace, limit_bytes, CLASSES[name])
        else:
            source = cifar.from_cifar(layout, place, workspace, limit_bytes, CLASSES[name])
    return replace(source, name=name, origin=f"built-in set {name}", is_official=True)


def _find_place(name: str, workspace: Path, source_folder: str | None) -> Path:
    """Return where the files of a set lie, after a download if need be."""
    if source_folder is not None:
        place = _find_files(name, Path(source_folder))
        if place is None:
            raise DataError(f"--source {source_folder}: {missing(name, Path(source_folder))}")
        return place
    place = _find_local(name, workspace)
    if place is None:
        _download_files(name, Workspace(workspace).builtin_sets / name)
        place = _find_local(name, workspace)
    return place or Workspace(workspace).builtin_sets / name


def _find_local(name: str, workspace: Path) -> Path | None:
    """Return where the files of a set lie on this machine: an earlier download, or Debian's package."""
    place = _find_files(name, Workspace(workspace).builtin_sets / name)
    return _find_files(name, FASHION_DEBIAN) if place is None and name == "fashion-mnist" else place


def _find_files(name: str, folder: Path) -> Path | None:
    """Return where in `folder` the files of a set lie: the folder itself, or one or an archive in it."""
    if name in cifar.LAYOUTS:
        return cifar.find_files(cifar.LAYOUTS[name], folder)
    return folder if idx.is_idx_folder(folder) else None


def missing(name: str, folder: Path) -> str:
    """Say what was not found in a folder, and what is expected there."""
    if name in cifar.LAYOUTS:
        layout = cifar.LAYOUTS[name]
        return f"found no {layout.archive}; expected {layout.expected}"
    return f"found no {idx.missing_idx(folder)}[.gz]; expected {idx.IDX_EXPECTED}"


def _download_files(name: str, folder: Path) -> None:
    """Download the files of a set into `folder`; those that are there already were checked when they came.

    Raises:
        DataError: one cannot be had, or is not as published; the message names the other ways.
    """
    one = SETS[name]
    expected = cifar.LAYOUTS[name].expected if name in cifar.LAYOUTS else idx.IDX_EXPECTED
    for file_name, digest in DIGESTS[name].items():
        if (folder / file_name).is_file():
            continue
        try:
            download.fetch(f"{one.url}/{file_name}", folder / file_name, digest)
        except DataError as error:
            debian = "; or Debian's package, `apt-get install dataset-fashion-mnist`" if name == "fashion-mnist" else ""
            raise DataError(
                f"{name}: {error}. Expected one of these ways: a connection to that address; `--source FOLDER` with "
                f"{expected}; the same in {folder}{debian}"
            ) from error


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 digits (8 x 8, 17 grey levels) as PNG files below folder/digits and return that.

    Every third image is test, the others train. The folder appears whole or not at all; if another process
    was faster, its folder stays.
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
        move_folder(Path(temporary, "digits"), target)
    return target
