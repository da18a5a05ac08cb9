"""What fits into the time that is left: how long trainings take on this machine, measured or estimated."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.limits import Limits
from pipeline.models.cost import Cost, ImpossibleNetwork
from pipeline.models.measure import measure
from pipeline.records import Params, TrialRow
from pipeline.search.timing.budget import (
    FINAL_IMAGES,
    MAX_EPOCHS_FACTOR,
    MIN_SAMPLES,
    RESTART_SECONDS,
    SECONDS_PER_TRIAL,
    TRAIN_FORWARD_RATIO,
    Budget,
    Parallelism,
    correction,
    estimate_seconds,
)
from pipeline.space import SearchSpace

# Judgements, where no source is named.
SLOWEST = 9.0  # times the seconds of a typical network for an image; slower configurations are not proposed
_LOWEST_POWER = 0.5  # of slowness, by which the images of the lowest rung are divided; 1 is equal time
PLANNED_PART = 0.93  # of the time left for the winner: a machine is not always as fast as it was before
HOPE = 1.5  # times that, which the winner begins with: what turns out to be too much is taken off while it trains
_MIN_HOPED_EPOCHS = 3  # of the winner; with fewer there is little left to shorten when the first one is over
LATE_SECONDS, LATE_PART = 5.0, 0.01  # a winner that is later than this, and this part of the budget, is cut off
MIN_SHRINK = 0.3  # of its highest rung: a winner that is late trains at least that long
_LEAST_TRAINING = 0.1  # of the seconds of a trial: a network that is compiled anew starts faster than was measured


@dataclass(frozen=True)
class StudyContext:
    """What is fixed for a study: space, images, seed, machine and limits.

    `num_images` are those that trials train on, `num_final_images` those of the winner's last training,
    `num_test_images` those of its test. `typical` is the configuration by which time is estimated; those of `portfolio`
    are tried first. `baseline` is that of the reference network, which trains beside the winner.
    """

    space: SearchSpace
    image_shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    num_final_images: int
    seed: int
    typical: Params
    portfolio: tuple[Params, ...] = ()
    baseline: Params | None = None
    parallelism: Parallelism = field(default_factory=lambda: Parallelism(1, 1))
    limits: Limits = field(default_factory=Limits)
    num_test_images: int = 0

    @property
    def num_val_images(self) -> int:
        """The images that trials are ranked by: those that only the winner trains on, or with folds all of them."""
        rest = self.num_final_images - self.num_images
        return rest if rest > 0 else self.num_final_images

    def starting_in(self, seconds: float) -> "StudyContext":
        """Return the same with another time in which a training starts."""
        return replace(self, parallelism=replace(self.parallelism, start_seconds=seconds))

    def cost(self, params: Params) -> Cost:
        """Return what the network of a configuration costs."""
        return measure(params, self.image_shape, self.num_classes, self.space.builder)

    def is_feasible(self, params: Params) -> bool:
        """Tell whether a configuration is a possible network within the limits that are known before it is built."""
        try:
            cost = self.cost(params)
            return not self.limits.broken_by(cost.num_params, cost.mflops)
        except ImpossibleNetwork:
            return False

    def estimate(self, params: Params, samples: int) -> float:
        """Return the estimated seconds of a training without its start, uncorrected."""
        return estimate_seconds(self.cost(params), params, samples, self.parallelism.flops)


@dataclass
class TimeEstimates:
    """Seconds of trainings, past and to come. `probed` corrects the estimates until trials were measured.

    `reserved` are the seconds that are kept for the reference network, until it is trained,
    `reserved_for_retraining` those in which the winner's network trains once more on train alone, until that is done.
    """

    context: StudyContext
    budget: Budget
    elapsed: Callable[[], float]
    probed: float
    measured: dict[int, float] = field(default_factory=dict)  # seconds for one image, by trial
    ratios: list[tuple[float, float]] = field(default_factory=list)  # estimated and measured seconds
    reserved: float = 0.0
    reserved_for_retraining: float = 0.0

    @property
    def kept(self) -> float:
        """The seconds that trials and the winner's last training must leave."""
        return self.reserved + self.reserved_for_retraining

    @property
    def start_seconds(self) -> float:
        """The seconds in which a network is built and compiled, each time that it is trained."""
        return self.context.parallelism.start_seconds

    def rung_samples(self, params: Params, rung: int) -> int:
        """Return the images that a configuration sees in a rung: under a time limit, slow networks see fewer.

        In the highest rung all that are slower than a typical network take its time: what is found there is what the
        winner's training gives for it. In the lowest, too short for slow networks to show what they can, one that is n
        times as slow takes sqrt(n) times as long. It follows from FLOPs and batch size alone, and so is the same after
        a resume.
        """
        full = self.budget.rungs[rung]
        if not self.budget.is_timed:
            return full
        top = len(self.budget.rungs) - 1
        height = rung % (top + 1) / top if top else 1.0
        power = _LOWEST_POWER + (1 - _LOWEST_POWER) * height
        return min(full, max(MIN_SAMPLES, round(full / self.slowness(params) ** power)))

    def slowness(self, params: Params) -> float:
        """Return how many times the seconds of a typical network a configuration takes for an image, as estimated."""
        return self.context.estimate(params, 1000) / self.context.estimate(self.context.typical, 1000)

    def note(self, number: int, params: Params, samples: int, seconds: float, rung: int = 0) -> None:
        """Learn from a finished training; what was compiled for the lowest rung serves those above."""
        start = self.start_seconds if rung == 0 else min(self.start_seconds, SECONDS_PER_TRIAL)
        training = max(seconds - start, _LEAST_TRAINING * seconds)
        self.measured[number] = training / samples
        self.ratios.append((self.context.estimate(params, samples), training))

    def training_seconds(self, params: Params, samples: int, number: int | None = None) -> float:
        """Return the seconds of a training: by what the trial took before, else estimated."""
        if number in self.measured:
            return self.start_seconds + samples * self.measured[number]
        return self.start_seconds + self.factor() * self.context.estimate(params, samples)

    def factor(self) -> float:
        """Return by what estimates have to be multiplied, by the latest trials."""
        recent = self.ratios[-50:]
        return correction([a for a, _ in recent], [b for _, b in recent]) if recent else self.probed

    def baseline_samples(self, seconds: float) -> int:
        """Return the images that the reference network sees in some seconds, with all cores."""
        context, samples = self.context, 1000
        params = context.baseline or {}
        cost = measure(params, context.image_shape, context.num_classes)  # a builder of the user has no part in it
        estimate = estimate_seconds(cost, params, samples, context.parallelism.flops)
        rate = samples * context.parallelism.final_speedup / (self.factor() * estimate)
        return max(0, int((seconds - self.start_seconds) * rate))

    def final_seconds(self, params: Params, samples: int, number: int | None = None) -> float:
        """Return the seconds of the winner's last training, on train + validation, with all cores."""
        parallelism = self.context.parallelism
        images = min(self.context.num_final_images / self.context.num_images, FINAL_IMAGES)
        training = self.training_seconds(params, round(samples * images), number) / parallelism.final_speedup
        return training + self.test_seconds(params, number) + RESTART_SECONDS * (parallelism.num_workers > 1)

    def test_seconds(self, params: Params, number: int | None = None) -> float:
        """Return the seconds of the winner's test, with all cores; a forward pass is all there is to it."""
        parallelism = self.context.parallelism
        image = (self.training_seconds(params, 1000, number) - self.start_seconds) / 1000
        return self.context.num_test_images * image / TRAIN_FORWARD_RATIO / parallelism.final_speedup

    def final_gain(self, row: TrialRow) -> float:
        """Return the seconds that the winner's last training saves with all cores, without the start of its process."""
        images = self.context.num_final_images / self.context.num_images
        alone = self.training_seconds(row.params, round(row.samples * images), row.number) - self.start_seconds
        return alone * (1 - 1 / self.context.parallelism.final_speedup)

    def seconds_before_final(self, row: TrialRow) -> float:
        """Return the seconds that are left before the last training must begin to see as many images as the trial did.

        They are infinite without a time limit.
        """
        last = self.final_seconds(row.params, row.samples, row.number)
        return self.budget.end - self.elapsed() - self.reserved - last

    def final_samples(self, row: TrialRow, num_networks: int = 1) -> int:
        """Return the images that the winner's network sees in its last training, in the time that is left.

        Several like it share that time. Without a time limit it takes as many passes as the highest rung.
        """
        most = self.most_final_samples(row)
        if not self.budget.is_timed:
            return round(most)
        full = self.rung_samples(row.params, -1)
        least = MIN_SHRINK * min(row.samples, full) / full
        factor = min(max(self.fitting_epochs_factor(row, num_networks), least), MAX_EPOCHS_FACTOR)
        return max(1, round(most * factor / MAX_EPOCHS_FACTOR))

    def fitting_epochs_factor(self, row: TrialRow, num_networks: int = 1) -> float:
        """Return how many times the passes of the highest rung fit into the time that is left under a time limit.

        It is below 0 where there is none.
        """
        full = self.rung_samples(row.params, -1)
        start = self.start_seconds + self.test_seconds(row.params, row.number)
        available = PLANNED_PART * (self.budget.end - self.elapsed() - self.kept - num_networks * start)
        restarts = (
            RESTART_SECONDS * (num_networks - 1) * (self.context.parallelism.num_workers > 1)
        )  # one process trains all
        needed = num_networks * (self.final_seconds(row.params, full, row.number) - start) - restarts
        return available / max(needed, 1e-6)

    def hoped_samples(self, row: TrialRow, num_networks: int = 1) -> int:
        """Return the images that the winner's last training begins with, which is shortened once its speed is known."""
        samples = self.final_samples(row, num_networks)
        is_long = samples >= _MIN_HOPED_EPOCHS * self.context.num_final_images
        if not (self.budget.is_timed and is_long):
            return samples
        return min(round(HOPE * samples), round(self.most_final_samples(row)))

    def most_final_samples(self, row: TrialRow) -> float:
        """Return the most images that the winner sees, however much time is left."""
        passes = self.rung_samples(row.params, -1) / self.context.num_images
        return passes * self.context.num_final_images * (MAX_EPOCHS_FACTOR if self.budget.is_timed else 1.0)

    def fits_final(self, row: TrialRow) -> bool:
        """Tell whether there is time to train a trial on train + validation for at least as long as it was trained."""
        if not self.budget.is_timed:
            return True
        available = PLANNED_PART * (self.budget.end - self.elapsed() - self.kept)
        return self.final_seconds(row.params, row.samples, row.number) <= available

    def final_limits(self, row: TrialRow, num_networks: int = 1) -> tuple[float, float]:
        """Return the seconds after which the winner's last training is cut off, and those in which it is to end.

        Both are infinite without a time limit.
        """
        if not self.budget.is_timed:
            return math.inf, math.inf
        test = num_networks * self.test_seconds(row.params, row.number)
        left = max(self.budget.end - self.elapsed() - test, self.start_seconds)
        return left + LATE_SECONDS + LATE_PART * self.budget.total, left

    def time_left(self, leader: TrialRow | None, part: float = 1.0) -> float:
        """Return the seconds until the last training of the leader must begin; infinite without a time limit.

        Of the length that it should have, `part` is kept.
        """
        if not self.budget.is_timed:
            return math.inf
        if leader is None:
            return self.budget.search_until - self.elapsed()
        samples = round(part * self.budget.final_epochs_factor * self.rung_samples(leader.params, -1))
        final = self.final_seconds(leader.params, samples, leader.number) + self.kept
        return self.budget.end - self.elapsed() - final

    def climb_seconds(self, leader: TrialRow | None) -> float:
        """Return the seconds in which the leader, or a typical network, reaches the highest rung."""
        if leader is None:
            return self.training_seconds(self.context.typical, self.budget.rungs[-1])
        return self.training_seconds(leader.params, self.rung_samples(leader.params, -1), leader.number)
