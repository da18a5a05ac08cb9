"""What a search needs of this machine, and what to do about what is missing."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import GateNotMet
from pipeline.machine import BACKENDS
from pipeline.workflows.progress import SILENT, Progress

_SYSTEMS = {"Linux": "Linux", "Darwin": "macOS"}
_MIN_PYTHON = (3, 11)
_END_OF_PYTHON = (3, 14)  # TensorFlow 2.21 has no wheels for 3.14
MIN_FREE_GIB = 2.0
CHILD_SECONDS = 120
DISTRIBUTION = "keras-image-pipeline"
SOURCE = Path(pipeline.__file__).parents[1]
OK, FAILED, INFORMATION = "ok", "failed", "information"

KERAS_SCRIPT = """
import json, os
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
facts = {"backend": keras.config.backend(), "version": keras.__version__, "why_no_gpu": ""}
try:
    facts["devices"] = list(keras.distribution.list_devices())
except Exception as error:
    facts["devices"], facts["why_no_gpu"] = [], f"{type(error).__name__}: {error}"
if facts["backend"] == "tensorflow" and not any("gpu" in name for name in facts["devices"]):
    import tensorflow as tf
    has_cuda = tf.test.is_built_with_cuda()
    facts["why_no_gpu"] = "no NVIDIA driver or libraries" if has_cuda else "this TensorFlow has no CUDA"
elif facts["backend"] == "jax" and not any("gpu" in name for name in facts["devices"]):
    facts["why_no_gpu"] = "this JAX sees no GPU"
print(json.dumps(facts))
"""
_STORE_SCRIPT = """
import json, os
from pathlib import Path
from pipeline.errors import TrackingError
from pipeline.tracking.store import open_client, public_uri
try:
    client = open_client(Path.cwd())
    client.search_experiments(max_results=1)
    print(json.dumps({"uri": public_uri(client.tracking_uri)}))
except TrackingError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report. `state` is ok, failed or information; `advice` is empty when all is well."""

    check: str
    state: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """All checks."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[Check]:
        """The checks that say that a search would not work."""
        return [check for check in self.checks if check.state == FAILED]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"ok": not self.failed, "checks": [asdict(check) for check in self.checks]}

    def require_success(self) -> None:
        """Raise GateNotMet if a check failed."""
        if names := ", ".join(check.check for check in self.failed):
            raise GateNotMet(f"failed: {names}; follow the advice and run it again")


def run(workspace: Path | None = None, progress: Progress = SILENT) -> DoctorReport:
    """Check system, Python, packages, devices, disk and the MLflow store, which is created if it is missing."""
    workspace = workspace or Path.cwd()
    progress.say("Checking; Keras and MLflow take up to 20 s to start.")
    return DoctorReport(
        (
            check_system(platform.uname()),
            check_python(platform.python_version()),
            _check_packages(),
            _check_keras(workspace),
            check_disk(workspace),
            check_writable(workspace),
            _check_store(workspace),
        )
    )


def check_system(found: platform.uname_result) -> Check:
    """Say which system this is; native Windows is refused before this point."""
    name = _SYSTEMS.get(found.system, found.system) + (" in WSL2" if "microsoft" in found.release.lower() else "")
    text = f"{name} {found.release}, {found.machine}"
    if found.system in _SYSTEMS:
        return Check("system", OK, text)
    return Check(
        "system", INFORMATION, text, "expected Linux, macOS, or Windows through WSL2; other systems are untested"
    )


def check_python(found: str) -> Check:
    """Check the version of Python."""
    major, minor = map(int, found.split(".")[:2])
    if _MIN_PYTHON <= (major, minor) < _END_OF_PYTHON:
        return Check("python", OK, found)
    first, end = (".".join(map(str, version)) for version in (_MIN_PYTHON, _END_OF_PYTHON))
    return Check("python", FAILED, found, f"install Python {first} or newer, but older than {end}")


def _check_packages() -> Check:
    """Check the installed packages against the lock beside the source, else against what the package declares."""
    lock = _lock_path()
    if lock.is_file():
        expected, source = locked_requirements(lock), lock.name
    else:
        expected, source = metadata.requires(DISTRIBUTION) or [], "the package's own metadata"
    wrong = mismatches(expected)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Check("packages", FAILED, "; ".join(wrong[:3]) + more, _setup_advice(lock))
    return Check("packages", OK, f"as in {source}")


