"""The result of a search and what a study is, as their files keep them."""

import json
from dataclasses import replace

import pytest

from pipeline.card import Evaluation, Figure, TestResult
from pipeline.errors import DataError
from pipeline.records import TrialRow
from pipeline.search.finish import card_of
from pipeline.search.jobs import Findings
from pipeline.search.result import FrontPoint, SearchResult, Winner
from pipeline.search.storage.store import StudyStore
from pipeline.spec import StudySpec
from pipeline.states import TrialState
from tests.search.stubs import FACTS, make_study

FOUND = SearchResult(
    study="photos-1",
    run_id=None,
    model_uri="models:/photos/1",
    objective="val_accuracy",
    winner=Winner(3, {"depth": 2}, 0.9, 100, 1.5, 9, 5000),
    front=(FrontPoint(1, 0.8, 0.5), FrontPoint(3, 0.9, 1.5)),
    is_multi_label=False,
    champion_blocker="",
    test_opened=1,
    trials={"completed": 4, "failed": 0},
    seconds=60.0,
    evaluation=Evaluation(TestResult(0.8, (0.7, 0.9), 50, {"loss": Figure(None, None, "not defined")})),
    minimise="mflops",
)


def test_scores_and_costs_are_called_by_what_they_are():
    facts = json.loads(json.dumps(FOUND.to_json()))
    assert facts["winner"] == {
        "trial": 3, "params": {"depth": 2}, "val_accuracy": 0.9, "num_params": 100, "mflops": 1.5, "epochs": 9,
        "dense_params": 5000,
    }  # fmt: skip
    assert facts["front"][0] == {"trial": 1, "val_accuracy": 0.8, "mflops": 0.5}
    assert facts["test"]["metrics"]["loss"] == {"value": None, "ci95": None, "reason": "not defined"}
    assert (facts["run_id"], "is_champion" in facts) == (None, False)
    assert SearchResult.from_json(facts) == FOUND


def test_a_whole_cost_stays_whole():
    whole = replace(FOUND, minimise="params", front=(FrontPoint(1, 0.8, 12345),))
    assert json.dumps(SearchResult.from_json(whole.to_json()).to_json()["front"][0]["params"]) == "12345"


def test_a_study_with_a_damaged_decision_is_refused_by_its_name(tmp_path):
    with StudyStore(tmp_path / "study.db") as store:
        store.create(FACTS | {"ensemble": {"reason": "any"}})
        with pytest.raises(DataError, match=r"study.db: is_kept is missing, so it is not a usable study"):
            store.ensemble()


def test_the_front_of_an_earlier_version_says_what_its_cost_is():
    facts = FOUND.to_json()
    del facts["minimise"]
    assert SearchResult.from_json(facts).minimise == "mflops"


def test_a_study_is_what_its_facts_say_whatever_came_later():
    spec = StudySpec.of(FACTS | {"options": {"distill": True}, "rungs": [1, 2, 3], "later": 7})
    assert (spec.distill, spec.ensemble, spec.top_rung, spec.precision) == (True, False, 2, "float32")
    written = json.loads(json.dumps(spec.facts()))
    assert {name: written[name] for name in FACTS if name in written} == {
        name: value for name, value in FACTS.items() if name not in ("options", "elapsed")
    }
    assert "distill" not in written  # it is one of the options


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [("oracle", None, "oracle is missing"), ("image", {"height": "tall"}, "image.height is 'tall'; expected int")],
)
def test_a_study_with_a_damaged_fact_is_refused_by_its_name(tmp_path, fact, value, message):
    with StudyStore(tmp_path / "study.db") as store:
        store.create(FACTS | {fact: value})
        with pytest.raises(DataError, match=f"study.db: {message}, so it is not a usable study"):
            store.spec()


def test_a_winner_that_was_cut_off_in_its_first_epoch_is_said_to_have_seen_none(tmp_path):
    study = make_study(tmp_path)
    row = TrialRow(3, TrialState.COMPLETED, 0.5, {"depth": 1}, 100, 1.0, 9.0, "", 4, 4)
    card = card_of(study, row, 20, Findings(epochs=0, evaluation=FOUND.evaluation))
    assert (card.epochs, card.evaluation.planned_epochs, card.score) == (0, 20, 0.5)
    assert card_of(study, row, 20, Findings()).epochs == 20
    study.store.close()
