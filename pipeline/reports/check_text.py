"""What was found in images that were checked, on one screen."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.data.quality.check import MEANING, Check
from pipeline.data.quality.fix import Kept
from pipeline.data.quality.survey import Group
from pipeline.data.source import Finding
from pipeline.text import counted, one_line

_SHOWN_CLASSES = 12
_SHOWN_FILES = 5
_SHOWN_GROUPS = 3
_SHOWN_NAMES = 3


def check_text(check: Check, kept: Kept | None, table: Path | None, page: Path | None) -> str:
    """Return a check, and what was written: the table of the images that were kept, and a page."""
    lines = list(_screen(check))
    if kept:
        reasons = "".join(f"\n    {number:,} {reason}" for reason, number in kept.left_out.items())
        without = f", without{reasons}" if reasons else ""
        lines.append(f"\n{one_line(str(table))}: {len(kept.rows):,} images{without}")
        if check.found.leaks:
            lines.append("    images in several splits are kept in test, or else in val, and removed from train")
    if page:
        lines.append(f"\npage: {one_line(str(page))}")
    return "\n".join(lines)


def _screen(check: Check) -> Iterator[str]:
    found, facts = check.found, check.found.facts
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in found.files.items() if number and kind != "total")
    yield _row("files", f"{found.files['total']:,}: {kinds.replace('_', ' ')}")
    shown = [f"{one_line(name, 40)} {count:,}" for name, count in list(found.classes.items())[:_SHOWN_CLASSES]]
    more = f", and {len(found.classes) - _SHOWN_CLASSES:,} more" if len(found.classes) > _SHOWN_CLASSES else ""
    several = " (any number of them an image)" if found.is_multi_label else ""
    yield _row("classes", f"{len(found.classes):,}{several}: {', '.join(shown)}{more}")
    splits = ", ".join(f"{count:,} {name}" for name, count in facts["splits"].items())
    yield _row("splits", "none given; a search makes them" if set(facts["splits"]) <= {"not_given"} else splits)
    if facts["sizes"]:
        sizes = (f"{key} {size['height']} x {size['width']}" for key, size in facts["sizes"].items())
        formats = ", ".join(f"{count:,} {name}" for name, count in facts["formats"].items())
        yield _row("pictures", f"{', '.join(sizes)}; {formats}")
    image = facts["image"]
    yield _row("decoded to", f"{image['height']} x {image['width']} x {image['channels']}, {image['dtype']}")
    yield from _group_lines("exact copies", found.exact)
    yield from _group_lines("near copies", found.near)
    yield from _group_lines("leaks", found.leaks, "splits")
    yield from _group_lines("label conflicts", [group for _, group in found.conflicts], "labels")
    yield from _file_lines(found.bad)
    yield ""
    yield _row("verdict", f"{check.verdict}: {MEANING[check.verdict]}")
    yield from (f"  - {sentence}" for sentence in check.advice)


def _row(name: str, text: str) -> str:
    return f"{name:<15} {text}"


def _group_lines(name: str, groups: Sequence[Group], marks: str | None = None) -> Iterator[str]:
    """Yield how many groups there are, and the first by name, with split or label."""
    if not groups:
        yield _row(name, "none")
        return
    yield _row(name, f"{counted(len(groups), 'cluster')}, {sum(len(group.rows) for group in groups):,} images")
    for group in groups[:_SHOWN_GROUPS]:
        members = group.leading(getattr(group, marks or "splits"), _SHOWN_NAMES)
        texts = [f"{one_line(path, 80)}{f' ({one_line(mark, 40)})' if marks else ''}" for _, path, mark in members]
        yield f"    {', '.join(texts)}{', ...' * (len(group.rows) > _SHOWN_NAMES)}"
    if len(groups) > _SHOWN_GROUPS:
        yield f"    and {len(groups) - _SHOWN_GROUPS:,} more"


def _file_lines(bad: Sequence[Finding]) -> Iterator[str]:
    """Yield the first files of each kind ignored, or used but worth checking."""
    by_code: dict[str, list[Finding]] = defaultdict(list)
    for finding in bad:
        by_code[finding.code].append(finding)
    for code, findings in by_code.items():
        verb = "used, but worth checking" if findings[0].used else "ignored"
        yield _row(code.replace("_", " "), f"{len(findings):,} ({verb})")
        yield from (f"    {one_line(item.path)}: {one_line(item.detail, 100)}" for item in findings[:_SHOWN_FILES])
        if len(findings) > _SHOWN_FILES:
            yield f"    and {len(findings) - _SHOWN_FILES:,} more"
