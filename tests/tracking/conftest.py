"""A clean environment for each test and a tiny bundle."""

from pathlib import Path

import pytest

from tests.tracking.fakes import tiny_bundle


@pytest.fixture(autouse=True)
def clean(environment: None) -> None:
    """Give each test an environment without MLflow settings."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on disk."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
