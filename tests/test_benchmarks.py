"""Benchmarks run seldom: at least everything that they import from the package must be there."""

import ast
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


def imported(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of all that a script imports from the package, inside functions too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipeline")]
    return [(str(node.module), each.name) for node in froms for each in node.names]


@pytest.mark.heavy
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    for module, name in imported(path):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module}.{name}"
