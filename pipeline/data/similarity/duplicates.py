"""Which images show the same picture: exact copies by digest, near-duplicates by thumbnail. No file is read here.

Near-duplicates are one picture after another encoding, size, brightness or contrast, or a slight crop. Candidates come
from a perceptual hash in bands; each pair is then judged on its thumbnails, against how alike other pictures of the set
are: photographs differ in everything, while all trousers of a catalogue share an outline.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.data.similarity.clusters import Clusters, components, numbered
from pipeline.data.similarity.thumbnails import THUMB_SIDE

# Chosen by benchmarks/duplicates.py on the training images of CIFAR-10 and photographs of signed digits.
_HASH_BITS = 128
_BAND_BITS = 16
_WINDOW = 64  # images that share a band are compared with so many neighbours, which bounds the work
_MIN_COMMON = 45  # bits of 64: 32 are common by chance, and 46 or more in 99.5 % of copies by JPEG 50
_MAX_DIFFERENT = 4  # of the common bits; 2 differ at most in 99.5 % of copies by JPEG 70, even without sharp edges
_MIN_DETAIL = 200.0  # of `features`, 3 grey levels; below it saving as JPEG 70 hides 98 % of the copies
_MIN_RATIO = 0.06  # finds 99 % after JPEG 50 where all pictures share an outline (Fashion-MNIST)
_MAX_RATIO = 0.15  # 60 of 60 pairs in CIFAR-10 are true by eye; 0.2 finds 10 % more there, 40 % in Fashion-MNIST
_LOOSE = 3  # so much closer `_aligned_distance` may bring two pictures
_MAX_SHIFT = 0.5  # cells: a crop of 3 % a side moves the border of 16 cells by so much
_NUM_REFERENCES = 2048
_NUM_SAMPLES = 32  # more than half of them must hold a copy of a picture to mislead the judgement of it
_MIN_UNRELATED = 0.03  # copies by JPEG 50 or at half the size stay below it
MAX_PAIRS = 1_000_000  # candidates that wait together, 8 MB
BLOCK = 4096  # images or pairs at a time
SPAN = 1 << 16  # places of a sorted band at a time
_ROUNDING = 1e-6
_RIDGE = 1e-4  # keeps shift and stretch apart where a picture has edges in one place only


@dataclass(frozen=True)
class _Hashes:
    """What is compared first of thumbnails, each in a column.

    `bits` is uint64 (2, num_rows), 128 bits, and `is_strong` alike: which half of them stands out in the picture.
    """

    bits: NDArray[np.uint64]
    is_strong: NDArray[np.uint64]

    def band(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the bits at some places as one number each, the first the highest, uint64 (num_rows,)."""
        number = np.zeros(self.bits.shape[1], np.uint64)
        for place in places:
            number <<= np.uint64(1)
            number |= (self.bits[place // 64] >> np.uint64(63 - place % 64)) & np.uint64(1)
        return number


def find_duplicates(thumbs: NDArray[np.uint8], digests: NDArray[np.uint8], is_usable: NDArray[np.bool_]) -> Clusters:
    """Return which images are copies of each other.

    `thumbs` is uint8 (num_images, 16, 16), and may be mapped from disk. `digests` is uint8 (num_images, 16), equal
    where all pixels are. Images that are not `is_usable`, bool (num_images,), are alone. Nearly uniform pictures have
    exact copies only.
    """
    total = len(thumbs)
    usable = np.flatnonzero(is_usable)
    exact = np.arange(total)
    exact[usable] = _first_copies(digests, usable)
    pairs = _near_pairs(thumbs, usable[exact[usable] == usable], digests)
    near = np.arange(total)
    linked, places = np.unique(pairs, return_inverse=True)
    near[linked] = linked[components(places[:, 0], places[:, 1], len(linked))]
    return Clusters(numbered(exact), numbered(near[exact]))


def _first_copies(digests: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smallest of `rows`, which ascend, with the same digest, for each."""
    words = [_digest_word(digests, rows, number) for number in (0, 1)]
    order = np.lexsort(words)
    is_new = np.zeros(len(order), bool)
    is_new[:1] = True
    for word in words:
        is_new[1:] |= np.diff(word[order]) != 0
    first = np.empty_like(rows)
    first[order] = rows[order[is_new]][np.cumsum(is_new) - 1]
    return first


def _digest_word(digests: NDArray[np.uint8], rows: NDArray[np.int64], number: int) -> NDArray[np.uint64]:
    """Return eight bytes of the digest of some rows as one number each."""
    return np.ascontiguousarray(digests[rows, 8 * number : 8 * number + 8]).view(np.uint64).ravel()


def _near_pairs(thumbs: NDArray[np.uint8], rows: NDArray[np.int64], digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return pairs of `rows`, int64 (num_pairs, 2), whose thumbnails show the same picture."""
    sample = _references(rows, digests)
    judge = _Judge(thumbs, sample)
    rows = np.concatenate([np.empty(0, np.int64), *(part[_has_detail(thumbs[part])] for part in blocks(rows))])
    found = [np.empty((0, 2), np.int64)]
    for codes in _gathered(_candidates(_hash_thumbs(thumbs, rows, sample)), len(rows)):
        found += [judge.same_pictures(rows[np.stack(np.divmod(part, len(rows)), axis=1)]) for part in blocks(codes)]
    return np.concatenate(found)


def _gathered(parts: Iterator[NDArray[np.int64]], total: int) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of all parts, MAX_PAIRS or so at a time, each once among those and as one number: the smaller row
    times `total` and the larger."""
    waiting = [np.empty(0, np.int64)]
    for part in parts:
        waiting.append(part.min(axis=1) * total + part.max(axis=1))
        if sum(map(len, waiting)) > MAX_PAIRS:
            yield np.unique(np.concatenate(waiting))
            waiting = []
    if waiting:
        yield np.unique(np.concatenate(waiting))


def _references(rows: NDArray[np.int64], digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return a sample of rows that depends on the pictures only: those with the smallest digests."""
    return rows[np.argsort(_digest_word(digests, rows, 1))[:_NUM_REFERENCES]]


def blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of an array, BLOCK at a time."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


@cache
def _waves() -> NDArray[np.float32]:
    """Return what `features` weighs the cells by, float32 (256, 255): cosine waves, the longest first.

    Each is scaled by its frequency, so that strengths compare differences between neighbouring cells, and is free of
    planes, so that brightness and a slope count for nothing.
    """
    cells = np.arange(THUMB_SIDE)
    cosines = np.cos(np.pi * cells[:, None] * (cells + 0.5) / THUMB_SIDE)
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    frequency = np.hypot(cells[:, None], cells).ravel()
    scaled = np.einsum("ay,bx->yxab", cosines, cosines).reshape(THUMB_SIDE**2, -1) * frequency
    slope = cells - cells.mean()
    plane = np.stack([np.ones((THUMB_SIDE, THUMB_SIDE)), *np.meshgrid(slope, slope)]).reshape(3, -1)
    plane /= np.linalg.norm(plane, axis=1, keepdims=True)
    scaled -= plane.T @ (plane @ scaled)
    return scaled[:, np.argsort(frequency, kind="stable")[1:]].astype(np.float32)


def features(thumbs: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the strength of each wave in each thumbnail, float32 (num_thumbs, 255), from (num_thumbs, 16, 16)."""
    return thumbs.reshape(len(thumbs), THUMB_SIDE**2).astype(np.float32) @ _waves()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (num_vectors, size) scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _ROUNDING)


def _has_detail(thumbs: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which thumbnails show enough to be compared."""
    return np.asarray(np.linalg.norm(features(thumbs), axis=1) >= _MIN_DETAIL)


@cache
def _band_bits() -> NDArray[np.int64]:
    """Return which bits make a band, (num_bands, _BAND_BITS): 16 neighbours each, and combs over the longest waves.

    The combs are for pictures without sharp edges, of which the short waves say nothing.
    """
    neighbours = [np.arange(start, start + _BAND_BITS) % _HASH_BITS for start in range(0, _HASH_BITS, _BAND_BITS // 2)]
    combs = [np.arange(start, step * _BAND_BITS, step) for step in (2, 3, 4) for start in range(step)]
    return np.stack(neighbours + combs)


def _hash_thumbs(thumbs: NDArray[np.uint8], rows: NDArray[np.int64], sample: NDArray[np.int64]) -> _Hashes:
    """Return the hashes of some thumbnails.

    As in pHash (Zauner 2010), a bit says whether a wave is stronger than its median, here over the rows of `sample`; in
    a small set the median could lie between two copies, and 0 serves.
    """
    is_large = len(sample) == _NUM_REFERENCES
    medians = np.median(_unit(features(thumbs[sample]))[:, :_HASH_BITS], axis=0) if is_large else 0
    words = _HASH_BITS // 64, len(rows)
    hashes = _Hashes(np.empty(words, np.uint64), np.empty(words, np.uint64))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        excess = _unit(features(thumbs[rows[part]]))[:, :_HASH_BITS] - medians
        bits, size = excess > 0, np.abs(excess)
        hashes.bits[:, part] = _packed(bits)
        hashes.is_strong[:, part] = _packed(size >= np.median(size, axis=1, keepdims=True))
    return hashes


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return bits (num_rows, num_bits) as words, the first bit the highest, uint64 (num_words, num_rows)."""
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).T


def _candidates(hashes: _Hashes) -> Iterator[NDArray[np.int64]]:
    """Yield pairs of rows, int64 (num_pairs, 2), that share a band and nearly all bits that are strong in both.

    Sorted by a band, and then by the longest waves, images stand beside those that share the band.
    """
    for places in _band_bits():
        keys = hashes.band(places) << np.uint64(64 - _BAND_BITS)
        keys |= hashes.bits[0] >> np.uint64(_BAND_BITS)
        order = np.argsort(keys)
        for start in range(0, len(order), SPAN):
            rows = order[start : start + SPAN + _WINDOW]
            yield rows[_close_pairs(hashes, rows, keys[rows] >> np.uint64(64 - _BAND_BITS))]


def _close_pairs(hashes: _Hashes, rows: NDArray[np.int64], band: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return pairs of places among sorted `rows` that agree; the first of a pair is one of the first SPAN places."""
    bits, is_strong = hashes.bits[:, rows], hashes.is_strong[:, rows]
    left, found = np.arange(min(len(rows), SPAN)), [np.empty((0, 2), np.int64)]
    for step in range(1, _WINDOW + 1):
        left = left[: np.searchsorted(left, len(rows) - step)]
        left = left[band[left] == band[left + step]]
        if not len(left):
            break
        common = is_strong[:, left] & is_strong[:, left + step]
        different = np.bitwise_count(common & (bits[:, left] ^ bits[:, left + step]))
        num_common = np.bitwise_count(common)
        is_near = (different[0] + different[1] <= _MAX_DIFFERENT) & (num_common[0] + num_common[1] >= _MIN_COMMON)
        found.append(np.stack([left[is_near], left[is_near] + step], axis=1))
    return np.concatenate(found)


class _Judge:
    """Tells which pairs of thumbnails show one picture, and keeps how alike unrelated pictures are to each.

    The distance of two pictures is 1 less the cosine of their features, which brightness and contrast leave as it is.
    """

    def __init__(self, thumbs: NDArray[np.uint8], sample: NDArray[np.int64]) -> None:
        self.thumbs = thumbs
        size = len(sample) // _NUM_SAMPLES
        self.samples = _unit(features(thumbs[sample[: size * _NUM_SAMPLES]])).T
        self.usual = np.full(len(thumbs), np.nan if size else 1, np.float32)

    def same_pictures(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those pairs of rows, int64 (num_pairs, 2), that are far closer than unrelated pictures usually are."""
        rows, places = np.unique(pairs, return_inverse=True)
        vectors = _unit(features(self.thumbs[rows]))
        distance = 1 - np.einsum("pf,pf->p", vectors[places[:, 0]], vectors[places[:, 1]])
        chosen = np.flatnonzero(distance <= _LOOSE * _MAX_RATIO)
        usual = self.usual_distance(pairs[chosen]).min(axis=1)
        limit = usual * np.maximum(_MIN_RATIO, usual * _MAX_RATIO)
        is_same = distance[chosen] <= limit
        is_open = (distance[chosen] <= _LOOSE * limit) & ~is_same
        left, right = (self.thumbs[pairs[chosen[is_open], side]] for side in (0, 1))
        is_same[is_open] = _aligned_distance(left, right) <= limit[is_open]
        return pairs[chosen[is_same]]

    def usual_distance(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how far the closest unrelated picture of a sample is from each of `rows`, the median over the samples.

        Those closer than _MIN_UNRELATED may be copies and do not count.
        """
        unknown = np.unique(rows[np.isnan(self.usual[rows])])
        for part in blocks(unknown):
            distances = 1 - _unit(features(self.thumbs[part])) @ self.samples
            distances[distances < _MIN_UNRELATED] = 1
            nearest = distances.reshape(len(part), _NUM_SAMPLES, -1).min(axis=2)
            self.usual[part] = np.minimum(np.median(nearest, axis=1), 1)
        return self.usual[rows]


def _aligned_distance(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the distance of thumbnails (num_pairs, 16, 16) after the shift and stretch that brings them closest.

    The shift of the border is at most _MAX_SHIFT cells. To first order, as in the tangent distance (Simard et al.
    1993).
    """
    first, second = (
        side / np.maximum(np.linalg.norm(features(side), axis=1), _ROUNDING)[:, None, None] for side in (left, right)
    )
    middle = (first + second) / 2
    down, across = np.gradient(middle, axis=1), np.gradient(middle, axis=2)
    ramp = np.linspace(-1, 1, THUMB_SIDE, dtype=np.float32)
    moves = np.stack([across, down, across * ramp, down * ramp[:, None]], axis=1)
    difference = features(first - second)
    tangents = features(moves.reshape(-1, THUMB_SIDE, THUMB_SIDE)).reshape(len(left), 4, difference.shape[1])
    products = tangents @ tangents.transpose(0, 2, 1) + _RIDGE * np.eye(4, dtype=np.float32)
    amounts = np.clip(np.linalg.solve(products, tangents @ difference[:, :, None]), -_MAX_SHIFT, _MAX_SHIFT)
    rest = difference - (amounts * tangents).sum(axis=1)
    return np.asarray((rest**2).sum(axis=1) / 2)
