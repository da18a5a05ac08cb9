"""What a search ended with: the result that the study keeps, from the study and the model that it wrote."""

from collections import Counter

from pipeline.models.measure import dense_params
from pipeline.models.plan import has_backbone
from pipeline.records import TrialRow
from pipeline.search.finish import Finished
from pipeline.search.result import FrontPoint, SearchResult, Winner
from pipeline.search.storage.openings import count_openings
from pipeline.search.storage.store import StudyStore
from pipeline.search.worker.evaluation import champion_blocker_of
from pipeline.space import Builder
from pipeline.spec import StudySpec
from pipeline.states import FINAL_STATES, AttemptState, TrainingKind


def result_of(store: StudyStore, finished: Finished, seconds: float) -> SearchResult:
    """Return the result of a search that took some seconds; it names the model's folder until that is registered."""
    spec, best, card = store.spec(), finished.winner, finished.card
    num_params, mflops, epochs = card.num_params or 0, card.mflops or 0.0, card.epochs or 0
    dense = _dense_equivalent(spec, best, card.evaluation.num_networks)
    return SearchResult(
        study=spec.study,
        run_id=None,
        model_uri=str(finished.model_folder),
        objective=spec.objective,
        winner=Winner(best.number, best.params, card.score, num_params, mflops, epochs, dense),
        front=tuple(
            FrontPoint(row.number, row.score or 0.0, row.cost(spec.minimise) or 0.0)
            for row in finished.front
            if spec.minimise is not None
        ),
        is_multi_label=card.is_multi_label,
        champion_blocker=champion_blocker_of(card.evaluation.tested, card.classes),
        test_opened=times_opened(store),
        trials=_count_states(store.trials()),
        seconds=round(seconds, 1),
        evaluation=card.evaluation,
        minimise=spec.minimise,
    )


def _dense_equivalent(spec: StudySpec, best: TrialRow, number: int) -> int | None:
    """Return how many weights `number` networks had if none were shared; None where layers are not our plan."""
    if Builder.of(spec.space) is not None or has_backbone(best.params):
        return None
    return number * dense_params(best.params, spec.image.shape, len(spec.classes))


def times_opened(store: StudyStore) -> int:
    """Return how often the test images were looked at; earlier versions recorded only trainings that succeeded."""
    num_done = sum(attempt.state == AttemptState.DONE for attempt in store.attempts(TrainingKind.FINAL))
    return max(count_openings(store.folder), num_done)


def _count_states(trials: list[TrialRow]) -> dict[str, int]:
    """Return how many trials ended in each way."""
    counted = Counter(row.state for row in trials)
    return {state.lower(): counted[state] for state in FINAL_STATES}
