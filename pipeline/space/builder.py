"""A user's own Python code as a search space: which file, which name in it, and its text; nothing is run here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SpaceError


@dataclass(frozen=True)
class Builder:
    """A `kt.HyperModel` subclass or a function build(hp): `name` in the Python file `path`, whose text is `source`.

    The text travels with the study, so that a search goes on with the code that it began with though the file is
    edited, and a resume with changed code is refused. `path` is relative to the workspace where it can be; other
    modules that the code imports are looked for in its folder. Those found there, or below, are `modules`: path
    relative to the folder, and SHA-256. Their text does not travel; what follows from `source` alone is the same.
    """

    path: str
    name: str
    source: str
    modules: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return Path(self.path).parent.resolve()

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON-able values."""
        modules = {"modules": dict(self.modules)} if self.modules else {}
        return {"path": self.path, "name": self.name, "source": self.source, **modules}

    @staticmethod
    def of(space: Mapping[str, Any]) -> "Builder | None":
        """Return the builder of a space that `SearchSpace.to_json` wrote, if it has one."""
        if "builder" not in space:
            return None
        stored = space["builder"]
        return Builder(stored["path"], stored["name"], stored["source"], tuple(stored.get("modules", {}).items()))


def is_code(reference: str) -> bool:
    """Tell whether the name of a space means Python code."""
    return reference.endswith(".py") or ".py:" in reference


def read_builder(reference: str) -> Builder:
    """Return the code that `file.py:Name` means; it is read and not run.

    Raises:
        SpaceError: no name after the file, or the file cannot be read as text.
    """
    file, _, name = reference.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise SpaceError(
            f"search space {reference!r} names no class or function; expected a Python file with a name in it; write "
            f"such as {reference.partition(':')[0]}:MyHyperModel"
        )
    try:
        source = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SpaceError(f"{file}: {error}; expected a Python file in UTF-8; correct the path or the file") from error
    path, here = Path(file).resolve(), Path.cwd()
    return Builder(path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path), name, source)