def _lock_path() -> Path:
    """Return the lock beside the source that this environment was made of."""
    installed = {name for name in ("tensorflow", "tensorflow-cpu") if _is_installed(name)}
    return SOURCE / lock_name(installed, platform.machine())


def lock_name(installed: Collection[str], machine: str) -> str:
    """Return the name of the lock for a TensorFlow with or without CUDA.

    Where there is no tensorflow-cpu (only x86 has it), the lock without CUDA asks for tensorflow itself.
    """
    is_gpu = "tensorflow" in installed and "tensorflow-cpu" not in installed and machine in ("x86_64", "AMD64")
    return "requirements-gpu.lock" if is_gpu else "requirements.lock"


def _is_installed(name: str) -> bool:
    """Tell whether a distribution is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _setup_advice(lock: Path) -> str:
    """Return how to get the right packages into this very environment."""
    if not lock.is_file():
        return "install with pip what is expected"
    return f"run `{shlex.join([sys.executable, '-m', 'pip', 'install', '-r', str(lock)])}`"


def locked_requirements(lock: Path) -> list[str]:
    """Return the requirements of a lock file without its hashes and comments."""
    lines = (line.split(" \\")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def mismatches(requirements: Iterable[str]) -> list[str]:
    """Return what is missing or of another version, of the requirements that apply to this machine."""
    from packaging.requirements import Requirement

    wrong = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing (expected {requirement.specifier})")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found} (expected {requirement.specifier})")
    return wrong


def _check_keras(workspace: Path) -> Check:
    """Check that Keras and its backend start, and say which devices they see."""
    facts = ask_child(KERAS_SCRIPT, workspace)
    if "error" in facts:
        expected = ", ".join(BACKENDS)
        return Check(
            "keras",
            FAILED,
            facts["error"],
            f"{_setup_advice(_lock_path())}; or set KERAS_BACKEND to one of {expected} that is installed",
        )
    found = f"Keras {facts['version']} on {facts['backend']}: {', '.join(facts['devices']) or 'no devices'}"
    if any("gpu" in device.lower() for device in facts["devices"]):
        return Check("keras", OK, found)
    advice = "none needed on a CPU"
    if (SOURCE / "Makefile").is_file():
        advice += f"; on a machine with an NVIDIA GPU, run `{shlex.join(['make', '-C', str(SOURCE), 'setup-gpu'])}`"
    return Check("keras", INFORMATION, f"{found}; no GPU: {facts['why_no_gpu'] or 'none seen'}", advice)


def ask_child(script: str, workspace: Path) -> dict[str, Any]:
    """Run a script in another process and return the JSON object of its last line, or {"error": ...}.

    Heavy packages stay out of this process, and one that hangs or crashes is a finding.
    """
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    # Without PYTHONSAFEPATH, a keras.py in the workspace would be imported.
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=workspace,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {CHILD_SECONDS} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return {"error": lines[-1][:300]}
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def check_disk(workspace: Path) -> Check:
    """Check the free space of the disk that holds the workspace."""
    free = shutil.disk_usage(workspace).free / 2**30
    found = f"{free:.1f} GiB free"
    if free >= MIN_FREE_GIB:
        return Check("disk", OK, found)
    return Check("disk", FAILED, found, f"free {MIN_FREE_GIB:.0f} GiB, or work in a folder on another disk")


def check_writable(workspace: Path) -> Check:
    """Check that files can be made here."""
    try:
        with tempfile.NamedTemporaryFile(dir=workspace, prefix=".pipeline-doctor-"):
            return Check("workspace", OK, str(workspace))
    except OSError as error:
        return Check("workspace", FAILED, f"{workspace}: {error.strerror}", "work in a folder that you can write to")


def _check_store(workspace: Path) -> Check:
    """Check that the MLflow store opens, and that no older kind of store is in the way."""
    facts = ask_child(_STORE_SCRIPT, workspace)
    if "error" in facts:
        return Check("mlflow", FAILED, facts["error"], "see what was found")
    return Check("mlflow", OK, f"MLflow {metadata.version('mlflow')} at {facts['uri']}")
