"""A clean environment for each test and a tiny bundle."""

import os
from pathlib import Path

import pytest

from tests.tracking.fakes import tiny_bundle


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an environment without MLflow settings, and take back those that the code makes."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
