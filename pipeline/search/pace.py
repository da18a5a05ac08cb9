"""What fits into the time that is left: how long trainings take on this machine, measured or estimated."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.models.cost import Cost, ImpossibleNetwork, measure
from pipeline.records import TrialRow
from pipeline.search.budget import (
    FINAL_IMAGES,
    MAX_STRETCH,
    MIN_SAMPLES,
    RESTART_SECONDS,
    SECONDS_PER_TRIAL,
    Budget,
    Workforce,
    correction,
    estimate_seconds,
)
from pipeline.space import SearchSpace

SLOWEST_TRIAL = 3.0  # times the seconds of a typical network; slower configurations are not proposed
PLANNED_PART = 0.93  # of the time left for the winner: a machine is not always as fast as it was before
LATE_SECONDS, LATE_PART = 5.0, 0.01  # a winner that is later than this, and this part of the budget, is cut off
MIN_SHRINK = 0.3  # of its highest rung: a winner that is late trains at least that long


@dataclass(frozen=True)
class Limits:
    """What a network may cost at most; None is no limit. The latency is measured, on one core, before it trains."""

    max_params: int | None = None
    max_mflops: float | None = None
    max_size_mb: float | None = None
    max_latency_ms: float | None = None

    def broken_by(self, cost: Cost) -> str:
        """Return which limit a network breaks, as text; empty if none."""
        size_mb = cost.num_params * 4 / 1e6
        checks = (
            ("parameters", cost.num_params, self.max_params),
            ("MFLOPs", cost.mflops, self.max_mflops),
            ("MB", size_mb, self.max_size_mb),
        )
        return "; ".join(
            f"{value:,.6g} {what}, more than {limit:,.6g}"
            for what, value, limit in checks
            if limit is not None and value > limit
        )


@dataclass(frozen=True)
class Terms:
    """What is fixed for a study: space, images, seed, machine and limits.

    `num_images` are those that trials train on, `num_final_images` those of the winner's last training. `typical` is
    the configuration by which time is estimated; those of `portfolio` are tried first. `baseline` is that of the
    default network that trains beside the winner.
    """

    space: SearchSpace
    image_shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    num_final_images: int
    seed: int
    typical: dict[str, Any]
    portfolio: tuple[dict[str, Any], ...] = ()
    baseline: dict[str, Any] | None = None
    workforce: Workforce = field(default_factory=lambda: Workforce(1, 1))
    limits: Limits = field(default_factory=Limits)

    @property
    def num_val_images(self) -> int:
        """The images that trials are ranked by: those that only the winner trains on, or with folds all of them."""
        rest = self.num_final_images - self.num_images
        return rest if rest > 0 else self.num_final_images

    def cost(self, params: Mapping[str, Any]) -> Cost:
        """Return what the network of a configuration costs."""
        return measure(params, self.image_shape, self.num_classes, self.space.builder)

    def is_feasible(self, params: Mapping[str, Any]) -> bool:
        """Tell whether a configuration is a possible network within the limits that are known before it is built."""
        try:
            return not self.limits.broken_by(self.cost(params))
        except ImpossibleNetwork:
            return False

    def estimate(self, params: Mapping[str, Any], samples: int) -> float:
        """Return the estimated seconds of a training without its start, uncorrected."""
        return estimate_seconds(self.cost(params), params, samples, self.workforce.num_threads)


@dataclass
class Pace:
    """Seconds of trainings, past and to come. `probed` corrects the estimates until trials were measured.

    `reserved` are the seconds that are kept for the default network, until it is trained.
    """

    terms: Terms
    budget: Budget
    elapsed: Callable[[], float]
    probed: float
    measured: dict[int, float] = field(default_factory=dict)  # seconds for one image, by trial
    ratios: list[tuple[float, float]] = field(default_factory=list)  # estimated and measured seconds
    reserved: float = 0.0

    def rung_samples(self, params: Mapping[str, Any], rung: int) -> int:
        """Return the images that a configuration sees in a rung: under a time limit, slow networks see fewer.

        One that is n times as slow as a typical network sees sqrt(n) times fewer images, and so takes sqrt(n) times as
        long: between equal images, which is unfair to the time, and equal time, which is unfair to networks that need
        more of it than a low rung gives. It follows from FLOPs and batch size alone, and so is the
        same after a resume.
        """
        full = self.budget.rungs[rung]
        if not self.budget.is_timed:
            return full
        slowness = self.terms.estimate(params, 1000) / self.terms.estimate(self.terms.typical, 1000)
        return min(full, max(MIN_SAMPLES, round(full / math.sqrt(slowness))))

    def note(self, number: int, params: Mapping[str, Any], samples: int, seconds: float) -> None:
        """Learn from a finished training."""
        training = max(seconds - SECONDS_PER_TRIAL, 1e-6)
        self.measured[number] = training / samples
        self.ratios.append((self.terms.estimate(params, samples), training))

    def training_seconds(self, params: Mapping[str, Any], samples: int, number: int | None = None) -> float:
        """Return the seconds of a training: by what the trial took before, else estimated."""
        if number in self.measured:
            return SECONDS_PER_TRIAL + samples * self.measured[number]
        return SECONDS_PER_TRIAL + self.factor() * self.terms.estimate(params, samples)

    def factor(self) -> float:
        """Return by what estimates have to be multiplied, by the latest trials."""
        recent = self.ratios[-50:]
        return correction([a for a, _ in recent], [b for _, b in recent]) if recent else self.probed

    def baseline_samples(self, seconds: float) -> int:
        """Return the images that the default network sees in some seconds, with all cores."""
        terms, samples = self.terms, 1000
        params = terms.baseline or {}
        cost = measure(params, terms.image_shape, terms.num_classes)  # a builder of the user has no part in it
        estimate = estimate_seconds(cost, params, samples, terms.workforce.num_threads)
        rate = samples * terms.workforce.final_speedup / (self.factor() * estimate)
        return max(0, int((seconds - SECONDS_PER_TRIAL) * rate))

    def final_seconds(self, params: Mapping[str, Any], samples: int, number: int | None = None) -> float:
        """Return the seconds of the winner's last training, on train + validation, with all cores."""
        workforce = self.terms.workforce
        images = min(self.terms.num_final_images / self.terms.num_images, FINAL_IMAGES)
        training = self.training_seconds(params, round(samples * images), number) / workforce.final_speedup
        return training + RESTART_SECONDS * (workforce.num_workers > 1)

    def final_gain(self, row: TrialRow) -> float:
        """Return the seconds that the winner's last training saves with all cores, without the start of its process."""
        images = self.terms.num_final_images / self.terms.num_images
        alone = self.training_seconds(row.params, round(row.samples * images), row.number) - SECONDS_PER_TRIAL
        return alone * (1 - 1 / self.terms.workforce.final_speedup)

    def final_samples(self, row: TrialRow) -> int:
        """Return the images that the winner sees in its last training: as many passes as in the highest rung.

        More of them when time is left, fewer when it is late.
        """
        full = self.rung_samples(row.params, -1)
        images = self.terms.num_final_images / self.terms.num_images
        if not self.budget.is_timed:
            return round(full * images)
        available = PLANNED_PART * (self.budget.end - self.elapsed() - self.reserved - SECONDS_PER_TRIAL)
        needed = self.final_seconds(row.params, full, row.number) - SECONDS_PER_TRIAL
        least = MIN_SHRINK * min(row.samples, full) / full
        stretch = min(max(available / max(needed, 1e-6), least), MAX_STRETCH)
        return max(1, round(full * images * stretch))

    def fits_final(self, row: TrialRow) -> bool:
        """Tell whether there is time to train a trial on train + validation for at least as long as it was trained."""
        if not self.budget.is_timed:
            return True
        available = PLANNED_PART * (self.budget.end - self.elapsed() - self.reserved)
        return self.final_seconds(row.params, row.samples, row.number) <= available

    def final_limit(self) -> float:
        """Return the seconds after which the winner's last training is cut off; infinite without a time limit."""
        if not self.budget.is_timed:
            return math.inf
        late = LATE_SECONDS + LATE_PART * self.budget.total
        return max(self.budget.end - self.elapsed(), SECONDS_PER_TRIAL) + late

    def time_left(self, leader: TrialRow | None) -> float:
        """Return the seconds until the last training of the leader must begin; infinite without a time limit."""
        if not self.budget.is_timed:
            return math.inf
        if leader is None:
            return self.budget.search_until - self.elapsed()
        full = self.rung_samples(leader.params, -1)
        final = self.final_seconds(leader.params, full, leader.number) + self.reserved
        return self.budget.end - self.elapsed() - final
