"""A study that begins from another one, a model that takes the place of another one, a trial that a user picks."""

import math
from dataclasses import replace

import pytest

from pipeline.errors import InvalidUsage
from pipeline.records import Objective
from pipeline.search.finish import adopt_model, begin_final, finish, pick_trial
from pipeline.search.fork import NUM_REMEMBERED, fork_study
from pipeline.search.ranking import pareto_front, ranked
from pipeline.search.setup import FIXED_FACTS
from pipeline.search.storage.store import StudyStore
from pipeline.space import space_from
from pipeline.states import AttemptState, OutcomeState, TrainingKind
from pipeline.workspace import StudyFolder, Workspace
from tests.search.stubs import (
    FACTS,
    TINY,
    InstantEngine,
    Silence,
    ends,
    epoch_row,
    make_context,
    make_study,
    run_all,
    train,
    train_into,
    unlimited,
)

FEW_FILTERS = b"""
schema: 1
description: the tiny space with one number of filters
params:
  depth: {type: int, min_value: 1, max_value: 2, default: 2}
  convs_per_stage: {type: fixed, value: 1}
  filters: {type: fixed, value: 16}
  pooling: {type: choice, values: [max, avg], default: max}
  head: {type: choice, values: [gap, flatten], default: flatten}
  learning_rate: {type: float, min_value: 1.0e-3, max_value: 5.0e-2, sampling: log, default: 2.0e-2}
  batch_size: {type: fixed, value: 64}
"""


def facts_of(study: str, space=None, **changes):
    """Return the facts of a study on the stub's images."""
    fixed = dict.fromkeys(FIXED_FACTS) | {"space": (space or TINY).to_json()}
    return {**fixed, **FACTS, "study": study, "oracle": "asha", **changes}


@pytest.fixture
def parent(tmp_path):
    """The facts of a finished study of 12 trials, of which one failed, in the folder of studies."""
    facts = facts_of("old")
    (Workspace(tmp_path).studies / "old").mkdir(parents=True)
    store = StudyStore(Workspace(tmp_path).studies / "old" / "study.db")
    store.create(facts)
    store.close()
    study = make_study(Workspace(tmp_path).studies / "old", unlimited(12))
    job = study.ask()
    study.store.save()
    study.tell(train_into(study, job, state=OutcomeState.FAILED, score=None, reason="loss became nan"))
    run_all(study)
    study.store.close()
    return facts


def fork(tmp_path, parent, **changes):
    """Return what was said, and the new study."""
    space = changes.pop("space_object", TINY)
    (Workspace(tmp_path).studies / "new").mkdir()
    store = StudyStore(Workspace(tmp_path).studies / "new" / "study.db")
    store.create({**parent, "study": "new", "space": space.to_json(), "forked_from": parent["study"], **changes})
    text = fork_study(store, space, tmp_path)
    assert store.get("takeover") in text  # so that a killed fork is filled by the next call, and only once
    store.close()
    return text, store.path


def rows_of(path):
    store = StudyStore(path)
    try:
        return store.trials()
    finally:
        store.close()


def test_what_leaves_scores_valid_takes_all_scored_trials_over(tmp_path, parent):
    text, path = fork(tmp_path, parent, seed=9, oracle="tpe")
    old = [row for row in rows_of(Workspace(tmp_path).studies / "old" / "study.db") if row.score is not None]
    assert text == "forked from old: 11 finished trial(s) taken over"
    assert ends(rows_of(path)) == ends([replace(row, number=number) for number, row in enumerate(old)])
    new, before = StudyStore(path), StudyStore(Workspace(tmp_path).studies / "old" / "study.db")
    assert [new.epochs(number) for number in range(11)] == [before.epochs(row.number) for row in old]
    assert before.attempts() != []


def test_a_forked_study_goes_on_from_the_scores_that_it_took_over(tmp_path, parent):
    _, path = fork(tmp_path, parent)
    study = make_study(path.parent, unlimited(14))
    assert study.consult().num_ended == [11, 4, 1]
    jobs = run_all(study)
    assert [job.number for job in jobs if job.rung == 0] == [11, 12, 13]
    assert len({repr(row.params) for row in study.store.trials()}) == 14


def test_trials_outside_the_new_space_stay_behind(tmp_path, parent):
    text, path = fork(tmp_path, parent, space_object=space_from(FEW_FILTERS, "few", "few.yaml"))
    kept = [
        row
        for row in rows_of(Workspace(tmp_path).studies / "old" / "study.db")
        if row.score is not None and row.params["filters"] == 16
    ]
    assert 0 < len(kept) < 11
    assert text == f"forked from old: {len(kept)} finished trial(s) taken over"
    assert [row.params for row in rows_of(path)] == [row.params for row in kept]


def test_trials_that_break_new_limits_stay_behind(tmp_path, parent):
    old = [row for row in rows_of(Workspace(tmp_path).studies / "old" / "study.db") if row.score is not None]
    most = sorted(row.num_params for row in old)[5]
    kept = [row.params for row in old if row.num_params <= most]
    assert 0 < len(kept) < len(old)
    text, path = fork(tmp_path, parent, limits={"max_params": most, "max_mflops": None})
    assert text == (
        f"forked from old: {len(kept)} finished trial(s) taken over; {len(old) - len(kept)} not, which break the "
        "limits or whose latency is unknown"
    )
    assert [row.params for row in rows_of(path)] == kept


