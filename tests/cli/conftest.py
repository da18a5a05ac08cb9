"""The current folder of commands that are called within the process of the tests."""

from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.search.test_snapshot import make_store


@pytest.fixture
def workspace(environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and no MLflow settings, then and afterwards."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(workspace: Path) -> Path:
    """The folder of photos-1, a study of the current folder that has no trial yet."""
    make_store(workspace).close()
    return Workspace(workspace).studies / "photos-1"
