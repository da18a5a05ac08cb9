"""What a worker is given to train, and what it gives back."""

import math
from dataclasses import dataclass

from pipeline.card import Baseline, Distillation, Ensemble, Evaluation, Latency
from pipeline.errors import TrialFailed
from pipeline.records import Params
from pipeline.spec import StudySpec
from pipeline.states import OutcomeState, TrainingId, trial_number
from pipeline.workspace import TrainingFolders


@dataclass(frozen=True)
class Chosen:
    """What was decided before a winner's last training: by which training it won, and what else answers or teaches."""

    winner: TrainingId = 0
    distillation: Distillation | None = None
    ensemble: Ensemble | None = None
    baseline: Baseline | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is to be, before it becomes an attempt: see `TrainingJob` for the fields that it passes on.

    `trial` is the trial whose network another training uses.
    """

    rung: int
    samples: int
    params: Params
    seconds_limit: float
    seconds_wanted: float = math.inf
    trial: int | None = None
    chosen: Chosen = Chosen()


@dataclass(frozen=True)
class TrainingJob:
    """Unit of work: a training to the end of `rung`, in which the network sees `samples` images.

    It holds all that a worker needs to know, wherever that runs: `spec` says what the study is, `folders` where images
    lie and files are kept, `chosen` what a last training follows from. `attempt` is the id of the row that was written
    before the work started. `seconds_limit` is the time after which the training stops at the next batch; one that
    would take longer than `seconds_wanted` is shortened, its learning rate with it. `num_micro_batches` > 1 cuts each
    batch into that many, whose gradients are added up. `first_step` is the number of the rung's first epoch when the
    epochs of all rungs are counted on.
    """

    spec: StudySpec
    folders: TrainingFolders
    attempt: int
    training: TrainingId
    rung: int
    samples: int
    params: Params
    seed: int
    seconds_limit: float
    first_step: int = 1
    num_micro_batches: int = 1
    seconds_wanted: float = math.inf
    is_final: bool = False  # the winner's training on train + validation
    chosen: Chosen = Chosen()

    @property
    def number(self) -> int:
        """The number of the trial, if it is one."""
        return trial_number(self.training)


@dataclass(frozen=True)
class Findings:
    """What a training found out beside its score.

    `latency` was measured before it, `epochs` are those that it saw. Only the last training of a winner has an
    `evaluation` and the `versions` that the saved model depends on.
    """

    latency: Latency | None = None
    epochs: int | None = None
    evaluation: Evaluation | None = None
    versions: dict[str, str] | None = None
    is_out_of_memory: bool = False
    is_disk_full: bool = False


@dataclass(frozen=True)
class TrialOutcome:
    """What became of a job. `score` is the objective's value at the end of the rung; None without one."""

    attempt: int
    training: TrainingId
    rung: int
    state: OutcomeState
    score: float | None = None
    reason: str = ""
    seconds: float = 0.0
    findings: Findings = Findings()

    @property
    def number(self) -> int:
        """The number of the trial, if it is one."""
        return trial_number(self.training)


class TooSlow(TrialFailed):
    """A network whose latency is over the limit: it does not train."""

    def __init__(self, reason: str, latency: Latency) -> None:
        super().__init__(OutcomeState.INFEASIBLE, reason)
        self.latency = latency
