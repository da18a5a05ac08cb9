"""Labelled images before a search: every file is decoded once, and what would mislead a search is found."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.cache.images import SpecOptions, choose_spec, open_cache
from pipeline.data.quality.check import REFUSE, Check, check_data
from pipeline.data.quality.fix import Kept, clean
from pipeline.data.readers.kinds import TABLES
from pipeline.data.readers.registry import names_no_files, open_source
from pipeline.data.source import Source, encodable
from pipeline.data.splits.manifest import write_manifest
from pipeline.errors import DataError, InvalidUsage
from pipeline.files import write_text
from pipeline.records import ImageSpec
from pipeline.text import one_line, redacted
from pipeline.workflows.outputs import PAGES, refuse_ending
from pipeline.workflows.progress import SILENT, Progress, decoding_report


@dataclass(frozen=True)
class CheckRequest:
    """Which images are checked, and what is written: a page with pictures, and a table of what is worth keeping.

    `source` is where the files of a built-in set lie, `hosts` are private ones that URLs in a table may reach.
    """

    data: str
    html: Path | None = None
    fix: Path | None = None
    source: str | None = None
    images: SpecOptions = field(default_factory=SpecOptions)
    cache_limit: int = LIMIT_BYTES
    hosts: tuple[str, ...] = ()
    workspace: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class CheckResult:
    """What was found, and what was kept for the table."""

    request: CheckRequest
    check: Check
    kept: Kept | None = None

    @property
    def is_refused(self) -> bool:
        """Whether a search on the data would mislead."""
        return self.check.verdict == REFUSE

    def to_json(self) -> dict[str, Any]:
        """Return the check, and what was written, as a JSON-able document."""
        document = self.check.to_json()
        if self.kept:
            document["fix"] = {
                "manifest": encodable(str(self.request.fix)),
                "kept": len(self.kept.rows),
                "left_out": self.kept.left_out,
            }
        if self.request.html:
            document["html"] = encodable(str(self.request.html))
        return document


def run(request: CheckRequest, progress: Progress = SILENT) -> CheckResult:
    """Read, decode, check, and write what is asked for.

    Raises:
        PipelineError: there is nothing to check, or an output that cannot be.
    """
    _refuse_outputs(request)
    source = open_source(request.data, request.workspace, request.source, request.cache_limit, request.hosts)
    spec = _spec_of(source, request.images, progress)
    progress.say(f"{one_line(source.origin)}: {len(source):,} labelled files, {len(source.classes)} classes")
    cache = open_cache(source, spec, request.workspace, request.cache_limit, decoding_report(progress))
    check, kept = check_data(source, cache), None
    if request.fix:
        kept = clean(source, cache, check.found)
        write_manifest(request.fix, source, kept.rows, source.splits, cache.facts["sha256"])
    if request.html:
        from pipeline.reports.check_page import check_page

        write_text(request.html, check_page(check, source, cache))
    return CheckResult(request, check, kept)


def _refuse_outputs(request: CheckRequest) -> None:
    """Refuse impossible outputs before anything is opened, downloaded or decoded.

    Raises:
        InvalidUsage: one would replace the data, or its name does not say what it will be.
        DataError: no table can name the images.
    """
    for option, path, endings in (("--fix", request.fix, TABLES), ("--html", request.html, PAGES)):
        if path:
            refuse_ending(option, path, endings)
        if path and path.exists() and Path(request.data).exists() and path.samefile(request.data):
            raise InvalidUsage(f"{option} {path}: this is DATA itself; choose another file")
    if request.fix and names_no_files(request.data):
        raise DataError(
            f"--fix {request.fix}: the images of {redacted(request.data)} are not separate files, so no table "
            "can name them; expected a folder or a table as DATA; leave --fix out"
        )


def _spec_of(source: Source, wanted: SpecOptions, progress: Progress) -> ImageSpec:
    try:
        return choose_spec(source, wanted)
    except DataError as error:  # the check says what each file is nevertheless
        progress.say(str(error))
        return wanted.square()
