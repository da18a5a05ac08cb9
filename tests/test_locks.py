"""What the locks pin: no version of which a vulnerability is known to us, and all that setup.cfg asks for."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parent.parent


def pinned(lock):
    """Return the versions of each package in a lock; some have several, by version of Python."""
    versions = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", (TOP / lock).read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


def wanted(name):
    return [
        Requirement(line.split("#")[0]) for line in (TOP / name).read_text().splitlines() if line.split("#")[0].strip()
    ]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_no_pinned_version_has_a_vulnerability_that_we_know_of(lock):
    versions = pinned(lock)
    listed = wanted("advisories.txt")
    assert {canonicalize_name(each.name) for each in listed} <= versions.keys()
    affected = [f"{each} ({version})" for each in listed for version in versions[canonicalize_name(each.name)]
                if version not in each.specifier]  # fmt: skip
    assert affected == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_a_lock_has_what_setup_cfg_asks_for(lock):
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    asked = [Requirement(line) for line in setup["options"]["install_requires"].splitlines() if line and line[0] != "#"]
    versions = pinned(lock)
    lacking = [
        str(each)
        for each in asked
        if not any(v in each.specifier for v in versions.get(canonicalize_name(each.name), ()))
    ]
    assert lacking == []
