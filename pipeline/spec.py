"""What a study is: its data, space, objective, limits and recipe, as they were written when it began."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.json_records import from_json, to_json
from pipeline.limits import Limits
from pipeline.records import ImageSpec, Objective

_SWITCHES = ("average_flips", "distill", "ensemble")
"""Parts of the recipe that the file of a study keeps among the options of its command line."""


@dataclass(frozen=True)
class StudySpec:
    """What a study is. Its file holds a fact of each name but `image_shape`; what has a default came later.

    `fingerprint` is that of the data, `source` where they come from, `cache` the folder of the decoded images, `space`
    the whole space as JSON, `param_names` each hyperparameter in it. `mean` and `std` are those of the pixels, one a
    channel. `rungs` are the images that a trial sees in each. `balance` is "logits" where rare classes count as much
    as common ones.
    """

    study: str
    dataset: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    image: ImageSpec
    num_images: dict[str, int]
    oracle: str
    objective: str
    seed: int
    versions: dict[str, str]
    cache: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    param_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    minimise: str | None = None
    limits: Limits = field(default_factory=Limits)
    folds: int = 0
    is_multi_label: bool = False
    is_deterministic: bool = False
    balance: str | None = None
    rungs: tuple[int, ...] = ()
    precision: str = "float32"
    allows_flips: bool = True
    forked_from: str | None = None
    versions_seen: tuple[str, ...] = ()
    average_flips: bool = False
    distill: bool = False
    ensemble: bool = False

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "StudySpec":
        """Return what the facts in the file of a study say.

        Raises:
            ValueError: one is missing, or of another type; the message names it.
        """
        options = facts.get("options") or {}
        switches = {name: bool(options.get(name)) for name in _SWITCHES}
        return from_json(cls, {**{name: value for name, value in facts.items() if value is not None}, **switches})

    def facts(self) -> dict[str, Any]:
        """Return the facts that are written when a study begins, by name."""
        later = ("rungs", "precision", "allows_flips", "forked_from", "versions_seen", *_SWITCHES)
        found = to_json(self)
        nulls = {"minimise": None, "balance": None}
        return nulls | {name: found[name] for name in found if name not in later} | {"limits": asdict(self.limits)}

    @property
    def ranking(self) -> Objective:
        """What trials are ranked by."""
        return Objective(self.objective, self.minimise)

    @property
    def top_rung(self) -> int:
        """The number of the highest rung."""
        return len(self.rungs) - 1
