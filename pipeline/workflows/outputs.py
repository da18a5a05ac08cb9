"""The files that a workflow may write besides its result."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InvalidUsage

PAGES = (".html", ".htm")


def refuse_ending(option: str, path: Path, endings: Sequence[str]) -> None:
    """Check the ending of an output's name: by a slip, another file would be replaced.

    Raises:
        InvalidUsage: it does not say what the file will be.
    """
    if path.suffix.lower() not in endings:
        raise InvalidUsage(f"{option} {path}: the ending {path.suffix!r} is not supported; use {', '.join(endings)}")
