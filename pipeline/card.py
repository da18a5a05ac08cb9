"""What is known of a finished model, as model.json, the terminal and MLflow show it: records, and no behaviour.

A new figure is a field here, one place that computes it, and a line in each renderer that shows it: `reports/summary`,
`tracking/figures` and `docs/reference.md`. How records become JSON is said in `json_records`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.json_records import EMPTY, FLAT, from_json, to_json
from pipeline.records import ImageSpec, Params

Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval; None with a `reason` where one of them is undefined."""

    value: float | None
    ci95: Interval | None
    reason: str | None = None


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is recognised: of `num_images` that have it, against all others.

    `precision` is the share of the images answered to have the class that do, `recall` that of the images that have it
    which are answered so, each with its Wilson interval; None where there is no such image. `auc` has the interval
    `ci95`, or None and the `reason`.
    """

    num_images: int
    auc: float | None
    ci95: Interval | None
    precision: float | None
    recall: float | None
    precision_ci95: Interval | None = None
    recall_ci95: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """By how much a model is better than another on the same images, in one metric.

    `value` is that of the other, `gain` the difference with its 95 % interval and its standard error. What is undefined
    is None, and `reason` says why.
    """

    metric: str
    value: float | None
    gain: float | None
    ci95: Interval | None
    standard_error: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ClosestClass:
    """The class, by number, that comes closest to enough test images for an AUC: how many have it, how many do not."""

    number: int = field(metadata={"key": "class"})
    num_with: int = 0
    num_without: int = 0


@dataclass(frozen=True)
class Majority(Comparison):
    """A model against the blind answer: class `number`, or `classes` where an image may have several labels."""

    is_beaten: bool = False
    number: int | None = field(default=None, metadata={"key": "class"})
    classes: tuple[int, ...] | None = None
    closest: ClosestClass | None = None


@dataclass(frozen=True)
class Leaked:
    """Test images that have a copy in train or val, and the accuracy if they counted."""

    num_images: int
    accuracy_with: float


@dataclass(frozen=True)
class NotFinite:
    """Test images for which the network gives NaN or infinity, and the names of the first of them."""

    num_images: int
    images: tuple[str, ...]


@dataclass(frozen=True)
class TestResult:
    """What the test images said: the accuracy with its Wilson interval, and the other figures by name.

    Images that leak or whose logits are not finite do not count.
    """

    accuracy: float
    ci95: Interval
    num_images: int
    metrics: dict[str, Figure] = field(default_factory=dict)
    majority: Majority | None = None
    leaked: Leaked | None = None
    not_finite: NotFinite | None = None

    __test__ = False  # it is no test, whatever pytest reads in its name


@dataclass(frozen=True)
class Baseline:
    """The reference network; where it was not trained, `reason` says why."""

    reason: str
    params: Params | None = None
    num_params: int | None = None
    mflops: float | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class SearchGain:
    """The winner against the reference network; without a `comparison` the baseline says why.

    It is a gain if the whole interval of the difference is above 0.
    """

    baseline: Baseline = field(metadata=FLAT)
    comparison: Comparison | None = field(default=None, metadata=FLAT)
    is_gain: bool | None = None


@dataclass(frozen=True)
class FittedOn:
    """The validation images that a temperature was fitted to, and their cross-entropy without it and with it."""

    num_images: int
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class CalibrationErrors:
    """Expected calibration error and cross-entropy on the test images, without a temperature and with it."""

    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class Calibration:
    """The temperature by which logits are divided; 1 where it was not kept, and `reason` says why."""

    value: float
    reason: str = ""
    validation: FittedOn | None = None
    test: CalibrationErrors | None = None
    num_bins: int | None = None


@dataclass(frozen=True)
class Robustness:
    """The accuracy on `num_images` test images as they are, moved by pixels (a text), and after each other change."""

    num_images: int
    accuracy: float
    shifts: dict[str, float]
    changes: dict[str, float]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, with all threads of a machine and on one core (None where none can be chosen)."""

    default_ms: float
    one_core_ms: float | None


@dataclass(frozen=True)
class SliceFigures:
    """The accuracy on the test images of one value of a further column of the table."""

    accuracy: float
    ci95: Interval
    num_images: int


