"""How many planted near-duplicates are found, how many pairs are found that were not planted, and how long it takes.

    python benchmarks/duplicates.py --cifar CIFAR_FOLDER --signs SIGN_FOLDER --fashion IDX_FOLDER --out duplicates.json

CIFAR_FOLDER holds train/ and test/ with class folders of JPEG files, IDX_FOLDER the four .gz files of Fashion-MNIST.
Sets whose folder is not given are left out; scikit-learn's digits are always there. With --sheets FOLDER, 60 random
pairs that were found and not planted are drawn for each set, to be judged by eye.
"""

import argparse
import gzip
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from pipeline.data.similarity.clusters import Clusters, clusters_of
from pipeline.data.similarity.duplicates import find_duplicates
from pipeline.data.similarity.thumbnails import thumbnails

NUM_BASES = 2000
NUM_SHOWN = 60
STACK = 32  # images that are described at once, as while they are decoded
SIDE = 100  # of the sign photographs, which three are not


def again_as_jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Return what writes an image as JPEG and reads it again."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert(image.mode)

    return change


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Return what makes an image smaller or larger."""
    return lambda image: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS
    )


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return what cuts a share off each side and keeps the size."""

    def change(image: Image.Image) -> Image.Image:
        x, y = share * image.width, share * image.height
        return image.resize(image.size, Image.Resampling.BICUBIC, box=(x, y, image.width - x, image.height - y))

    return change


def marked(image: Image.Image) -> Image.Image:
    """Lay a half transparent white bar, 25 % of the width and 8 % of the height, over the lower right corner."""
    width, height = image.size
    corner = (round(0.7 * width), round(0.87 * height), round(0.95 * width), round(0.95 * height))
    bar = image.copy()
    ImageDraw.Draw(bar).rectangle(corner, fill="white")
    return Image.blend(image, bar, 0.5)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": again_as_jpeg(90),
    "JPEG 70": again_as_jpeg(70),
    "JPEG 50": again_as_jpeg(50),
    "half size": resized(0.5),
    "double size": resized(2),
    "brightness +10 %": lambda image: image.point(lambda value: min(255, round(value * 1.1))),
    "brightness -10 %": lambda image: image.point(lambda value: round(value * 0.9)),
    "contrast +15 %": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "contrast -15 %": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "crop 2 % a side": cropped(0.02),
    "crop 3 % a side": cropped(0.03),
    "logo": marked,
}


def read_folder(folder: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return all JPEG files below a folder, uint8 (num_images, height, width, 3)."""

    def read(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(size or image.size))

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(read, paths)))


def read_idx(path: Path) -> np.ndarray:
    """Return the images of an idx file, uint8 (num_images, 28, 28, 1)."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)


def read_sets(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the images of each set."""
    from sklearn.datasets import load_digits

    if options.cifar:
        yield "CIFAR-10 train", read_folder(options.cifar / "train")
    if options.signs:
        yield "signed digits", read_folder(options.signs, (SIDE, SIDE))
    if options.fashion:
        parts = [read_idx(options.fashion / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
        yield "Fashion-MNIST", np.concatenate(parts)
    yield "digits", np.rint(load_digits().images * 255 / 16).astype(np.uint8)[..., None]


def describe(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return thumbnails and digests, as decoding does."""
    thumbs = np.concatenate([thumbnails(images[start : start + STACK]) for start in range(0, len(images), STACK)])
    digests = [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]
    return thumbs, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def picture(pixels: np.ndarray) -> Image.Image:
    """Return pixels (height, width, channels) as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def find(thumbs: np.ndarray, digests: np.ndarray) -> Clusters:
    """Return the clusters of images that are all usable."""
    return find_duplicates(thumbs, digests, np.ones(len(thumbs), bool))


def recall(images: np.ndarray, thumbs: np.ndarray, digests: np.ndarray) -> dict[str, float]:
    """Return the share of changed images that are found to be near-duplicates of what they were made from."""
    bases = np.random.default_rng(0).choice(len(images), min(NUM_BASES, len(images)), replace=False)
    shares = {}
    for name, change in CHANGES.items():
        changed = [np.asarray(change(picture(images[base]))) for base in bases]
        planted = describe(np.stack(changed).reshape(len(bases), *changed[0].shape[:2], images.shape[-1]))
        near = find(np.concatenate([thumbs, planted[0]]), np.concatenate([digests, planted[1]])).near
        own = near[len(images) :]
        shares[name] = float(np.mean((own >= 0) & (own == near[bases])))
    return shares


def burden(images: np.ndarray, thumbs: np.ndarray, digests: np.ndarray, sheet: Path | None) -> dict[str, float]:
    """Return what is found in a set as it is, and in how many seconds; draw some pairs."""
    started = time.perf_counter()
    near = find(thumbs, digests).near
    seconds = time.perf_counter() - started
    clusters = clusters_of(near)
    if sheet and clusters:
        draw_pairs(images, clusters, sheet)
    return {
        "images": len(images),
        "clusters": len(clusters),
        "largest": max(map(len, clusters), default=0),
        "share": float(np.mean(near >= 0)),
        "seconds": round(seconds, 2),
    }


def draw_pairs(images: np.ndarray, clusters: list[list[int]], path: Path, side: int = 64) -> None:
    """Draw the first two images of random clusters side by side."""
    rng = np.random.default_rng(0)
    chosen = [clusters[number] for number in rng.permutation(len(clusters))[:NUM_SHOWN]]
    sheet = Image.new("RGB", (6 * (2 * side + 12), -(-len(chosen) // 6) * (side + 8)), "navy")
    for number, members in enumerate(chosen):
        for place, row in enumerate(rng.permutation(members)[:2]):
            left, top = (number % 6) * (2 * side + 12) + place * (side + 2), number // 6 * (side + 8)
            sheet.paste(picture(images[row]).convert("RGB").resize((side, side)), (left, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def test_against_train(train: tuple[np.ndarray, np.ndarray], folder: Path) -> dict[str, float]:
    """Return how many images of CIFAR-10's test set are found to have a near-duplicate in its training set."""
    test = describe(read_folder(folder))
    near = find(np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])).near
    num_train = len(train[0])
    trained = np.unique(near[:num_train][near[:num_train] >= 0])
    return {"test_images": len(test[0]), "with_near_duplicate_in_train": int(np.isin(near[num_train:], trained).sum())}


def main() -> None:
    """Measure all sets, print two tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar", "signs", "fashion", "sheets", "out"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    for name, images in read_sets(options):
        described = describe(images)
        sheet = options.sheets / f"{name.replace(' ', '-')}.png" if options.sheets else None
        results[name] = {"found": burden(images, *described, sheet), "recall": recall(images, *described)}
        if name == "CIFAR-10 train":
            results[name]["test"] = test_against_train(described, options.cifar / "test")
        print(f"{name}: {json.dumps(results[name]['found'])} {json.dumps(results[name].get('test', {}))}", flush=True)
    print(f"\n{'recall of':20}" + "".join(f"{name:>16}" for name in results))
    for change in CHANGES:
        print(f"{change:20}" + "".join(f"{result['recall'][change]:16.4f}" for result in results.values()))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
