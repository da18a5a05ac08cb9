"""Which images train, which choose and which judge: the given split, completed, or a stratified one."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from pipeline.data.sources import Example
from pipeline.errors import DataError

TEST_FRACTION = 0.2
VAL_FRACTION = 0.15  # of what is not test
MAX_VAL_IMAGES = (
    10_000  # the standard error of an accuracy of 0.9 on 10,000 images is 0.003; more costs time each epoch
)
RULES_VERSION = 1


def assign_splits(examples: Sequence[Example], origin: str) -> list[str]:
    """Return "train", "val" or "test" for each example.

    What is given stays. A missing test split takes TEST_FRACTION of each class, a missing validation split
    VAL_FRACTION of each class of the rest. The order within a class is that of a hash of the path, so the split depends
    on neither the seed nor the order of the files.

    Raises:
        DataError: a class is too small to be in every split.
    """
    splits = [example.split or "train" for example in examples]
    if "test" not in splits:
        carve(examples, splits, "test", TEST_FRACTION, origin)
    if "val" not in splits:
        num_train = splits.count("train")
        carve(examples, splits, "val", min(VAL_FRACTION, MAX_VAL_IMAGES / num_train), origin)
    return splits


def carve(examples: Sequence[Example], splits: list[str], name: str, fraction: float, origin: str) -> None:
    """Move `fraction` of the training images of each class, at least one, to the split `name`."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        if splits[index] == "train":
            by_class[example.label].append(index)
    for label, members in by_class.items():
        num_moved = max(1, round(fraction * len(members)))
        if num_moved >= len(members):
            raise DataError(
                f"{origin}: class {label} has {len(members)} training image(s), too few to give one to {name}; "
                "expected at least 3 in each class; add images or remove the class"
            )
        members.sort(key=lambda index: split_key(examples[index], name))
        for index in members[:num_moved]:
            splits[index] = name


def split_key(example: Example, name: str) -> bytes:
    """Return the place of an example in the queue for a split: a hash of what it is called."""
    identity = f"{RULES_VERSION} {name} {example.label} {example.path} {example.index}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()
