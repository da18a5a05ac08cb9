"""How a budget becomes epochs, finalists and deadlines; and how long a trial will take, by arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.models.cost import Cost
from pipeline.space import complete

# Measured on 2 Zen 4 cores (TensorFlow 2.21, float32): benchmarks/README.md, "Speed of a trial".
FLOPS_PER_CORE = 45e9  # sustained in training, forward and backward
TRAIN_FORWARD_RATIO = 3.0  # a training step costs about three forward passes
SECONDS_PER_STEP = 0.004  # dispatch, whatever the network
SECONDS_PER_TRIAL = 1.5  # build, trace and the first step
STARTUP_SECONDS = 12.0  # imports of the children and of the parent, which overlap
IMPORT_SECONDS = 6.0  # of those, what is left when the images are decoded
CLOSING_SECONDS = 12.0  # test, model files, MLflow, registry

DEFAULT_BUDGET = 15 * 60.0
NUM_SCREENED = 12  # trials of the default network that the screening share is cut into
NUM_FINALISTS = 3
SCREENING_SHARE = 0.5  # of the working time; the rest is for finalists and the winner
MAX_EPOCHS = 100
MAX_STRETCH = 4.0  # a finalist trains at most this many times longer than in the screening
MIN_STRETCH = 1.5  # below this a longer training says little that is new
STRETCH_WITHOUT_BUDGET = 2.0
FINAL_IMAGES = 1.25  # the winner's last training sees train + validation: at most this many times the images
SAMPLES_WITHOUT_BUDGET = 600_000  # images a trial sees if only the number of trials is limited
SLOWEST_TRIAL = 3.0  # times the intended seconds of a trial; slower configurations are not proposed


@dataclass(frozen=True)
class Budget:
    """What a search may spend; seconds count from the start of the study, and are infinite if only trials are limited.

    Until `screening_until` new configurations are tried for `epochs` epochs; then the best train longer, and the winner
    last, until `end`; what is left up to `total` is for the test and the model.
    """

    total: float
    max_trials: int | None
    epochs: int
    screening_until: float
    end: float
    trial_seconds: float

    @property
    def slowest_trial(self) -> float:
        """Estimated seconds above which a configuration is too slow for this budget."""
        return SLOWEST_TRIAL * self.trial_seconds

    def stretch(self, elapsed: float, seconds: list[float]) -> float:
        """Return how many times longer than before finalists may train that took `seconds` each in the screening.

        All of them and then the slowest of them on train + validation fit before `end`; 0 if it is not worth it.
        """
        if math.isinf(self.end):
            return STRETCH_WITHOUT_BUDGET
        training = [max(value - SECONDS_PER_TRIAL, 0.1) for value in seconds]
        available = self.end - elapsed - (len(seconds) + 1) * SECONDS_PER_TRIAL
        stretch = min(MAX_STRETCH, MAX_EPOCHS / self.epochs, available / (sum(training) + FINAL_IMAGES * max(training)))
        return stretch if stretch >= MIN_STRETCH else 0.0


def estimate_seconds(cost: Cost, params: Mapping[str, Any], num_images: int, epochs: int, num_threads: int) -> float:
    """Return the estimated seconds of a trial: `epochs` passes over `num_images`, each followed by a validation."""
    compute = num_images * cost.flops * TRAIN_FORWARD_RATIO / (FLOPS_PER_CORE * num_threads)
    dispatch = SECONDS_PER_STEP * num_images / complete(params)["batch_size"]
    return SECONDS_PER_TRIAL + epochs * (compute + dispatch)


def plan_budget(
    seconds: float | None,
    max_trials: int | None,
    epoch_seconds: float,
    num_images: int,
    num_workers: int,
    start: float = STARTUP_SECONDS,
) -> Budget:
    """Divide a budget. `epoch_seconds` is the estimate for one epoch of a typical network; trials begin at `start`.

    With `max_trials` and no seconds the time is not limited and every trial sees SAMPLES_WITHOUT_BUDGET images.
    """
    if seconds is None and max_trials is not None:
        epochs = clamp(round(SAMPLES_WITHOUT_BUDGET / num_images), 3, MAX_EPOCHS // 4)
        return Budget(math.inf, max_trials, epochs, math.inf, math.inf, math.inf)
    total = seconds or DEFAULT_BUDGET
    end = max(total - CLOSING_SECONDS, 0.5 * total)
    screening = SCREENING_SHARE * max(end - start, 0.5 * end)
    trial_seconds = max(screening * num_workers / min(NUM_SCREENED, max_trials or NUM_SCREENED), SECONDS_PER_TRIAL)
    return Budget(
        total=total,
        max_trials=max_trials,
        epochs=clamp(round((trial_seconds - SECONDS_PER_TRIAL) / epoch_seconds), 1, MAX_EPOCHS // 2),
        screening_until=min(start + screening, 0.9 * end),
        end=end,
        trial_seconds=trial_seconds,
    )


def correction(estimated: list[float], measured: list[float]) -> float:
    """Return by what the estimates have to be multiplied on this machine: the median ratio, 1 without measurements."""
    ratios = [real / guess for guess, real in zip(estimated, measured, strict=True) if guess > 0]
    return median(ratios) if ratios else 1.0


def clamp(value: int, low: int, high: int) -> int:
    """Return the value, or the bound that it is beyond."""
    return max(low, min(high, value))
