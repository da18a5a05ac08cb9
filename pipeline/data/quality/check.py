"""The verdict on a data set: whether a search would mislead, and what to do. What is there to judge is in `survey`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.data.cache.images import ImageCache
from pipeline.data.quality.survey import Group, Survey, survey
from pipeline.data.source import SPLITS, Source
from pipeline.text import counted, one_line

OK, WARN, REFUSE = "ok", "warn", "refuse"
MEANING = {
    OK: "nothing stands in the way of a search",
    WARN: "a search will work; look at these points first",
    REFUSE: "a search would mislead; correct these points first",
}

_MAX_BAD_FRACTION = 0.5
_MAX_CONFLICT_FRACTION = 0.01  # of the usable images: exact copies under two labels
_MAX_UNIFORM_FRACTION = 0.5
_MIN_CLASS_IMAGES = 10
_MAX_IMBALANCE = 20
_NUM_NAMED = 3  # names in a sentence


class _Point(NamedTuple):
    """One thing that speaks against a data set: how bad it is, and a sentence that ends with what to do."""

    verdict: str
    text: str


@dataclass(frozen=True)
class Check:
    """What was found, the verdict on it ("ok", "warn" or "refuse") and a sentence of advice for each point."""

    found: Survey
    verdict: str
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the whole check as a JSON-able document."""
        return {"verdict": self.verdict, "advice": list(self.advice), **self.found.to_json()}


def check_data(source: Source, cache: ImageCache) -> Check:
    """Return what a source and its decoded images show, and whether a search on them would mislead."""
    return _judge(survey(source, cache))


def _judge(found: Survey) -> Check:
    """Return the verdict on what was found; the advice begins with what weighs most."""
    points = [*_class_points(found), *_duplicate_points(found), *_file_points(found)]
    points.sort(key=lambda point: point.verdict != REFUSE)
    return Check(found, points[0].verdict if points else OK, tuple(point.text for point in points))


def _class_points(found: Survey) -> Iterator[_Point]:
    """Yield what is wrong with the classes."""
    filled = {name: count for name, count in found.classes.items() if count}
    if len(filled) < 2:
        text = (
            f"Usable images of {counted(len(filled), 'class')}; a search needs at least 2: add images of another class."
        )
        yield _Point(REFUSE, text)
    if untrained := [name for name in filled if not found.training[name]]:
        text = "with images for val or test but no usable training image: add some, or take the class out."
        yield _Point(REFUSE, f"{some(untrained, 'class')} {text}")
    yield from _split_points(found)
    if always := [name for name, count in filled.items() if found.is_multi_label and count == found.files["used"]]:
        text = "that every image has, so that there is nothing to tell: leave it out of the lists of labels."
        yield _Point(WARN, f"{some(always, 'class')} {text}")
    if empty := [name for name in found.classes if name not in filled]:
        yield _Point(WARN, f"{some(empty, 'class')} without a usable image: add images, or take the class out.")
    if small := [f"{name} ({count})" for name, count in filled.items() if count < _MIN_CLASS_IMAGES]:
        text = f"{some(small, 'class')} with fewer than {_MIN_CLASS_IMAGES} images: too few to learn; add more."
        yield _Point(WARN, text)
    if filled and max(filled.values()) > _MAX_IMBALANCE * min(filled.values()):
        most, least = max(filled, key=filled.__getitem__), min(filled, key=filled.__getitem__)
        text = (
            f"Classes are uneven: {filled[most]:,} images of {one_line(most)}, {filled[least]:,} of {one_line(least)}: "
            "a high accuracy may come from the large class alone; add images of the small ones."
        )
        yield _Point(WARN, text)
    spellings = Counter(map(str.casefold, found.classes))
    if alike := [name for name in found.classes if spellings[name.casefold()] > 1]:
        yield _Point(
            WARN, f"{some(alike, 'class')} that differ only by upper and lower case: merge them if they are one."
        )


def _split_points(found: Survey) -> Iterator[_Point]:
    """Yield which classes would be missing in a split that is given, or in one that a search makes."""
    trained = [name for name, count in found.training.items() if count]
    for split, counts in found.judging.items():
        if lacking := [name for name in trained if not counts[name]]:
            text = f"without a usable image in {split}, so that no score covers it: add some, or take the class out."
            yield _Point(REFUSE, f"{some(lacking, 'class')} {text}")
    num_splits = len(SPLITS) - len(found.judging)
    if small := [f"{name} ({found.num_groups[name]})" for name in trained if found.num_groups[name] < num_splits]:
        text = (
            f"with fewer images to train with than splits to make ({num_splits}), where copies and groups count once: "
            "add more, or take the class out."
        )
        yield _Point(REFUSE, f"{some(small, 'class')} {text}")


