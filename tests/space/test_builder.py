"""A space of user code: which file and name are meant, and what of it belongs to the space."""

from pathlib import Path

import pytest

from pipeline.errors import SpaceError
from pipeline.search.spaces.loader import open_space
from pipeline.space import Builder, Param, SearchSpace, load_space, recipe
from pipeline.space.builder import is_code, read_builder
from pipeline.space.params import DEFAULTS, RECIPE

CODE = "def build(hp):\n    return None\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "models" / "mine.py"
    path.parent.mkdir()
    path.write_text(CODE)
    return path


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("a.py:Net", True), ("a.py", True), ("/b/a.py:f", True), ("cnn", False), ("./a.yaml", False), ("a.pyx", False)],
)
def test_code_is_told_from_names_and_yaml_files(reference: str, expected: bool) -> None:
    assert is_code(reference) is expected


def test_a_builder_holds_the_text_and_a_path_that_moves_with_the_workspace(file: Path) -> None:
    assert read_builder("./models/mine.py:build") == Builder("models/mine.py", "build", CODE)
    assert read_builder(f"{file}:build").path == "models/mine.py"


def test_a_file_outside_the_workspace_keeps_its_whole_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (file.parent / "elsewhere").mkdir()
    monkeypatch.chdir(file.parent / "elsewhere")
    assert read_builder("../mine.py:build").path == str(file)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "models/mine.py",
            "names no class or function; expected a Python file with a name in it; write such as models/",
        ),
        ("models/mine.py:", "names no class or function"),
        ("models/mine.py:a-b", "names no class or function"),
        ("gone.py:build", "gone.py: .*No such file.*; correct the path or the file"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(file: Path, reference: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        open_space(reference)


def test_changed_code_is_another_space_and_travels_with_it(file: Path) -> None:
    params = (Param("units", "int", (), 1, 3, 1, default=1),)
    space = SearchSpace("mine.py:build", "", params, "mine.py:build", builder=read_builder("models/mine.py:build"))
    document = space.to_json()
    assert Builder.of(document) == space.builder
    file.write_text(f"{CODE}# changed\n")
    changed = SearchSpace("mine.py:build", "", params, "mine.py:build", builder=read_builder("models/mine.py:build"))
    assert changed.to_json() != document


def test_a_yaml_space_has_no_builder() -> None:
    assert "builder" not in load_space("tiny").to_json()
    assert Builder.of(load_space("tiny").to_json()) is None


def test_the_recipe_is_read_from_any_configuration() -> None:
    params = {"units": 3, "learning_rate": 0.5, "batch_size": 7}
    defaults = {name: DEFAULTS[name] for name in RECIPE}
    assert recipe(params) == {**defaults, "learning_rate": 0.5, "batch_size": 7}
    pretrained = recipe({"backbone": "mobilenet_v2", "frozen": 0.5})
    assert (pretrained["optimizer"], pretrained["frozen"], pretrained["backbone_rate"]) == ("adamw", 0.5, 0.1)
    assert recipe({"backbone": 18}) == {**defaults, "backbone_rate": 0.1, "frozen": 0.2}  # of the user's own code
