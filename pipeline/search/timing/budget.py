"""How a budget becomes rungs and deadlines, and how long a training will take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.models.cost import Cost
from pipeline.space import recipe

# Measured on 2 Zen 4 cores (TensorFlow 2.21, float32): benchmarks/README.md, "Speed of a trial". A probe corrects them.
_FLOPS_PER_CORE = 45e9  # sustained in training, forward and backward
# Measured on an H200 in bfloat16 at batch 512: 120e12 with convolutions of 128 to 512 filters (benchmarks/gpu.md).
_FLOPS_PER_GPU = 100e12  # narrow networks reach less, but there the time for the steps is most of a training
# Measured on one Zen 4 core in bfloat16: 11 to 12 with kernels of 3 x 3, 20 with 5 x 5 (docs/recipe.md, "Speed").
DEPTHWISE_SLOWNESS = 15.0  # times the seconds of other FLOPs
TRAIN_FORWARD_RATIO = 3.0  # a training step costs about three forward passes
SECONDS_PER_STEP = 0.004  # dispatch, whatever the network
SECONDS_PER_TRIAL = 1.5  # build, trace and the first step, at least; compiling for a GPU takes longer
STARTUP_SECONDS = 12.0  # imports of the children, with the decoding of the images beside them
CLOSING_SECONDS = 12.0  # test, model files, MLflow, registry
RESTART_SECONDS = 10.0  # the winner gets a fresh process with all cores

# A probe neither reads images nor validates: trainings of Fashion-MNIST took 1.4 times as long (2 cores, n = 1).
PROBE_FACTOR = 1.4

DEFAULT_BUDGET = 15 * 60.0
REDUCTION = 3  # a rung has three times the samples of the one below; Li et al. 2020 (ASHA) find 3 and 4 best
_NUM_RUNGS = 3
_FULL_TRIALS = {True: 4.0, False: 10.0}
"""Into how many trainings to the highest rung the time is cut, with and without lower rungs.

