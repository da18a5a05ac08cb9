"""Splits are leak-free and remembered, and children read exactly the images, labels and weights of their split."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
from pipeline.data.readers.registry import open_source
from pipeline.data.source import NOT_GIVEN
from pipeline.data.splits.dataset import StoredDataset, has_folds_of, split_dataset, write_dataset
from pipeline.errors import DataError

pytestmark = pytest.mark.heavy
LIMIT = 1 << 30


def picture(seed, side=32):
    """Return a smooth random picture, unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)


def write_set(root, count=20):
    for number in range(count):
        for label, base in (("cat", 0), ("dog", 1000)):
            write(root / label / f"{number:03d}.png", base + number)


def prepared(root, workspace, limit=LIMIT, **options):
    source = open_source(str(root), workspace)
    cache = open_cache(source, choose_spec(source, SpecOptions()), workspace, limit)
    return split_dataset(source, cache, workspace, **options)


def split_of(dataset):
    return {path: int(split) for path, split in zip(dataset.source.paths, dataset.splits, strict=True)}


def test_near_duplicates_never_straddle_a_split(tmp_path):
    write_set(tmp_path / "set")
    for number in range(20):
        picture(number).resize((40, 40)).save(tmp_path / "set" / "cat" / f"{number:03d}-copy.jpg", quality=70)
    splits = split_of(prepared(tmp_path / "set", tmp_path))
    assert all(splits[f"cat/{number:03d}.png"] == splits[f"cat/{number:03d}-copy.jpg"] for number in range(20))
    assert {splits[f"cat/{number:03d}.png"] for number in range(20)} == {0, 1, 2}


def test_adding_files_moves_no_other_file(tmp_path):
    write_set(tmp_path / "set")
    before = split_of(prepared(tmp_path / "set", tmp_path))
    for number in range(30):
        write(tmp_path / "set" / "cat" / f"a-{number}.png", 5000 + number)
    picture(3).resize((40, 40)).save(tmp_path / "set" / "cat" / "copy-of-3.jpg", quality=70)
    after = split_of(prepared(tmp_path / "set", tmp_path))
    assert {path: after[path] for path in before} == before
    assert after["cat/copy-of-3.jpg"] == before["cat/003.png"]
    assert {after[f"cat/a-{number}.png"] for number in range(30)} == {0, 1, 2}


