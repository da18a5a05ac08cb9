"""The steps of `pipeline data check` in order, and its screen; imported only when the command runs."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.output import quoted, say
from pipeline.cli.values import PAGES, refuse_ending
from pipeline.data.cache.images import ImageCache, SpecOptions, choose_spec, open_cache
from pipeline.data.quality.check import MEANING, REFUSE, Check, check_data
from pipeline.data.quality.fix import Kept, clean
from pipeline.data.quality.survey import Group
from pipeline.data.readers.kinds import TABLES
from pipeline.data.readers.registry import names_no_files, open_source
from pipeline.data.source import Finding, Source, encodable
from pipeline.data.splits.manifest import write_manifest
from pipeline.errors import DataError, InvalidUsage
from pipeline.files import write_text
from pipeline.text import counted, one_line, redacted

REPORT_SECONDS = 5.0
SHOWN_CLASSES = 12
SHOWN_FILES = 5
SHOWN_GROUPS = 3
SHOWN_NAMES = 3


class CheckJob:
    """One call of `pipeline data check`: what is asked for, then what was found and written."""

    def __init__(
        self, workspace: Path, data: str, html: Path | None, fix: Path | None, options: dict[str, Any]
    ) -> None:
        self.workspace = workspace
        self.data = data
        self.html = html
        self.fix = fix
        self.options = options
        self.reported = time.monotonic()

    def run(self) -> None:
        """Read, decode, check, and write what is asked for.

        Raises:
            PipelineError: there is nothing to check, or an output that cannot be.
        """
        self.refuse_outputs()
        options = self.options
        source = open_source(
            self.data, self.workspace, options["source"], options["cache_limit"], options["allow_host"]
        )
        names = ("image_size", "background", "max_megapixels", "max_megabytes")
        wanted = SpecOptions(**{name: options[name] for name in names})
        try:
            spec = choose_spec(source, wanted)
        except DataError as error:  # the check says what each file is nevertheless
            say(str(error))
            spec = wanted.square()
        say(f"{one_line(source.origin)}: {len(source):,} labelled files, {len(source.classes)} classes")
        cache = open_cache(source, spec, self.workspace, options["cache_limit"], self.report_decoding)
        self.check = check_data(source, cache)
        self.kept = self.write_fix(self.fix, source, cache) if self.fix else None
        if self.html:
            from pipeline.reports.check_page import check_page

            write_text(self.html, check_page(self.check, source, cache))

    def refuse_outputs(self) -> None:
        """Refuse impossible outputs before anything is opened, downloaded or decoded.

        Raises:
            InvalidUsage: one would replace the data, or its name does not say what it will be.
            DataError: no table can name the images.
        """
        for flag, path, endings in (("--fix", self.fix, TABLES), ("--html", self.html, PAGES)):
            if path:
                refuse_ending(flag, path, endings)
            if path and path.exists() and Path(self.data).exists() and path.samefile(self.data):
                raise InvalidUsage(f"{flag} {path}: this is DATA itself; expected another file; choose a new name")
        if self.fix and names_no_files(self.data):
            raise DataError(
                f"--fix {self.fix}: the images of {redacted(self.data)} are not separate files, so no table "
                "can name them; expected a folder or a table as DATA; leave --fix out"
            )

    def report_decoding(self, done: int, total: int) -> None:
        """Say every few seconds how many images are decoded."""
        now = time.monotonic()
        if now - self.reported > REPORT_SECONDS:
            self.reported = now
            say(f"  decoded {done:,} of {total:,}")

    def write_fix(self, path: Path, source: Source, cache: ImageCache) -> Kept:
        """Write the table of the images that are worth keeping."""
        kept = clean(source, cache, self.check.found)
        write_manifest(path, source, kept.rows, source.splits, cache.facts["sha256"])
        return kept

    @property
    def is_refused(self) -> bool:
        """Whether a search on the data would mislead."""
        return self.check.verdict == REFUSE

    def to_json(self) -> dict[str, Any]:
        """Return the check, and what was written, as a JSON-able document."""
        document = self.check.to_json()
        if self.kept:
            document["fix"] = {
                "manifest": encodable(str(self.fix)),
                "kept": len(self.kept.rows),
                "left_out": self.kept.left_out,
            }
        if self.html:
            document["html"] = encodable(str(self.html))
        return document

    def to_text(self) -> str:
        """Return the check on one screen."""
        lines = list(screen(self.check))
        if self.kept:
            reasons = "".join(f"\n    {number:,} {reason}" for reason, number in self.kept.left_out.items())
            without = f", without{reasons}" if reasons else ""
            lines.append(f"\n{one_line(str(self.fix))}: {len(self.kept.rows):,} images{without}")
            if self.check.found.leaks:
                lines.append("    what stood in several splits stays in test, else in val, and is left out of train")
        if self.html:
            lines.append(f"\npage: {one_line(str(self.html))}")
        return "\n".join(lines)

    def next_steps(self) -> list[tuple[str, str]]:
        """Return what to type next, with what it does."""
        hosts = "".join(f" --allow-host {quoted(host)}" for host in self.options["allow_host"])
        if self.fix:
            return [(f"pipeline search {quoted(str(self.fix))}{hosts}", "search on what was kept")]
        data = f"{quoted(redacted(self.data))}{hosts}"
        found, steps = self.check.found, []
        can_be_cleaned = found.num_rows > found.files["used"] or found.exact or found.near or found.leaks
        if self.check.advice and not self.html:
            steps.append((f"pipeline data check {data} --html check.html", "look at the pictures"))
        if can_be_cleaned and found.is_fixable and found.files["used"]:
            steps.append(
                (f"pipeline data check {data} --fix clean.csv", "write a table without bad and duplicate images")
            )
        if not self.is_refused:
            steps.append((f"pipeline search {data}", "search the best network for it"))
        return steps or [(f"pipeline data check {data}", "check again after the correction")]


def screen(check: Check) -> Iterator[str]:
    """Yield the lines of a check."""
    found, facts = check.found, check.found.facts
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in found.files.items() if number and kind != "total")
    yield row("files", f"{found.files['total']:,}: {kinds.replace('_', ' ')}")
    shown = [f"{one_line(name, 40)} {count:,}" for name, count in list(found.classes.items())[:SHOWN_CLASSES]]
    more = f", and {len(found.classes) - SHOWN_CLASSES:,} more" if len(found.classes) > SHOWN_CLASSES else ""
    several = " (any number of them an image)" if found.is_multi_label else ""
    yield row("classes", f"{len(found.classes):,}{several}: {', '.join(shown)}{more}")
    splits = ", ".join(f"{count:,} {name}" for name, count in facts["splits"].items())
    yield row("splits", "none given; a search makes them" if set(facts["splits"]) <= {"not_given"} else splits)
    if facts["sizes"]:
        sizes = (f"{key} {size['height']} x {size['width']}" for key, size in facts["sizes"].items())
        formats = ", ".join(f"{count:,} {name}" for name, count in facts["formats"].items())
        yield row("pictures", f"{', '.join(sizes)}; {formats}")
    image = facts["image"]
    yield row("decoded to", f"{image['height']} x {image['width']} x {image['channels']}, {image['dtype']}")
    yield from group_lines("exact copies", found.exact)
    yield from group_lines("near copies", found.near)
    yield from group_lines("leaks", found.leaks, "splits")
    conflicts = "label conflicts" if found.is_multi_label else "two labels"
    yield from group_lines(conflicts, [group for _, group in found.conflicts], "labels")
    yield from file_lines(found.bad)
    yield ""
    yield row("verdict", f"{check.verdict}: {MEANING[check.verdict]}")
    yield from (f"  - {sentence}" for sentence in check.advice)


def row(name: str, text: str) -> str:
    """Return one line of a list of names and texts."""
    return f"{name:<15} {text}"


def group_lines(name: str, groups: Sequence[Group], marks: str | None = None) -> Iterator[str]:
    """Yield how many groups there are, and the first by name, with split or label."""
    if not groups:
        yield row(name, "none")
        return
    yield row(name, f"{counted(len(groups), 'cluster')}, {sum(len(group.rows) for group in groups):,} images")
    for group in groups[:SHOWN_GROUPS]:
        members = group.leading(getattr(group, marks or "splits"), SHOWN_NAMES)
        texts = [f"{one_line(path, 80)}{f' ({one_line(mark, 40)})' if marks else ''}" for _, path, mark in members]
        yield f"    {', '.join(texts)}{', ...' * (len(group.rows) > SHOWN_NAMES)}"
    if len(groups) > SHOWN_GROUPS:
        yield f"    and {len(groups) - SHOWN_GROUPS:,} more"


def file_lines(bad: Sequence[Finding]) -> Iterator[str]:
    """Yield the first files of each kind that are left out, or that serve and need a look."""
    by_code: dict[str, list[Finding]] = defaultdict(list)
    for finding in bad:
        by_code[finding.code].append(finding)
    for code, findings in by_code.items():
        verb = "used, but look" if findings[0].used else "left out"
        yield row(code.replace("_", " "), f"{len(findings):,} ({verb})")
        yield from (f"    {one_line(item.path)}: {one_line(item.detail, 100)}" for item in findings[:SHOWN_FILES])
        if len(findings) > SHOWN_FILES:
            yield f"    and {len(findings) - SHOWN_FILES:,} more"