@pytest.mark.parametrize("changes", [{"limits": {"max_latency_ms": 5.0}}, {"minimise": "latency"}])
def test_trials_whose_latency_was_never_measured_stay_behind_where_it_counts(tmp_path, parent, changes):
    text, path = fork(tmp_path, parent, **changes)
    assert "0 finished trial(s) taken over; 11 not" in text
    assert rows_of(path) == []


def test_a_cost_that_is_known_can_be_minimised_from_then_on(tmp_path, parent):
    text, path = fork(tmp_path, parent, minimise="params")
    assert "11 finished trial(s) taken over" in text
    study = make_study(path.parent, unlimited(13), objective=Objective("val_accuracy", "params"))
    run_all(study)
    assert len(study.rows) == 13


def test_another_objective_is_read_from_the_epochs(tmp_path, parent):
    store = StudyStore(Workspace(tmp_path).studies / "old" / "study.db")
    losses = {}
    for attempt in store.attempts():
        if attempt.state == AttemptState.DONE:
            losses[attempt.number] = 2.0 + attempt.number
            last = attempt.first_step + attempt.epochs - 1
            store.put_epoch(attempt.id, replace(epoch_row(last, 0.5), val_loss=losses[attempt.number]))
    store.save()
    store.close()
    _, path = fork(tmp_path, parent, objective="val_loss")
    assert [row.score for row in rows_of(path)] == list(losses.values())


def test_other_images_make_the_best_configurations_the_first_to_be_tried(tmp_path, parent):
    text, path = fork(tmp_path, parent, fingerprint="1" * 64)
    best = ranked(rows_of(Workspace(tmp_path).studies / "old" / "study.db"), Objective())[:NUM_REMEMBERED]
    assert text == "forked from old: fingerprint changed, so its 5 best configuration(s) are tried anew"
    assert rows_of(path) == []
    store = StudyStore(path)
    assert store.get("first") == [row.params for row in best]


# ---- promote --------------------------------------------------------------------------------------------------------


@pytest.fixture
def front(tmp_path):
    """A finished study of two objectives."""
    study = make_study(tmp_path / "front", unlimited(12, (1000,)), objective=Objective("val_accuracy", "params"))
    run_all(study)
    return study


def test_a_trial_is_picked_by_its_number_or_as_the_knee_of_the_front(front):
    assert pick_trial(front.store, "7").number == 7
    members = pareto_front(front.rows.values(), front.objective)
    assert pick_trial(front.store, "knee").number in {row.number for row in members}


@pytest.mark.parametrize("pick", ["99", "-1", "best", "1.5", ""])
def test_a_pick_that_is_no_scored_trial_names_those_that_are(front, pick):
    with pytest.raises(InvalidUsage, match=rf"--pick {pick}: no trial of study stub-1 with a score; .* such as \d+"):
        pick_trial(front.store, pick)


def test_one_objective_has_no_knee_and_a_failed_trial_cannot_be_picked(tmp_path):
    study = make_study(tmp_path, unlimited(2, (1000,)))
    job = study.ask()
    study.tell(train_into(study, job, state=OutcomeState.FAILED, score=None, reason="nan"))
    run_all(study)
    with pytest.raises(InvalidUsage, match="has no front: it looked for one objective"):
        pick_trial(study.store, "knee")
    with pytest.raises(InvalidUsage, match="--pick 0: no trial"):
        pick_trial(study.store, "0")


def test_a_picked_trial_replaces_the_model_and_counts_as_another_look_at_the_test(tmp_path):
    study = make_study(tmp_path, unlimited(5))
    run_all(study)
    engine = InstantEngine(train)
    first = finish(study, engine, Silence())
    other = next(row for row in study.rows.values() if row.number != first.winner.number)
    second = finish(study, engine, Silence(), other)
    assert second.winner.number == other.number
    assert (second.model_folder / "model.keras").read_text() == repr(sorted(other.params.items()))
    assert [each.state for each in study.store.attempts(TrainingKind.FINAL)] == [AttemptState.DONE, AttemptState.DONE]
    assert finish(study, engine, Silence()).winner.number == other.number  # a resume shows it, and trains nothing
    assert len(study.store.attempts(TrainingKind.FINAL)) == 2


def test_a_model_is_adopted_when_it_is_whole(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("old")
    (tmp_path / "model.new").mkdir()
    (tmp_path / "model.new" / "model.keras").write_text("unfinished")
    adopt_model(StudyFolder(tmp_path))
    assert (tmp_path / "model" / "model.json").read_text() == "old"
    (tmp_path / "model.new" / "model.json").write_text("new")
    adopt_model(StudyFolder(tmp_path))
    adopt_model(StudyFolder(tmp_path))
    assert (tmp_path / "model" / "model.json").read_text() == "new"
    assert not (tmp_path / "model.new").exists()


def test_a_picked_trial_trains_as_long_as_a_winner_without_a_time_limit(tmp_path):
    study = make_study(tmp_path, unlimited(5), make_context())
    run_all(study)
    assert math.isinf(study.budget.end)
    row = study.rows[0]
    assert row.rung == 0
    assert begin_final(study, row).samples == round(study.budget.rungs[-1] * 1.25)