def test_a_group_column_never_straddles_a_split(tmp_path):
    write_set(tmp_path / "set", count=24)
    rows = ["path,label,group"]
    rows += [f"set/{name}/{number:03d}.png,{name},p{number // 3}" for name in ("cat", "dog") for number in range(24)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    dataset = prepared(tmp_path / "table.csv", tmp_path)
    splits = split_of(dataset)
    for patient in range(8):
        members = [
            f"set/{name}/{number:03d}.png" for name in ("cat", "dog") for number in range(3 * patient, 3 * patient + 3)
        ]
        assert len({splits[path] for path in members}) == 1
    assert set(splits.values()) == {0, 1, 2}


def leaking(root):
    for number in range(10):
        for label, base in (("cat", 0), ("dog", 1000)):
            write(root / "train" / label / f"{number}.png", base + number)
            write(root / "test" / label / f"{number}.png", base + (number if number < 2 else 500 + number))


def test_a_given_split_that_leaks_is_refused_with_a_name(tmp_path):
    leaking(tmp_path / "set")
    with pytest.raises(DataError, match=r"leaks: 4 picture\(s\).*cat/0.png.*--allow-leak"):
        prepared(tmp_path / "set", tmp_path)


def test_leaking_test_images_are_marked_when_allowed(tmp_path):
    leaking(tmp_path / "set")
    dataset = prepared(tmp_path / "set", tmp_path, allow_leak=True)
    leaked = {dataset.source.paths[row] for row in np.flatnonzero(dataset.leaked)}
    assert leaked == {"test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png"}


def test_children_read_the_images_labels_and_weights_of_their_split(tmp_path):
    write_set(tmp_path / "set", count=10)
    rows = ["path,label,weight"]
    rows += [f"set/{name}/{number:03d}.png,{name},{number}" for name in ("cat", "dog") for number in range(10)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    dataset = prepared(tmp_path / "table.csv", tmp_path)
    write_dataset(tmp_path / "data", dataset)
    subset = StoredDataset(tmp_path / "data", dataset.cache.folder, dataset.spec).split("train", "val")
    assert len(subset.images) == len(subset.labels) == 16
    for place in (0, 7, 15):
        path = dataset.source.paths[subset.images.rows[place]]
        pixels = np.asarray(Image.open(tmp_path / path))
        assert np.array_equal(subset.images[place : place + 1][0], pixels)
        assert subset.labels[place] == ("dog" in path)
        assert subset.weights[place] == int(path[-7:-4])


def test_children_read_the_columns_that_name_kinds_of_images(tmp_path):
    write_set(tmp_path / "set", count=30)
    rows = ["path,label,site,camera,frame"]
    for name in ("cat", "dog"):
        rows += [f"set/{name}/{n:03d}.png,{name},{'abc'[n % 3] if n else ''},x,{name}{n}" for n in range(30)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    dataset = prepared(tmp_path / "table.csv", tmp_path)
    write_dataset(tmp_path / "data", dataset)
    slices = StoredDataset(tmp_path / "data", dataset.cache.folder, dataset.spec).slices()
    assert list(slices) == ["site"]  # all images have one camera, and each a frame of its own
    values, codes = slices["site"]
    assert values == ["a", "b", "c"]
    for path, code in zip(dataset.source.paths, codes, strict=True):
        number = int(path[-7:-4])
        assert code == (number % 3 if number else -1)


def test_folds_cover_what_does_not_test(tmp_path):
    write_set(tmp_path / "set")
    dataset = prepared(tmp_path / "set", tmp_path, num_folds=4)
    write_dataset(tmp_path / "data", dataset)
    stored = StoredDataset(tmp_path / "data", dataset.cache.folder, dataset.spec)
    held_out = [stored.fold(number)[1].images.rows for number in range(4)]
    assert sorted(np.concatenate(held_out)) == sorted(np.flatnonzero(dataset.splits != 2))
    training, validation = stored.fold(1)
    assert not set(training.images.rows) & set(validation.images.rows)
    assert dataset.num_folds == 4


def test_images_stream_when_they_do_not_fit(tmp_path):
    write_set(tmp_path / "set", count=6)
    kept, streamed = prepared(tmp_path / "set", tmp_path), None
    (tmp_path / "other").mkdir()
    streamed = prepared(tmp_path / "set", tmp_path / "other", limit=100)
    assert (kept.cache.is_streamed, streamed.cache.is_streamed) == (False, True)
    assert not (streamed.cache.folder / "images.npy").exists()
    assert np.array_equal(streamed.cache.images()[np.array([3, 1])], kept.cache.images()[np.array([3, 1])])
    assert streamed.fingerprint() == kept.fingerprint()


def test_a_streamed_file_that_changed_is_named(tmp_path):
    write_set(tmp_path / "set", count=6)
    images = prepared(tmp_path / "set", tmp_path, limit=100).cache.images()
    (tmp_path / "set" / "cat" / "003.png").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"cat/003.png: unsupported.*restore it"):
        images[np.arange(12)]


def test_the_fingerprint_knows_content_labels_and_splits_and_no_names(tmp_path):
    write_set(tmp_path / "set", count=6)
    dataset = prepared(tmp_path / "set", tmp_path)
    fingerprint = dataset.fingerprint()
    (tmp_path / "set" / "cat" / "003.png").rename(tmp_path / "set" / "cat" / "zzz.png")
    assert prepared(tmp_path / "set", tmp_path).fingerprint() == fingerprint
    moved = dataclasses.replace(dataset, splits=np.where(dataset.splits == 2, 0, dataset.splits))
    assert moved.fingerprint() != fingerprint
    write(tmp_path / "set" / "cat" / "zzz.png", 99)
    assert prepared(tmp_path / "set", tmp_path).fingerprint() != fingerprint


def test_the_fingerprint_knows_the_folds_and_not_the_order_of_the_rows(tmp_path):
    """Groups decide which images validate together: with other ones the scores of the folds do not compare."""
    write_set(tmp_path / "set", count=18)
    rows = [f"{path},{path.parent.name}" for path in sorted((tmp_path / "set").glob("*/*.png"))]

    def fingerprint_of(name, rows, **options):
        (tmp_path / name).write_text("path,label,group\n" + "".join(f"{row}\n" for row in rows))
        return prepared(tmp_path / name, tmp_path, **options).fingerprint()

    pairs = [f"{row},{number // 2}" for number, row in enumerate(rows)]
    threes = [f"{row},{number // 3}" for number, row in enumerate(rows)]
    folded = fingerprint_of("set.csv", pairs, num_folds=2)
    assert fingerprint_of("set.csv", pairs[::-1], num_folds=2) == folded
    assert fingerprint_of("set.csv", threes, num_folds=2) != folded
    assert fingerprint_of("set.csv", pairs) != folded


def test_images_keep_their_folds_whatever_their_order_and_lose_them_with_other_groups(tmp_path):
    write_set(tmp_path / "set", count=18)
    rows = [f"{path},{path.parent.name}" for path in sorted((tmp_path / "set").glob("*/*.png"))]

    def grouped(size):
        return [f"{row},{number // size}" for number, row in enumerate(rows)]

    def dataset_of(lines):
        (tmp_path / "set.csv").write_text("path,label,group\n" + "".join(f"{line}\n" for line in lines))
        return prepared(tmp_path / "set.csv", tmp_path, num_folds=2)

    write_dataset(tmp_path / "data", dataset_of(grouped(2)))
    assert has_folds_of(dataset_of(grouped(2)[::-1]), tmp_path / "data")
    assert not has_folds_of(dataset_of(grouped(3)), tmp_path / "data")


def test_the_manifest_of_the_split_is_a_table_that_is_read_again(tmp_path):
    write_set(tmp_path / "set", count=6)
    (tmp_path / "set" / "cat" / "bad.png").write_bytes(b"no picture")
    dataset = prepared(tmp_path / "set", tmp_path)
    write_dataset(tmp_path / "data", dataset)
    again = prepared(tmp_path / "data" / "split.parquet", tmp_path)
    assert len(again.source) == 12  # without the bad one
    assert again.counts == dataset.counts
    assert again.source.classes == dataset.source.classes


def test_pixel_statistics_are_those_of_the_training_images(tmp_path):
    write_set(tmp_path / "set")
    dataset = prepared(tmp_path / "set", tmp_path)
    training = np.asarray(dataset.cache.images()[np.flatnonzero(dataset.splits == 0)], np.float64)
    mean, std = dataset.pixel_statistics()
    assert mean == pytest.approx(training.mean(axis=(0, 1, 2)), rel=1e-4)
    assert std == pytest.approx(training.std(axis=(0, 1, 2)), rel=1e-4)


def test_deep_grey_and_bands_keep_depth_and_count(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        for label in ("a", "b"):
            deep = tmp_path / "deep" / label / f"{number}.png"
            bands = tmp_path / "bands" / label / f"{number}.npy"
            deep.parent.mkdir(parents=True, exist_ok=True)
            bands.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 65536, (9, 9), dtype=np.uint16)).save(deep)
            np.save(bands, rng.normal(300, 5, (9, 7, 5)).astype(np.float32))
    deep, bands = prepared(tmp_path / "deep", tmp_path), prepared(tmp_path / "bands", tmp_path)
    assert (deep.spec.dtype, deep.spec.shape) == ("uint16", (9, 9, 1))
    assert deep.cache.images()[:].max() > 60_000
    assert (bands.spec.dtype, bands.spec.shape) == ("float32", (9, 7, 5))
    mean, std = bands.pixel_statistics()
    assert mean == pytest.approx([300] * 5, abs=2)
    assert std == pytest.approx([5] * 5, abs=1)


def test_the_index_of_the_cache_holds_ids_labels_and_weights(tmp_path):
    import pyarrow.parquet

    write_set(tmp_path / "set", count=6)
    dataset = prepared(tmp_path / "set", tmp_path)
    rows = pyarrow.parquet.read_table(dataset.cache.folder / "index.parquet").to_pylist()
    assert (rows[0]["id"], rows[0]["label"], rows[0]["weight"]) == (b"cat/000.png", "cat", 1.0)
    assert len(rows) == 12
    assert NOT_GIVEN not in dataset.splits
    assert json.loads((dataset.cache.folder / "spec.json").read_text())["dtype"] == "uint8"
