"""Policies of augmentation: by name, as text, in a file."""

import pytest

from pipeline.errors import SpaceError
from pipeline.space import KNOWN_PARAMS
from pipeline.space.augmentation import AUGMENTATIONS, Augmentation, augmentation_of, read_augmentation


def test_policies_differ_in_what_they_do():
    assert KNOWN_PARAMS["augment"].choices == tuple(AUGMENTATIONS)
    assert AUGMENTATIONS["none"] == Augmentation()
    assert AUGMENTATIONS["light"] == Augmentation(shift=0.08)
    assert AUGMENTATIONS["standard"] == Augmentation(shift=0.08, flips=True)
    assert AUGMENTATIONS["strong"] == Augmentation(shift=0.08, flips=True, cutout=0.3)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("shift=0.1,flip,cutout=0.25", Augmentation(0.1, True, 0.25)),
        ("flip", Augmentation(flips=True)),
        ("cutout=0.5", Augmentation(cutout=0.5)),
    ],
)
def test_a_policy_is_the_same_after_it_was_written(text, policy):
    assert augmentation_of(text) == policy
    assert policy.as_text() == text


@pytest.mark.parametrize("text", ["", "fast", "shift=a", "shift=0.6", "cutout=-1", "flip=1", "shift=0.1,zoom=2"])
def test_a_text_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError):
        augmentation_of(text)


def test_a_file_says_some_of_shift_flip_and_cutout(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("# of our microscope\nshift: 0.2\nflip: true\n")
    assert read_augmentation(path) == Augmentation(0.2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is nothing; expected one or more of shift, flip, cutout; write such as `shift: 0.1`"),
        ("shfit: 0.1", "key 'shfit' is unknown here; expected shift, flip, cutout; "),
        ("shift: 2", "shift is the number 2; expected a part of the image's side, 0 to 0.5; write such a number"),
        ("cutout: true", "cutout is the boolean true; expected a part of the image's side, 0 to 0.9"),
        ("flip: 1", "flip is the number 1; expected true or false"),
        ("- 1", "is the list"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError) as caught:
        read_augmentation(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
