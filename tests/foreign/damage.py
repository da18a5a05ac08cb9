"""How files of every format are damaged, or made with odd values in them."""

import copy
import datetime
import decimal
import io
import warnings
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tests.data.encoded import saved
from tests.foreign.whole import (
    METHODS,
    NPYS,
    PIXELS,
    TIFFS,
    archive,
    parquet,
    text_of,
)

ODD_BYTES = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-1", b"1e999", b"9" * 5000,
             b"[" * 3000, b'{"a":' * 3000, b"(" * 500, b"-" * 800, b"\n", b",", b'"', b"\xed\xa0\x80", b"\\ud800",
             b"NaN", b"null", b"true", b"!!timestamp x", b"!!bool x", b"&a *a", b"? ", b": ")  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a file with a few places flipped, replaced, cut, inserted or repeated."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 16))
        kind = draw(st.sampled_from(("flip", "replace", "odd", "cut", "remove", "insert", "repeat", "move")))
        if kind == "flip" and place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "replace":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "odd":
            odd = draw(st.sampled_from(ODD_BYTES))
            content[place : place + draw(st.sampled_from((0, len(odd))))] = odd
        elif kind == "cut":
            del content[place:]
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * draw(st.integers(1, 50))
        elif kind == "move":
            content[place : place + length] = content[:length]
    return bytes(content)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from((10**400, -1, 2**31, 2**63, 1e308, "\ud800", "\0", "=1", "x" * 300, 0.0, 1.0, True))
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one or two of its inner values replaced or taken away."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                place = inner
                continue
            if draw(st.integers(0, 4)) or isinstance(place, list):
                place[key] = draw(VALUES)
            else:
                del place[key]
            break
    return value


DESCRIPTIONS = (
    "'|u1'", "'<f8'", "'>u2'", "'|O'", "'|V9'", "'<U9'", "'|b1'", "'<c8'", "[('a', '|u1')]", "'|V0'", "'|S99999999999'",
    "'<M8[s]'", "0", "None", "('|u1', (2, 2))", "'" + "(" * 300 + "'", "-" * 700 + "1",
)  # fmt: skip
SHAPES = (
    "(4, 9, 8)", "(4,)", "()", "(0,)", "(-1,)", "(4, 9, 8, 3)", "(10**6, 10**6)", "(2**70,)", "(True,)", "(1.5,)",
    "None", "4", "[4]", "(4, 1)", "(4, 2)", "(999999999999,)", "('a',)", "(" * 190 + ")" * 190,
)  # fmt: skip


@st.composite
def odd_npy(draw: st.DrawFn) -> bytes:
    """Return a .npy file with an odd header, or damaged."""
    if draw(st.booleans()):
        return draw(damaged(draw(st.sampled_from(NPYS))))
    descr, shape = draw(st.sampled_from(DESCRIPTIONS)), draw(st.sampled_from(SHAPES))
    order = draw(st.sampled_from(("False", "True", "0", "None")))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(118) + b"\n"
    version = draw(st.sampled_from((b"\1\0", b"\2\0", b"\3\0", b"\0\0")))
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + draw(st.sampled_from((b"", bytes(4), bytes(288), bytes(864))))


@st.composite
def odd_npz(draw: st.DrawFn, names: tuple[str, ...]) -> bytes:
    """Return an .npz whose members are odd, twice there, away, packed in any way, or said to be encrypted."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name in (*names, *draw(st.lists(st.sampled_from(names), max_size=1))):
            content = draw(odd_npy() | st.sampled_from((saved(np.arange(4) % 2), saved(PIXELS[:4]))))
            packed.writestr(f"{name}.npy", content, draw(st.sampled_from(METHODS)))
    return draw(st.just(file.getvalue()) | flagged(file.getvalue()))


@st.composite
def flagged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a zip whose members are said to be encrypted, patched, or packed in a way that no one knows."""
    content = bytearray(whole)
    flag, method = draw(st.sampled_from(((1, None), (0x20, None), (0x40, None), (0, 99), (0, 1), (0, 8), (0, 14))))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= flag
            if method is not None:
                content[start + place + 2] = method
            start = content.find(mark, start + 4)
    return bytes(content)


@st.composite
def odd_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a zip with a config.json, flagged in some way or not."""
    whole = archive({"config.json": content}, draw(st.sampled_from(METHODS)))
    return draw(st.just(whole) | flagged(whole))


@st.composite
def odd_tar(draw: st.DrawFn, wholes: tuple[bytes, ...]) -> bytes:
    """Return a damaged tar whose headers have right checksums."""
    content = bytearray(draw(damaged(draw(st.sampled_from(wholes)))))
    start = content.find(b"ustar")
    while start >= 257:
        head = start - 257
        content[head + 148 : head + 156] = b" " * 8
        content[head + 148 : head + 156] = b"%06o\0 " % sum(content[head : head + 512])
        start = content.find(b"ustar", start + 5)
    return bytes(content)


@st.composite
def odd_tiff(draw: st.DrawFn) -> bytes:
    """Return a TIFF of which a few tags have other numbers, types, counts or values."""
    content = bytearray(draw(st.sampled_from(TIFFS)))
    order = "little" if content[:2] == b"II" else "big"
    is_big = b"+" in content[2:4]
    place = int.from_bytes(content[8:16] if is_big else content[4:8], order)
    size, head, width = (20, 8, 8) if is_big else (12, 2, 4)
    number = int.from_bytes(content[place : place + head], order)
    for _ in range(draw(st.integers(1, 3))):
        entry = place + head + size * draw(st.integers(0, number - 1))
        start, length = draw(st.sampled_from(((0, 2), (2, 2), (4, width), (4 + width, width))))
        value = draw(
            st.sampled_from((0, 1, 2, 3, 5, 8, 16, 64, 255, 65535, 32997, 322, 2**31, 2**32 - 1))
            | st.integers(0, 70000)
        )
        content[entry + start : entry + start + length] = (value % 256**length).to_bytes(length, order)
    return bytes(content)


COLUMNS = (
    ["a", "b"], [b"a", b"\xff"], [1, 2], [1.5, None], [["x"], []], [{"k": 1}, None], [True, False], [None, None],
    [datetime.date(2026, 1, 1), None], [decimal.Decimal("1.5"), None], ["train", "test"],
)  # fmt: skip


@st.composite
def odd_parquet(draw: st.DrawFn) -> bytes:
    """Return a sound Parquet file of columns of any type."""
    others = draw(st.lists(st.sampled_from(("split", "group", "weight", "site")), unique=True))
    columns = {name: pa.array(draw(st.sampled_from(COLUMNS))) for name in ("path", "label", *others)}
    return parquet(pa.table(columns))


@st.composite
def odd_rows(draw: st.DrawFn) -> bytes:
    """Return JSON lines of rows with odd values."""
    rows = [
        {"path": f"{number}.png", "label": "a", "split": "train", "group": "g", "weight": 1, "x": 2}
        for number in range(2)
    ]
    return b"\n".join(text_of(draw(changed(row))) for row in rows)
