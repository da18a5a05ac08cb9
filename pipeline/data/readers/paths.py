"""The paths of a million images in little memory: their bytes in one piece, and where each ends."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

_CODING = "utf-8", "surrogatepass"  # any text comes back as it was, also one that stands for bytes that are not UTF-8


class Paths(Sequence[str]):
    """Texts in the order in which they were added; each takes its bytes and eight more, where a str takes 50 more."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.content = bytearray()
        self.ends = array("Q", [0])
        self.extend(paths)

    def append(self, path: str) -> None:
        """Add one path."""
        self.content += path.encode(*_CODING)
        self.ends.append(len(self.content))

    def extend(self, paths: Iterable[str]) -> None:
        """Add some paths."""
        for path in paths:
            self.append(path)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[str]:
        for start, end in pairwise(self.ends):
            yield self.content[start:end].decode(*_CODING)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return a path, or a list of those of a slice."""
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        return self.content[self.ends[places] : self.ends[places + 1]].decode(*_CODING)

    def __eq__(self, other: object) -> bool:
        """Tell whether another sequence holds the same texts in the same order."""
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows
