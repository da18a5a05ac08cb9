"""Foreign text: what stays, what becomes a visible escape, and what is cut."""

from pipeline.text import counted, is_formula, one_line, printable


def test_hostile_characters_become_visible_escapes():
    assert printable("a\x1b[31mb\udcff\u202e\x00") == "a\\x1b[31mb\\udcff\\u202e\\x00"
    assert printable("two\nlines\tand Größe 犬") == "two\nlines\tand Größe 犬"


def test_a_name_stays_on_its_line_and_a_long_one_loses_its_middle():
    assert one_line("a\nverdict: ok") == "a\\nverdict: ok"
    assert one_line("x" * 200) == "x" * 200
    assert one_line("a" * 150 + "b" * 150) == "a" * 100 + "..." + "b" * 100


def test_formulas_are_told_from_numbers():
    assert [text for text in ("=1", "+x", "-x", "@x", "\tx", "\rx", "a=b", "-1", "+1.5e3", "") if is_formula(text)] == [
        "=1", "+x", "-x", "@x", "\tx", "\rx",
    ]  # fmt: skip


def test_nouns_are_counted():
    assert [counted(1, "file"), counted(2000, "file"), counted(0, "class")] == ["1 file", "2,000 files", "0 classes"]
