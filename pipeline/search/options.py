"""What a search is asked for: its options as a record, and which of them contradict each other."""

from dataclasses import dataclass

from pipeline.data.cache.folder import LIMIT_BYTES
from pipeline.data.cache.images import SpecOptions
from pipeline.errors import InvalidUsage
from pipeline.limits import Limits
from pipeline.machine import has_bfloat16


@dataclass(frozen=True)
class SearchOptions:
    """The options of `pipeline search`, by their names; a study remembers them. None leaves the choice to the program.

    `budget` is in seconds, `cache_limit` in bytes, `until` METRIC=NUMBER. `trials_per_gpu` may be "auto".
    """

    data: str
    space: str | None = None
    oracle: str = "asha"
    trials: int | None = None
    epochs: int | None = None
    budget: float | None = None
    until: str | None = None
    objective: str | None = None
    minimise: str | None = None
    max_params: int | None = None
    max_mflops: float | None = None
    max_size_mb: float | None = None
    max_latency_ms: float | None = None
    seed: int = 0
    deterministic: bool = False
    augment: str = "auto"
    balance: str = "auto"
    average_flips: bool = False
    distill: bool = False
    ensemble: bool = False
    precision: str = "auto"
    workers: int | None = None
    trials_per_gpu: int | str | None = None
    folds: int | None = None
    allow_leak: bool = False
    allow_host: tuple[str, ...] = ()
    source: str | None = None
    image_size: int | None = None
    background: str = "#000000"
    max_megapixels: int = 50
    max_megabytes: int = 64
    cache_limit: int = LIMIT_BYTES

    @property
    def limits(self) -> Limits:
        """What a network may cost."""
        return Limits(self.max_params, self.max_mflops, self.max_size_mb, self.max_latency_ms)

    @property
    def images(self) -> SpecOptions:
        """What is decided about the images."""
        return SpecOptions(self.image_size, self.background, self.max_megapixels, self.max_megabytes)

    @property
    def goal(self) -> tuple[str, float] | None:
        """The metric, and the value of it at which the search ends; None without."""
        metric, _, value = (self.until or "").partition("=")
        return (metric, float(value)) if metric else None


def check_options(options: SearchOptions) -> None:
    """Refuse options that contradict each other, or that this machine cannot follow.

    Raises:
        InvalidUsage: they do.
    """
    for check in (check_precision, check_averaging, check_distillation, check_ensemble, _check_goal):
        check(options)


def check_precision(options: SearchOptions) -> None:
    """Refuse bfloat16 where it would be emulated, many times slower.

    Raises:
        InvalidUsage: the machine does not compute in it.
    """
    if options.precision == "bfloat16" and not has_bfloat16():
        raise InvalidUsage(
            "--precision bfloat16: this machine has no GPU, and neither avx512_bf16 nor amx_bf16 among the flags in "
            "/proc/cpuinfo; leave --precision at auto"
        )


def check_averaging(options: SearchOptions) -> None:
    """Refuse to double the cost that is to be as small as possible.

    Raises:
        InvalidUsage: --average-flips with a second objective that counts work.
    """
    if options.average_flips and options.minimise in ("mflops", "latency"):
        raise InvalidUsage(
            f"--average-flips doubles the work, while --minimise {options.minimise} reduces it; leave one of them out"
        )


def check_distillation(options: SearchOptions) -> None:
    """Refuse to distil where no network could teach another.

    Raises:
        InvalidUsage: --distill without a second objective, or with folds.
    """
    if options.distill and options.minimise is None:
        raise InvalidUsage(
            "--distill: the winner is the best trial, and learns nothing from a worse one; expected --minimise, with "
            "which a cheaper one wins; add it, or leave --distill out"
        )
    if options.distill and options.folds is not None:
        raise InvalidUsage("--distill: with --folds no network has seen all training images; leave one of them out")


def check_ensemble(options: SearchOptions) -> None:
    """Refuse to multiply the cost that is to be as small as possible.

    Raises:
        InvalidUsage: --ensemble with a second objective.
    """
    if options.ensemble and options.minimise is not None:
        raise InvalidUsage(
            f"--ensemble uses two or three networks, while --minimise {options.minimise} looks for a cheap one; "
            "leave one of them out"
        )


def _check_goal(options: SearchOptions) -> None:
    """Refuse a goal in another metric than the one that trials are ranked by.

    Raises:
        InvalidUsage: --until and --objective name two.
    """
    if options.goal and options.objective not in (None, options.goal[0]):
        raise InvalidUsage(
            f"--until {options.until}: the objective is {options.objective}; "
            "use the same metric in --until and --objective"
        )
