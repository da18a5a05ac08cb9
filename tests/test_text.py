"""Foreign text: what stays, what becomes a visible escape, and what is cut."""

import time

import pytest

from pipeline.text import counted, is_formula, one_line, printable


def test_hostile_characters_become_visible_escapes():
    assert printable("a\x1b[31mb\udcff\u202e\x00") == "a\\x1b[31mb\\udcff\\u202e\\x00"
    assert printable("two\nlines\tand Größe 犬") == "two\nlines\tand Größe 犬"


def test_a_name_stays_on_its_line_and_a_long_one_loses_its_middle():
    assert one_line("a\nverdict: ok") == "a\\nverdict: ok"
    assert one_line("x" * 200) == "x" * 200
    assert one_line("a" * 150 + "b" * 150) == "a" * 100 + "..." + "b" * 100


@pytest.mark.parametrize(
    "text",
    [
        "=1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "-1+cmd", "-inf", "+1_000", "--1", "-1-1",
        " =1", "\u00a0=1", "\u200b=1", "\ufeff=1", "\x00=1", "\u202e=1", '"=1', '" =1', "\u3000@x",
        "\uff1d1", "\uff0bx", "\uff0dx", "\uff20x", "\ufe66x", "\ufe63x",
        "x;=1", "x\t=1", "x\r=1", "x\n=1", "x; =1", 'x;"=1"', 'x";=1', "1;-1;-x", "a.png;@SUM(1)", "\ud800;=1",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_a_spreadsheet_computes_is_a_formula(text):
    assert is_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a=b", "a-b.png", "a, -b", "-1", "+1.5e3", "-.5", "-5.", " -1 ", "1;-2;+3.5", "a;b", "a\nb", "'=1",
        "-", "--", "+", "@", " - ", "./=1", "x@y", "s3://a-b/=c", '["=1"]', "\u2212x", ";", "\u200b",
        "-0,5", "-5 %", "+49 30 1234", "-12\u202f000,5",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_a_spreadsheet_shows_as_it_is_is_none(text):
    assert not is_formula(text)


def test_a_long_text_is_looked_through_in_no_time():
    start = time.perf_counter()
    for text in (
        "\t" * 500_000,
        "x" + "\t" * 500_000 + "=",
        " ;" * 250_000 + "=1",
        "-" * 500_000,
        '"' * 500_000 + "x-",
        "-" + "1" * 500_000 + "x",
    ):
        is_formula(text)
    assert time.perf_counter() - start < 5


def test_nouns_are_counted():
    assert [counted(1, "file"), counted(2000, "file"), counted(0, "class")] == ["1 file", "2,000 files", "0 classes"]
