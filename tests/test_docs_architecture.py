"""What docs/architecture.md and docs/decisions.md name in backticks exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("architecture", "decisions")
OF_OTHERS = ("POST", "python_function")  # words of HTTP and MLflow
PATH = re.compile(r"((?:[\w.-]+/)*[\w.-]+\.(?:py|md|cfg)|(?:\w+/)+)(?::(\w+))?")
KIND = re.compile(r"[A-Z]\w+(?:\.\w+)?|_?[A-Z_]{4,}")


def names(page):
    """Return what stands in backticks on a page, outside of blocks of text."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def python_text(folder):
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py")))


SOURCE = python_text("pipeline")


def is_defined(name, text=SOURCE):
    """Tell whether a class, function or constant is defined in a text of Python."""
    return re.search(rf"^\s*(class|def) {name}\b|^\s*{name}\b[^=\n(]*[=:]", text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists_and_holds_what_is_said_to_be_in_it(page):
    found = [match.groups() for name in names(page) if (match := PATH.fullmatch(name))]
    assert len(found) >= 20
    for path, name in found:
        places = [folder / path for folder in (ROOT / "pipeline", ROOT) if (folder / path).exists()]
        assert places, path
        assert name is None or is_defined(name, places[0].read_text(encoding="utf-8")), f"{path}:{name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_class_and_constant_is_defined(page):
    text = SOURCE + python_text("tests")
    found = [name for name in names(page) if KIND.fullmatch(name) and not PATH.fullmatch(name)]
    assert found
    for name in found:
        if name not in OF_OTHERS:
            assert all(is_defined(part, text) for part in name.split(".")), name


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_is_named_is_in_the_source(page):
    text = SOURCE + python_text("tests")
    for name in names(page):
        if re.fullmatch(r"[a-z_]+_[a-z_]+", name) and name not in OF_OTHERS:
            assert re.search(rf"\b{name}\b", text), name
