"""The result of a search: what the study keeps of it, `--json` prints, the terminal and MLflow show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.card import Evaluation, with_score, without_score
from pipeline.json_records import FLAT, from_json, to_json
from pipeline.records import Params


@dataclass(frozen=True)
class Winner:
    """The trial that won, and what its network costs, or all of them that answer together.

    `score` is its objective on the validation images. `dense_params` are the weights if none were shared; None where
    the product did not build the network.
    """

    trial: int
    params: Params
    score: float | None
    num_params: int
    mflops: float
    epochs: int
    dense_params: int | None = None


@dataclass(frozen=True)
class FrontPoint:
    """A trial that no other beats in both objectives."""

    trial: int
    score: float
    cost: int | float


@dataclass(frozen=True)
class SearchResult:
    """What a search ended with.

    `run_id` is None until MLflow has it, and `model_uri` the model's folder. `minimise` names the cost of the `front`,
    which is empty with one objective. `champion_blocker` says why the model is no champion ("flaw" in JSON),
    `test_opened` how often the test images were looked at, `trials` how many ended in each state.
    """

    study: str
    run_id: str | None
    model_uri: str
    objective: str
    winner: Winner
    front: tuple[FrontPoint, ...]
    is_multi_label: bool
    champion_blocker: str = field(metadata={"key": "flaw"})
    test_opened: int
    trials: dict[str, int]
    seconds: float
    evaluation: Evaluation = field(metadata=FLAT)
    minimise: str | None = None
    is_champion: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints; scores and costs are called by what they are."""
        found: dict[str, Any] = to_json(self)
        found["winner"] = with_score(found["winner"], self.objective)
        front = [with_score(point, self.objective) for point in found["front"]]
        found["front"] = [{self.minimise if key == "cost" else key: point[key] for key in point} for point in front]
        return found

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "SearchResult":
        """Return what `to_json` was given; earlier versions left out what has a default.

        Raises:
            ValueError: a key is missing or of another type; the message names it.
        """
        objective = facts.get("objective")
        names = [name for point in facts.get("front", ())[:1] for name in point if name not in ("trial", objective)]
        minimise = facts.get("minimise") or next(iter(names), None)
        front = [
            {"cost" if key == minimise else key: value for key, value in without_score(point, objective).items()}
            for point in facts.get("front", ())
        ]
        winner = without_score(facts.get("winner", {}), objective)
        defaults = {"run_id": None, "is_multi_label": False, "flaw": "", "test_opened": 1}
        return from_json(cls, {**defaults, **facts, "winner": winner, "front": front, "minimise": minimise})