With rungs a configuration costs a quarter to a third of one on average, so 4 of them are some 12 to 16 configurations.
"""
_MAX_EPOCHS = 100
_SAMPLES_WITHOUT_BUDGET = 600_000  # images a trial sees if only the number of trials is limited
MIN_SAMPLES = 512  # of the lowest rung: fewer say nothing
FINAL_EPOCHS_FACTOR = 1.5  # the winner is to train that many times longer than in the highest rung: a judgement
ENSEMBLE_EPOCHS_FACTOR = 3.0  # with an ensemble: three networks as long as there, or the winner alone for MAX_STRETCH
MIN_PASSES = 20.0  # of each network of an ensemble over its images; with fewer, one that trains as long as all do is
# better (docs/recipe.md)
MAX_EPOCHS_FACTOR = 3.0  # and at most this many times, if time is left
BASELINE_PART = 0.08  # of the budget, at most, for the reference network that trains beside the winner
MIN_BASELINE_SECONDS = 10.0  # a shorter share trains nothing that a winner could be compared with
_STUDENT_PART = 1.3  # of a training of the highest rung, in which a network learns from a better trial: a judgement
_TWIN_PART = 1.0  # of one, in which the winner's network trains once more, to see what a mean is worth
LEADER_PART = 0.5  # of its stretch, that is kept for the best trial where the knee of the front wins: a judgement
FINAL_IMAGES = 1.25  # the winner sees train + validation: at most this many times the images, as a rule


@dataclass(frozen=True)
class Budget:
    """What a search may spend; seconds count from the start of the study, and are infinite if only trials are limited.

    `rungs` are the images that a trial sees in each rung, the last one its full training. Until `search_until` trials
    run; then the winner's network trains once more on train alone, to learn from a better trial or to be averaged, for
    `retrain_seconds` (0 without distillation and ensemble), the reference network for `baseline_seconds` at most (0 if
    there is none), and the winner until `end`; what is left up to `total` is for the test and the model.
    `final_epochs_factor` is how many times longer than in the highest rung the winner is to train.
    """

    total: float
    max_trials: int | None
    rungs: tuple[int, ...]
    search_until: float
    end: float
    baseline_seconds: float = 0.0
    retrain_seconds: float = 0.0
    final_epochs_factor: float = FINAL_EPOCHS_FACTOR

    @property
    def is_timed(self) -> bool:
        """Whether there is a time limit."""
        return not math.isinf(self.total)


@dataclass(frozen=True)
class Parallelism:
    """Who trains: `num_workers` children at once, each with `num_threads` threads; the winner gets all cores.

    `final_speedup` is how many times faster that one is than a child of the search. `has_gpus` tells whether children
    train on GPUs. `start_seconds` are those in which a network is built and compiled.
    """

    num_workers: int
    num_threads: int
    final_speedup: float = 1.0
    has_gpus: bool = False
    start_seconds: float = SECONDS_PER_TRIAL

    @property
    def flops(self) -> float:
        """FLOPs in a second that a child is taken to sustain in training."""
        return _FLOPS_PER_GPU if self.has_gpus else _FLOPS_PER_CORE * self.num_threads


def estimate_seconds(cost: Cost, params: Mapping[str, Any], samples: int, flops: float) -> float:
    """Return the estimated seconds in which a network sees `samples` images, without its start, uncorrected."""
    work = cost.flops + (DEPTHWISE_SLOWNESS - 1) * cost.depthwise_flops
    compute = samples * work * TRAIN_FORWARD_RATIO / flops
    return compute + SECONDS_PER_STEP * samples / recipe(params)["batch_size"]


@dataclass(frozen=True)
class BudgetRequest:
    """What a search is to do in which time, and what that takes here.

    `seconds` is the budget, None for the default one or, with `max_trials` or `num_epochs`, for none at all.
    `num_epochs` fixes the full training. `sample_seconds` is the time of a typical network for one image; trials begin
    at `start`. `has_rungs` tells whether weak trials are stopped early.
    """

    seconds: float | None
    max_trials: int | None
    num_epochs: int | None
    sample_seconds: float
    num_images: int
    has_rungs: bool
    parallelism: Parallelism
    start: float = STARTUP_SECONDS
    has_baseline: bool = False
    has_student: bool = False
    has_ensemble: bool = False

    @property
    def retrainings(self) -> float:
        """How many trainings of the highest rung follow the trials before the last one."""
        return _STUDENT_PART * self.has_student + _TWIN_PART * self.has_ensemble

    @property
    def restart_seconds(self) -> float:
        """The seconds in which a process with all cores starts for the winner."""
        return RESTART_SECONDS * (self.parallelism.num_workers > 1)


def plan_budget(request: BudgetRequest) -> Budget:
    """Divide a budget; without seconds, but with a number of trials or epochs, the time is not limited."""
    if request.seconds is None and (request.max_trials is not None or request.num_epochs is not None):
        epochs = request.num_epochs or _clamp(round(_SAMPLES_WITHOUT_BUDGET / request.num_images), 3, _MAX_EPOCHS // 4)
        rungs = rung_samples(epochs * request.num_images, request.has_rungs)
        return Budget(math.inf, request.max_trials, rungs, math.inf, math.inf)
    parallelism, total = request.parallelism, request.seconds or DEFAULT_BUDGET
    end = max(total - CLOSING_SECONDS, 0.5 * total)
    share = BASELINE_PART * total
    baseline_seconds = share if request.has_baseline and share >= MIN_BASELINE_SECONDS else 0.0
    working = max(end - request.start - baseline_seconds - request.restart_seconds, 0.3 * total)
    final_epochs_factor = ENSEMBLE_EPOCHS_FACTOR if request.has_ensemble else FINAL_EPOCHS_FACTOR
    final_part = final_epochs_factor * FINAL_IMAGES / parallelism.final_speedup
    retrain_part = request.retrainings / parallelism.final_speedup
    full_seconds = working / (_num_full_trials(request) / parallelism.num_workers + final_part + retrain_part)
    full = _full_samples(request, full_seconds)
    final_seconds = parallelism.start_seconds + final_part * full * request.sample_seconds + request.restart_seconds
    retrain_seconds = parallelism.start_seconds + retrain_part * full * request.sample_seconds if retrain_part else 0.0
    return Budget(
        total=total,
        max_trials=request.max_trials,
        rungs=rung_samples(full, request.has_rungs),
        search_until=max(end - final_seconds - baseline_seconds - retrain_seconds, 0.4 * end),
        end=end,
        baseline_seconds=baseline_seconds,
        retrain_seconds=retrain_seconds,
        final_epochs_factor=final_epochs_factor,
    )


def _num_full_trials(request: BudgetRequest) -> float:
    """Return into how many trainings to the highest rung the time is cut."""
    number = _FULL_TRIALS[request.has_rungs]
    return number if request.max_trials is None else max(1.0, number * min(1.0, request.max_trials / 12))


def _full_samples(request: BudgetRequest, seconds: float) -> int:
    """Return the images that a trial sees in the highest rung, which is to take some seconds."""
    if request.num_epochs:
        return request.num_epochs * request.num_images
    samples = int(max(seconds - request.parallelism.start_seconds, 0.1) / request.sample_seconds)
    return min(_MAX_EPOCHS * request.num_images, max(samples, MIN_SAMPLES))


def least_seconds(request: BudgetRequest) -> float:
    """Return the shortest budget in which a search finds anything: one trial, the last training, test and model.

    Each training sees MIN_SAMPLES images.
    """
    start_seconds, samples = request.parallelism.start_seconds, MIN_SAMPLES * request.sample_seconds
    last = start_seconds + FINAL_IMAGES * samples / request.parallelism.final_speedup
    return request.start + start_seconds + samples + request.restart_seconds + last + CLOSING_SECONDS


def rung_samples(full: int, has_rungs: bool) -> tuple[int, ...]:
    """Return the samples of each rung: `full`, and below it a third of that each time; fewer rungs if it is small."""
    rungs = [full]
    while has_rungs and len(rungs) < _NUM_RUNGS and rungs[0] // REDUCTION >= MIN_SAMPLES:
        rungs.insert(0, rungs[0] // REDUCTION)
    return tuple(rungs)


def correction(estimated: list[float], measured: list[float]) -> float:
    """Return by what the estimates have to be multiplied on this machine: the median ratio, 1 without measurements."""
    ratios = [real / guess for guess, real in zip(estimated, measured, strict=True) if guess > 0]
    return median(ratios) if ratios else 1.0


def _clamp(value: int, low: int, high: int) -> int:
    """Return the value, or the bound that it is beyond."""
    return max(low, min(high, value))
