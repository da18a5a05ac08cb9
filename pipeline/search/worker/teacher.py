"""The best trial of the highest rung, from which the winner may learn: its weights are kept where a study distils."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.files import replacing
from pipeline.records import Params
from pipeline.search.jobs import TrainingJob


@dataclass(frozen=True)
class Teacher:
    """The best trial of the highest rung, whose weights are kept."""

    number: int
    score: float
    params: Params


def weights_path(folder: Path) -> Path:
    """Return where the weights of the teacher lie."""
    return folder / "weights.npz"


def answers_path(folder: Path, number: int) -> Path:
    """Return where the logits of a teacher lie, for the images of train and val."""
    return folder / f"t{number:05d}.npz"


def keep_if_best(job: TrainingJob, model: Any, score: float) -> None:
    """Keep the weights of a trial that has finished the highest rung, if the study distils and no other is better."""
    if not job.spec.distill or job.rung != job.spec.top_rung:
        return
    best, sign = read_teacher(job.folders.teacher), job.spec.ranking.sign
    if best is not None and sign * best.score >= sign * score:
        return
    about = json.dumps({"number": job.training, "score": score, "params": job.params})
    arrays = {f"weight{number:04d}": array for number, array in enumerate(model.get_weights())}
    with replacing(weights_path(job.folders.teacher)) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.array(about), **arrays)


def read_teacher(folder: Path) -> Teacher | None:
    """Return whose weights are kept; None without any, or if the file is damaged."""
    try:
        with np.load(weights_path(folder), allow_pickle=False) as stored:
            return Teacher(**json.loads(str(stored["about"])))
    except NPZ_ERRORS:
        return None