@dataclass(frozen=True)
class Decision:
    """Whether something that validation images decide is done, and if not the `reason` why.

    `alone` is the objective on the validation images without it, `value` the one with it; None where not measured.
    """

    is_kept: bool
    reason: str = ""
    alone: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class FlipAverage(Decision):
    """Whether the model answers with the mean for an image and its mirror image."""

    value: float | None = field(default=None, metadata={"key": "averaged"})


@dataclass(frozen=True)
class Distillation(Decision):
    """Whether the winner, trial `student`, learns what another trial, `teacher`, says of the images."""

    value: float | None = field(default=None, metadata={"key": "taught"})
    student: int | None = None
    teacher: int | None = None


@dataclass(frozen=True)
class Ensemble(Decision):
    """Whether `num_networks` networks like that of trial `winner` answer together.

    `value` is the objective of the mean of two. Each sees `samples` images in the last training, in `epochs`.
    """

    value: float | None = field(default=None, metadata={"key": "averaged"})
    winner: int | None = None
    num_networks: int | None = None
    samples: int | None = None
    epochs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about a winner: what its last training adds to model.json and to the result of a search.

    `by_class` has the figures of each class, `confusion` how many test images of a class got which answer (none where
    an image may have several labels, and no zeros), both by names. `slices` are by column and value, the worst first.
    What earlier versions did not measure is None, and so is the `test` of a model that no search made.
    """

    test: TestResult | None = None
    validation: Figure | None = field(default=None, metadata=EMPTY)
    flip_average: FlipAverage | None = None
    distillation: Distillation | None = None
    ensemble: Ensemble | None = None
    temperature: Calibration | None = None
    search_gain: SearchGain | None = None
    robustness: Robustness | None = None
    latency: Latency | None = None
    slices: dict[str, dict[str, SliceFigures]] = field(default_factory=dict)
    by_class: dict[str, ClassFigures] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] | None = None
    planned_epochs: int | None = None

    @property
    def tested(self) -> TestResult:
        """The test, of a model that a search made."""
        if self.test is None:
            raise ValueError("the model was not tested")
        return self.test

    @property
    def num_networks(self) -> int:
        """How many networks answer together."""
        return num_networks(self.ensemble)

    @property
    def num_views(self) -> int:
        """How often the networks look at an image: twice where they answer with the mean for its mirror image too."""
        return 2 if self.flip_average is not None and self.flip_average.is_kept else 1


def num_networks(ensemble: Ensemble | None) -> int:
    """Return how many networks answer together."""
    return (ensemble.num_networks or 1) if ensemble is not None and ensemble.is_kept else 1


@dataclass(frozen=True)
class ModelCard:
    """The schema of model.json: what a model is, where it comes from, and what is known of it.

    `score` is the value of `objective` on the validation images.
    """

    classes: tuple[str, ...]
    image: ImageSpec
    is_multi_label: bool = False
    params: Params = field(default_factory=dict)
    num_params: int | None = None
    mflops: float | None = None
    epochs: int | None = None
    study: str | None = None
    trial: int | None = None
    data_fingerprint: str | None = None
    objective: str | None = None
    score: float | None = None
    evaluation: Evaluation = field(default_factory=Evaluation, metadata=FLAT)
    versions: dict[str, str] | None = None
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what model.json holds; the key of the score is the name of the objective."""
        nothing = {} if self.objective is None else {self.objective: None}
        return nothing | with_score(to_json(self), self.objective)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "ModelCard":
        """Return what model.json says.

        Raises:
            ValueError: a key is missing or of another type; the message names it.
        """
        return from_json(cls, without_score(facts, facts.get("objective")))

    @property
    def temperature(self) -> float:
        """By which logits are divided before they become probabilities; 1 for a model without one."""
        calibration = self.evaluation.temperature
        return 1.0 if calibration is None else calibration.value


def with_score(facts: Mapping[str, Any], objective: str | None) -> dict[str, object]:
    """Return facts in which the score has the name of its objective."""
    return {objective if name == "score" and objective else name: value for name, value in facts.items()}


def without_score(facts: Mapping[str, Any], objective: str | None) -> dict[str, object]:
    """Return what `with_score` was given."""
    return {"score" if name == objective else name: value for name, value in facts.items()}