def _duplicate_points(found: Survey) -> Iterator[_Point]:
    """Yield what is wrong with copies: across splits, under two labels, or merely there."""
    yield from _leak_points(found)
    exact = [group for kind, group in found.conflicts if kind == "exact"]
    near = [group for kind, group in found.conflicts if kind == "near"]
    if exact:
        number = num_images(exact)
        first = _named(exact[0], exact[0].labels)
        what = f"{number:,} images are copies of one picture under {two_labels(found)} (first: {first})"
        text = f"{what}: {_remedy(found, 'delete those with the wrong label, or leave all of them out with --fix')}."
        yield _Point(REFUSE if number > _MAX_CONFLICT_FRACTION * found.files["used"] else WARN, text)
    if near:
        text = (
            f"{counted(len(near), 'cluster')} of near-duplicates under {two_labels(found)} (first: "
            f"{_named(near[0], near[0].labels)}): look at the page that --html writes; correct wrong labels."
        )
        yield _Point(WARN, text)
    for kind, groups in (("exact", found.exact), ("near", found.near)):
        if groups:
            what = f"{counted(len(groups), 'cluster')} of {kind} duplicates, {num_images(groups):,} images"
            yield _Point(
                WARN, f"{what}: {_remedy(found, 'keep one of each with --fix, or accept that they count more')}."
            )


def two_labels(found: Survey) -> str:
    """Return what copies of one picture must not be under."""
    return "different sets of labels" if found.is_multi_label else "two labels"


def _leak_points(found: Survey) -> Iterator[_Point]:
    """Yield what is wrong with the given split."""
    if not found.leaks:
        return
    first = found.leaks[0]
    what = "near-duplicates or groups" if found.has_groups else "near-duplicates"
    text = f"The given split leaks: {counted(len(found.leaks), 'cluster')} of {what} in more than one split (first: "
    text += f"{_named(first, first.splits)}), "
    if found.is_official:
        text += "as published; a search keeps the split and leaves those test images out of its test accuracy."
        yield _Point(WARN, text)
    else:
        text += (
            f"so a test would be too optimistic: {_remedy(found, 'write a table without them with --fix')}, or search "
            "with --allow-leak, which shows the accuracy with and without them."
        )
        yield _Point(REFUSE, text)


def _file_points(found: Survey) -> Iterator[_Point]:
    """Yield what is wrong with single files."""
    lost = [finding for finding in found.bad if not finding.used]
    undecoded = found.num_rows - found.files["used"]
    if undecoded > _MAX_BAD_FRACTION * found.num_rows:
        text = f"{undecoded:,} of {found.num_rows:,} labelled files are not usable pictures: restore them."
        yield _Point(REFUSE, text)
    if lost:
        numbers = Counter(finding.code for finding in lost)
        codes = ", ".join(f"{count:,} {code.replace('_', ' ')}" for code, count in numbers.most_common())
        text = f"{counted(len(lost), 'file')} ignored ({codes}): replace those that you need, delete the rest"
        allow = "; --max-megapixels and --max-megabytes allow larger ones" if numbers["too_large"] else ""
        yield _Point(WARN, f"{text}{allow}.")
    if found.num_uniform > _MAX_UNIFORM_FRACTION * found.files["used"]:
        text = f"{found.num_uniform:,} images are nearly one colour: look at the files; they may have been damaged."
        yield _Point(WARN, text)
    for code, text in (
        ("wrong_extension", "named otherwise than the format inside, which is what is read: rename them."),
        ("animated", "with several frames, of which the first is used: save the frame that shows the class."),
        ("odd_name", "with control or bidirectional characters or bytes that are not UTF-8 in the name: rename them."),
    ):
        if names := [finding.path for finding in found.bad if finding.used and finding.code == code]:
            yield _Point(WARN, f"{some(names, 'file')} {text}")


def num_images(groups: Sequence[Group]) -> int:
    """Return how many images are in some groups."""
    return sum(len(group.rows) for group in groups)


def some(names: Sequence[str], noun: str) -> str:
    """Return how many there are and what the first are called: `2 classes (a, b)`."""
    more = ", ..." if len(names) > _NUM_NAMED else ""
    return f"{counted(len(names), noun)} ({', '.join(map(one_line, names[:_NUM_NAMED]))}{more})"


def _named(group: Group, marks: Sequence[str]) -> str:
    """Return some images of a group, each with its mark (label or split); one of each mark comes first."""
    number = min(_NUM_NAMED, len(set(marks)))
    return ", ".join(f"{one_line(path)} ({one_line(mark)})" for _, path, mark in group.leading(marks, number))


def _remedy(found: Survey, with_fix: str) -> str:
    """Return what to do about images: `with_fix` where --fix can write a table without them."""
    if found.is_fixable:
        return with_fix
    return "known, as published" if found.is_official else "leave them out where the array or shard is made"
