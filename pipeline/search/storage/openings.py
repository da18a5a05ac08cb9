"""How often test images were opened in a workspace, by content, in any study; one line for each opening."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.splits.dataset import TEST
from pipeline.data.splits.manifest import sha256_of
from pipeline.workspace import StudyFolder


def openings_path(folder: StudyFolder, digests: NDArray[np.uint8]) -> Path:
    """Return where the openings of test images are noted; `digests` are their SHA-256, uint8 (num_images, 32)."""
    key = sha256_of(np.sort(np.ascontiguousarray(digests).view("V32").ravel()))
    return folder.openings / f"{key[:32]}.jsonl"


def note_opening(folder: StudyFolder, attempt: int) -> None:
    """Record that a training is about to open the test images; that counts even if the training fails."""
    path = openings_path(folder, _digests_of_test(folder))
    path.parent.mkdir(exist_ok=True)
    line = {"study": folder.name, "attempt": attempt, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def count_openings(folder: StudyFolder) -> int:
    """Return how often the test images of a study were looked at, by any study of this workspace."""
    path = openings_path(folder, _digests_of_test(folder))
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def _digests_of_test(folder: StudyFolder) -> NDArray[np.uint8]:
    """Return the SHA-256 of the test images of a study, uint8 (num_images, 32)."""
    return np.asarray(np.load(folder.data / "sha256.npy")[np.load(folder.data / "splits.npy") == TEST])
