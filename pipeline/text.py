"""Foreign text made harmless: names of files and classes as they may stand in a terminal or a page. No markup here."""

import hashlib
import os

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # OWASP, "CSV Injection"


def printable(text: str, kept: str = "\n\t") -> str:
    """Escape what a terminal or a browser would obey or a UTF-8 stream would refuse, save the characters `kept`.

    Control and bidirectional characters and bytes that are not UTF-8 become visible escapes such as \\x1b and \\udcff.
    """
    if text.isprintable():
        return text
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c in kept or c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet would compute a cell that holds this text; a number such as -1 computes nothing."""
    if not text.startswith(FORMULA_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


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
