"""Untrusted text made harmless: names of files and classes for a terminal or a page, URLs without their secrets.

Durations as text, too. No markup here.
"""

import hashlib
import os
import re

# OWASP, "CSV Injection": what a formula begins with, also full-width and small East Asian forms.
_SIGN = re.compile("[=+@\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b-]")
NEW_CELL = re.compile("[;\t\r\n]")  # where a spreadsheet may begin a cell although commas separate them
_UNSEEN = "".join(map(chr, (*range(33), *range(127, 161), 0xAD, *range(0x2000, 0x2010), *range(0x2028, 0x2030),
                           0x205F, *range(0x2060, 0x2070), 0x3000, 0xFEFF))) + '"'  # fmt: skip
_NUMBER = re.compile(r"[+-][0-9 .,'%:()\u00a0\u202f]*([eE][+-]?[0-9]+)?")  # also -0,5, -5 %, +49 30 1234
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def printable(text: str, kept: str = "\n\t") -> str:
    """Escape what a terminal or a browser would obey or a UTF-8 stream would refuse, save the characters `kept`.

    Control and bidirectional characters and bytes that are not UTF-8 become visible escapes such as \\x1b and \\udcff.
    """
    if text.isprintable():
        return text
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c in kept or c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet would compute a cell that holds this text; -1 or a dash is no formula.

    The parts of a text count too: a spreadsheet that separates cells by semicolons or tabs may ignore the quotes
    around them.
    """
    if text.startswith(("\t", "\r", "\n")):
        return True
    if not _SIGN.search(text):
        return False
    parts = [part.strip(_UNSEEN) for part in NEW_CELL.split(text)]
    return any(_SIGN.match(part) and re.search(r"\w", part) and not _NUMBER.fullmatch(part) for part in parts)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 file, 2,000 files, 2 classes."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def one_line(name: str, longest: int = 200) -> str:
    """Return a foreign name that stays on its line; the middle of one longer than `longest` characters is left out."""
    safe = printable(name, kept="")
    return safe if len(safe) <= longest else f"{safe[: longest // 2]}...{safe[-(longest // 2) :]}"


def safe_name(name: str) -> str:
    """Return a data set's name as it may stand in the name of a study: other characters become dashes."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip("-._")[:48]
    return safe or f"data-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def is_url(text: str) -> bool:
    """Tell whether a text is a URL rather than a path."""
    return "://" in text and _URL.match(text) is not None


def redacted(place: str) -> str:
    """Return a URL without its password and its query, which may be a signature; a path as it is."""
    if not is_url(place):
        return place
    scheme, mark, rest = place.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def format_seconds(seconds: float) -> str:
    """Return a duration as a person writes it: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
