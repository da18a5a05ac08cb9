"""The built-in sets: where each is found, in which order, and what is said when it is nowhere."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.readers import builtin
from pipeline.data.readers.builtin import catalogue, open_builtin
from pipeline.errors import DataError, InvalidUsage
from tests.data.loopback import dead_address, serve
from tests.data.readers import test_cifar


@pytest.fixture(autouse=True)
def _without_network_and_packages(monkeypatch, tmp_path):
    """Every set would come from a dead address, and Debian's package is not there."""
    address = dead_address()
    for name, one in builtin.SETS.items():
        monkeypatch.setitem(builtin.SETS, name, replace(one, url=address))
    monkeypatch.setattr(builtin, "FASHION_DEBIAN", tmp_path / "debian")


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return gzip.compress(header + array.tobytes())


def idx_contents(num_train=100, num_test=20):
    """Files as of MNIST, by name: ten classes in turn."""
    rng = np.random.default_rng(num_train)
    contents = {}
    for kind, count in (("train", num_train), ("t10k", num_test)):
        contents[f"{kind}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        contents[f"{kind}-labels-idx1-ubyte.gz"] = idx(np.arange(count, dtype=np.uint8) % 10)
    return contents


def write_files(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.heavy  # imports scikit-learn
def test_digits_are_written_as_pictures_and_split(tmp_path):
    source = open_builtin("digits", tmp_path, None)
    assert (source.name, source.origin, source.is_official) == ("digits", "built-in set digits", True)
    assert (len(source), source.classes) == (1797, tuple("0123456789"))
    assert np.bincount(source.splits).tolist() == [1198, 0, 599]
    assert Path(source.storage.location(0).path).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "data" / "digits" / "train" / "0" / "0000.png").is_file()


@pytest.mark.heavy  # imports scikit-learn
def test_digits_that_another_process_writes_at_once_are_taken(tmp_path, monkeypatch):
    from PIL import Image

    save, others = Image.Image.save, []

    def save_later(image, path):
        monkeypatch.setattr(Image.Image, "save", save)
        others.append(builtin.write_digits(tmp_path).stat())  # as another process does meanwhile
        image.save(path)

    monkeypatch.setattr(Image.Image, "save", save_later)
    folder = builtin.write_digits(tmp_path)
    assert [other.st_ino for other in others] == [folder.stat().st_ino]
    assert len(list(folder.rglob("*.png"))) == 1797
    assert list(tmp_path.iterdir()) == [folder]


def test_digits_take_no_folder(tmp_path):
    with pytest.raises(InvalidUsage, match="digits ships with scikit-learn; expected no folder"):
        open_builtin("digits", tmp_path, str(tmp_path))


def test_fashion_mnist_from_a_folder_of_idx_files(tmp_path):
    source = open_builtin("fashion-mnist", tmp_path, str(write_files(tmp_path / "idx", idx_contents())))
    assert np.load(source.storage.array_path).shape == (120, 28, 28)
    assert [source.label_text(index) for index in (0, 9)] == ["t-shirt", "ankle-boot"]
    assert source.classes[0] == "ankle-boot"
    assert source.splits.tolist() == [0] * 100 + [2] * 20
    assert (source.name, source.origin) == ("fashion-mnist", "built-in set fashion-mnist")
    assert source.is_official


@pytest.mark.parametrize(("name", "label"), [("mnist", "1"), ("kmnist", "ki")])
def test_the_other_sets_of_idx_files_have_their_own_classes(tmp_path, name, label):
    source = open_builtin(name, tmp_path, str(write_files(tmp_path / "idx", idx_contents())))
    assert source.label_text(1) == label


@pytest.mark.parametrize(("name", "label"), [("cifar10", "automobile"), ("cifar100", "aquarium_fish")])
def test_cifar_from_a_folder(tmp_path, name, label):
    test_cifar.write_archive(tmp_path / "given", name, test_cifar.files_of(name))
    source = open_builtin(name, tmp_path, str(tmp_path / "given"))
    assert source.label_text(1) == label
    assert (source.name, source.origin, source.is_official) == (name, f"built-in set {name}", True)


def test_the_hundred_fine_classes_are_sorted_and_distinct():
    names = builtin.CLASSES["cifar100"]
    assert len(set(names)) == 100
    assert list(names) == sorted(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnist",
            "found no train-images-idx3-ubyte[.gz]; expected the four idx files train-images-idx3-ubyte, train-l",
        ),
        ("cifar10", "found no cifar-10-binary.tar.gz; expected cifar-10-binary.tar.gz (the binary version), or data_b"),
    ],
)
def test_a_source_without_the_files_is_refused(tmp_path, name, message):
    with pytest.raises(DataError) as caught:
        open_builtin(name, tmp_path, str(tmp_path))
    assert f"--source {tmp_path}: {message}" in str(caught.value)


def test_offline_all_ways_are_named(tmp_path):
    with pytest.raises(DataError) as caught:
        open_builtin("fashion-mnist", tmp_path, None)
    for way in (
        f"fashion-mnist: {builtin.SETS['fashion-mnist'].url}/train-images-idx3-ubyte.gz: cannot be downloaded",
        "--source FOLDER",
        str(tmp_path / "data" / "fashion-mnist"),
        "apt-get install dataset-fashion-mnist",
    ):
        assert way in str(caught.value)
    assert list((tmp_path / "data" / "fashion-mnist").iterdir()) == []


def test_offline_cifar_asks_for_the_binary_version_and_no_package(tmp_path):
    with pytest.raises(DataError, match=r"`--source FOLDER` with cifar-100-binary\.tar\.gz \(the binary") as caught:
        open_builtin("cifar100", tmp_path, None)
    assert "apt-get" not in str(caught.value)


@pytest.fixture
def _published(monkeypatch):
    """KMNIST on loopback: small files, their digests, and a server that ends with the test."""
    contents = idx_contents()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setitem(builtin.DIGESTS, "kmnist", digests)
    with serve({f"/{name}": content for name, content in contents.items()}) as address:
        monkeypatch.setitem(builtin.SETS, "kmnist", replace(builtin.SETS["kmnist"], url=address))
        yield


@pytest.mark.usefixtures("_published")
def test_a_set_is_downloaded_once(tmp_path, monkeypatch, capsys):
    first = open_builtin("kmnist", tmp_path, None)
    assert capsys.readouterr().err.count("downloading") == 4
    assert len(first) == 120
    monkeypatch.setitem(builtin.SETS, "kmnist", replace(builtin.SETS["kmnist"], url=dead_address()))
    assert open_builtin("kmnist", tmp_path, None).paths == first.paths
    assert capsys.readouterr().err == ""
    assert {one.name: one.where for one in catalogue(tmp_path)}["kmnist"] == "downloaded: data/kmnist"


@pytest.mark.usefixtures("_published")
def test_a_download_that_is_not_as_published_is_refused_and_the_good_files_stay(tmp_path, monkeypatch, capsys):
    published = builtin.DIGESTS["kmnist"]["t10k-images-idx3-ubyte.gz"]
    digests = builtin.DIGESTS["kmnist"] | {"t10k-images-idx3-ubyte.gz": "0" * 64}
    monkeypatch.setitem(builtin.DIGESTS, "kmnist", digests)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: sha256 of the data is"):
        open_builtin("kmnist", tmp_path, None)
    kept = sorted(path.name for path in (tmp_path / "data" / "kmnist").iterdir())
    assert kept == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    capsys.readouterr()
    monkeypatch.setitem(builtin.DIGESTS, "kmnist", digests | {"t10k-images-idx3-ubyte.gz": published})
    assert len(open_builtin("kmnist", tmp_path, None)) == 120
    assert capsys.readouterr().err.count("downloading") == 2


def test_a_given_folder_comes_before_a_download_and_that_before_the_package(tmp_path):
    def opened(source_folder=None):
        return len(open_builtin("fashion-mnist", tmp_path, source_folder))

    def where():
        return {one.name: one.where for one in catalogue(tmp_path)}["fashion-mnist"]

    assert where() == f"download from {builtin.SETS['fashion-mnist'].url}"
    write_files(builtin.FASHION_DEBIAN, idx_contents(30))
    assert (opened(), where()) == (50, f"local: {builtin.FASHION_DEBIAN}")
    write_files(tmp_path / "data" / "fashion-mnist", idx_contents(40))
    assert (opened(), where()) == (60, "downloaded: data/fashion-mnist")
    assert opened(str(write_files(tmp_path / "given", idx_contents(50)))) == 70


def test_the_catalogue_describes_every_set(tmp_path):
    found = {one.name: one for one in catalogue(tmp_path)}
    assert tuple(found) == builtin.NAMES == ("digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100")
    assert found["digits"].where == "ships with scikit-learn"
    assert found["cifar100"].where.startswith("download from http://")
    assert (found["cifar100"].num_images, found["cifar100"].num_classes) == (60_000, 100)
    assert (found["kmnist"].licence, found["kmnist"].megabytes, found["kmnist"].image) == (
        "CC BY-SA 4.0",
        21.2,
        "28 x 28 grey",
    )
    for name in builtin.NAMES[1:]:
        assert all(len(digest) == 64 for digest in builtin.DIGESTS[name].values())
        assert len(builtin.CLASSES[name]) == found[name].num_classes


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.heavy
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_debians_package_holds_the_published_set(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "FASHION_DEBIAN", DEBIAN)
    source = open_builtin("fashion-mnist", tmp_path, None)
    assert np.bincount(source.splits).tolist() == [60_000, 0, 10_000]
    assert set(source.class_counts().values()) == {7000}
    assert source.label_text(0) == "ankle-boot"
