"""What a winner is worth: the score without leaks, and whether it beats the answer that looks at no image."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.card import Baseline, ClosestClass, Evaluation, FlipAverage, Leaked, SliceFigures, TestResult
from pipeline.cli.terminal.render import print_result
from pipeline.intervals import wilson_interval
from pipeline.json_records import from_json, to_json
from pipeline.records import OBJECTIVES
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.result import SearchResult, Winner
from pipeline.search.worker.comparison import gain_text, search_gain
from pipeline.search.worker.evaluation import (
    Decided,
    champion_blocker_of,
    compare_with_majority,
    judge_slices,
    judge_test,
    judge_winner,
)
from pipeline.search.worker.predictions import save
from pipeline.search.worker.validation import logits_path
from pipeline.tracking.figures import evaluation_metrics
from pipeline.training.metrics import measure_logits
from pipeline.workspace import StudyFolder
from tests.search.stubs import answers_of, digests_of, spec_of

CLASSES = ["ant", "bee", "cat"]
BASELINE = Baseline("", {}, 9, 1.0, 1)
DECIDED = Decided(3, FlipAverage(False), None, None, Baseline("none"))
ANT = np.array([1, 0, 0], np.float32)


def logits_for(predicted, num_classes=3):
    return np.eye(num_classes, dtype=np.float32)[predicted] * 3


def judge(predicted, labels, is_clean=None, objective="val_accuracy"):
    labels = np.array(labels, np.int32)
    return judge_test(answers_of(logits_for(predicted), labels, is_clean), labels, objective)


def test_the_score_has_wilsons_interval_and_bootstrapped_figures():
    labels = [0, 1, 2] * 30
    predicted = [0, 1, 2] * 25 + [1, 2, 0] * 5
    score = judge(predicted, labels)
    assert score.accuracy == pytest.approx(75 / 90)
    assert score.ci95 == wilson_interval(75, 90)
    assert set(score.metrics) == {"balanced_accuracy", "macro_f1", "loss", "auc"}
    assert score.leaked is None


def test_images_with_a_copy_among_the_trained_ones_are_left_out_unless_all_have_one():
    labels, predicted = [0, 1, 2, 0], [0, 1, 0, 0]
    score = judge(predicted, labels, [True, True, True, False])
    assert (score.accuracy, score.num_images) == (pytest.approx(2 / 3), 3)
    assert score.leaked == Leaked(1, 0.75)
    assert judge(predicted, labels, [False] * 4).num_images == 4


def test_a_model_that_says_little_more_than_the_largest_class_is_marked():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.8, 0.1, 0.1]).astype(np.int32)
    blind = np.zeros(300, np.int64)
    found = compare_with_majority(logits_for(blind), labels, ANT, "val_accuracy")
    assert (found.gain, found.standard_error, found.is_beaten) == (0.0, 0.0, False)
    lucky = blind.copy()
    lucky[np.flatnonzero(labels == 1)[:3]] = 1  # three right answers more: 1.73 standard errors
    found = compare_with_majority(logits_for(lucky), labels, ANT, "val_accuracy")
    assert (found.gain, found.is_beaten) == (pytest.approx(0.01), False)
    assert found.gain / found.standard_error == pytest.approx(1.73, abs=0.1)
    lucky[np.flatnonzero(labels == 1)[:6]] = 1  # six: 2.5
    assert compare_with_majority(logits_for(lucky), labels, ANT, "val_accuracy").is_beaten


def test_with_an_objective_of_class_means_less_accuracy_than_the_largest_class_is_no_flaw():
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 400, p=[0.9, 0.05, 0.05]).astype(np.int32)
    predicted = np.where(rng.random(400) < 0.8, labels, (labels + 1) % 3)
    assert not compare_with_majority(logits_for(predicted), labels, ANT, "val_accuracy").is_beaten
    found = compare_with_majority(logits_for(predicted), labels, ANT, "val_balanced_accuracy")
    assert (found.metric, found.value, found.is_beaten) == ("balanced_accuracy", pytest.approx(1 / 3), True)
    recalls = [(predicted[labels == number] == number).mean() for number in range(3)]
    assert found.gain == pytest.approx(np.mean(recalls) - 1 / 3)
    by_hand = np.sqrt(sum(r * (1 - r) / (labels == number).sum() for number, r in enumerate(recalls))) / 3
    assert found.standard_error == pytest.approx(by_hand, rel=0.2)


def test_the_flaw_says_what_was_found_and_what_to_do():
    test = judge([0] * 30, [0] * 20 + [1] * 10)
    text = champion_blocker_of(test, CLASSES)
    assert (
        "(always answering 'ant'), which has 66.67% accuracy on the test images; this model gains +0.0 points (" in text
    )
    assert "without the alias champion" in text
    assert "pipeline data check" in text
    assert champion_blocker_of(judge([0, 1, 2] * 30, [0, 1, 2] * 30), CLASSES) == ""
    assert champion_blocker_of(TestResult(0.5, (0.4, 0.6), 50), CLASSES) == ""  # of an earlier version


def test_the_worst_slice_comes_first_and_small_ones_are_left_out():
    is_right = np.array([True] * 15 + [False] * 5 + [True] * 10 + [True] * 3)
    codes = np.array([1] * 20 + [0] * 10 + [2] * 3, np.int32)
    found = judge_slices(is_right, {"site": (["north", "south", "new"], codes), "rare": (["a"], np.full(33, -1))})
    assert list(found) == ["site"]
    assert list(found["site"]) == ["south", "north"]
    south = found["site"]["south"]
    assert south == SliceFigures(0.75, wilson_interval(15, 20), 20)


def several(rng, num_images, signal):
    """Return labels of images that may have none, one or several, and logits that tell them apart in part."""
    labels = (rng.random((num_images, 3)) < (0.7, 0.2, 0.1)).astype(np.uint8)
    return labels, (rng.normal(-0.5, 1, labels.shape) + signal * labels).astype(np.float32)


def test_the_blind_answer_to_several_labels_is_the_commoner_value_of_each():
    labels, logits = several(np.random.default_rng(0), 400, 2.0)
    majority = judge_test(answers_of(logits, labels), labels, "val_accuracy").majority
    assert (majority.classes, majority.metric, majority.is_beaten) == ((0,), "accuracy", False)
    assert majority.value == pytest.approx((labels == [1, 0, 0]).all(axis=1).mean())
    balanced = judge_test(answers_of(logits, labels), labels, "val_macro_f1").majority
    assert (balanced.metric, balanced.value, balanced.is_beaten) == ("balanced_accuracy", 0.5, True)
    ranked = judge_test(answers_of(logits - 9, labels), labels, "val_auc").majority  # no label is answered
    assert (ranked.metric, ranked.value, ranked.is_beaten) == ("auc", 0.5, True)
    test = TestResult(0.5, (0.4, 0.6), 400, majority=majority)
    assert (
        f"(always answering 'ant'), which has {majority.value:.2%} accuracy on the test images"
        in champion_blocker_of(test, CLASSES)
    )
    assert "(never giving any label), which has" in champion_blocker_of(
        replace(test, majority=replace(majority, classes=())), CLASSES
    )


@pytest.mark.parametrize("objective", ["val_loss", "val_balanced_accuracy", "val_auc"])
def test_what_a_search_gained_on_several_labels_is_a_paired_difference(objective):
    rng = np.random.default_rng(1)
    labels, logits = several(rng, 500, 2.0)
    other = logits + rng.normal(0, 0.5, logits.shape).astype(np.float32)
    found = search_gain(Baseline(""), logits, other, labels, objective).comparison
    gains = []
    for rows in (rng.integers(0, 500, 500) for _ in range(400)):
        first, second = (measure_logits(each[rows], labels[rows]) for each in (logits, other))
        gains.append(getattr(first, found.metric) - getattr(second, found.metric))
    first, second = measure_logits(logits, labels), measure_logits(other, labels)
    assert found.gain == pytest.approx(getattr(first, found.metric) - getattr(second, found.metric))
    assert found.standard_error == pytest.approx(np.std(gains), rel=0.15)
    assert found.ci95 == pytest.approx(np.quantile(gains, (0.025, 0.975)), abs=0.4 * np.std(gains))


def test_an_auc_is_compared_with_one_label_an_image_too():
    rng = np.random.default_rng(2)
    labels = rng.choice(3, 400, p=[0.9, 0.05, 0.05]).astype(np.int32)
    logits = rng.normal(0, 1, (400, 3)) + np.eye(3)[labels] + [9, 0, 0]  # the rare ones are ranked, never answered
    majority = judge_test(answers_of(logits.astype(np.float32), labels), labels, "val_auc").majority
    assert (majority.number, majority.metric, majority.value, majority.is_beaten) == (0, "auc", 0.5, True)


def rare(num_images, *counts):
    """Return labels, so many images of which have a class, the first ones."""
    return (np.arange(num_images)[:, None] < np.array(counts)).astype(np.uint8)


def test_no_model_beats_the_blind_answer_by_the_auc_of_rare_classes_alone():
    labels = rare(100, 3, 9, 97)
    test = judge_test(answers_of(2 * labels.astype(np.float32) - 1, labels), labels, "val_auc")
    assert test.metrics["auc"].value == 1.0
    majority = test.majority
    assert (majority.value, majority.gain, majority.ci95, majority.standard_error) == (0.5, 0.5, None, None)
    assert (majority.is_beaten, majority.closest) == (False, ClosestClass(1, 9, 91))
    text = champion_blocker_of(test, CLASSES)
    assert text.startswith(
        "its AUC cannot be judged: no class has at least 10 test images in it and 10 outside it; the closest is 'bee' "
        "(9 in it); it is registered without the alias champion: add images"
    )
    enough = rare(100, 3, 10, 97)
    test = judge_test(answers_of(2 * enough.astype(np.float32) - 1, enough), enough, "val_auc")
    assert (test.majority.is_beaten, champion_blocker_of(test, CLASSES)) == (True, "")
    by_accuracy = judge_test(answers_of(2 * labels.astype(np.float32) - 1, labels), labels, "val_accuracy")
    assert (by_accuracy.majority.is_beaten, by_accuracy.metrics["auc"].ci95) == (True, None)


def test_the_rare_one_of_two_classes_is_named_and_a_common_one_by_what_lacks_it():
    logits = np.eye(3, dtype=np.float32)
    for rare_ones, expected in (([1, 1, 1], "is 'bee' (3 in it);"), ([1, 1, 2, 2], "is 'ant' (4 outside it);")):
        labels = np.array([0] * 30 + rare_ones, np.int32)
        test = judge_test(answers_of(logits[labels], labels), labels, "val_auc")
        assert expected in champion_blocker_of(test, CLASSES)


def test_what_a_search_gained_is_not_measured_by_the_auc_of_rare_classes():
    labels = rare(100, 3, 9, 97)
    found = search_gain(Baseline(""), labels.astype(np.float32), np.zeros((100, 3), np.float32), labels, "val_auc")
    assert (found.comparison.gain, found.comparison.ci95, found.is_gain) == (0.5, None, False)
    assert gain_text(found) == (
        "not measured: expected a class with at least 10 images in it and 10 outside it, found at most 9"
    )


def test_a_perfect_auc_is_uncertain_too():
    labels = rare(100, 10)
    found = compare_with_majority(labels.astype(np.float32), labels, -np.ones(1, np.float32), "val_auc")
    assert (found.gain, found.is_beaten) == (0.5, True)
    assert found.standard_error == pytest.approx(0.5 * np.sqrt(1 / 99))  # of all orders of 10 ones in 100
    assert found.ci95[0] < 0.45


@pytest.mark.heavy
@pytest.mark.parametrize("counts", [(10,), (30,), (50, 50), (1, 3, 3, 3, 10), (10, 10, 15, 15, 20, 30)])
def test_random_scores_seldom_beat_the_blind_answer(counts):
    rng, labels = np.random.default_rng(5), rare(100, *counts)
    blind = np.full(len(counts), -1, np.float32)
    logits = rng.normal(size=(1500, 100, len(counts))).astype(np.float32)
    beaten = [compare_with_majority(each, labels, blind, "val_auc").is_beaten for each in logits]
    assert 0.01 <= np.mean(beaten) <= 0.033


def test_a_winner_of_several_labels_is_judged_label_by_label(tmp_path):
    labels, logits = several(np.random.default_rng(3), 200, 2.0)
    spec = spec_of(objective="val_auc", classes=CLASSES)
    save(logits_path(StudyFolder(tmp_path).logits, 3), digests_of(200), logits=logits * 3, labels=labels)
    sites = {"site": (["north"], np.zeros(200, np.int32))}
    found = judge_winner(
        StudyFolder(tmp_path).for_training, spec, DECIDED, answers_of(logits * 3, labels, slices=sites), labels
    )
    assert list(found.by_class) == CLASSES
    assert found.by_class["bee"].num_images == labels[:, 1].sum()
    assert found.slices["site"]["north"].accuracy == found.test.accuracy
    assert found.temperature.value > 1.5
    assert found.temperature.test.loss_after < found.temperature.test.loss_before
    assert found.validation.value == found.test.metrics["auc"].value
    assert (found.confusion, found.search_gain.baseline.reason) == (None, "none")


def logits_of(num_images, num_classes):
    """Return a strategy for finite logits, among them the largest that there are and many equal ones."""
    values = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, -3.4e38, 3.4e38])
    return arrays(np.float32, (num_images, num_classes), elements=values)


@pytest.mark.heavy
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_figures_of_any_labels_and_logits_are_numbers_or_null_with_a_reason(tmp_path, data):
    """Of few images, of classes that nobody has, of logits that overflow: they are written, printed and sent."""
    num_classes, num_images = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 30))
    objective, has_several = data.draw(st.sampled_from(sorted(OBJECTIVES))), data.draw(st.booleans())
    shape, most = ((num_images, num_classes), 1) if has_several else ((num_images,), num_classes - 1)
    labels = data.draw(arrays(np.uint8 if has_several else np.int32, shape, elements=st.integers(0, most)))
    answers, default, stored = (data.draw(logits_of(num_images, num_classes)) for _ in range(3))
    is_clean = data.draw(arrays(np.bool_, num_images))
    folder, digests = StudyFolder(tmp_path).for_training, digests_of(num_images)
    holes = data.draw(arrays(np.float32, (num_images, 1), elements=st.sampled_from([0.0, math.nan, math.inf])))
    save(baseline_logits(folder.baseline), digests, logits=default + holes)
    save(logits_path(folder.logits, 3), digests, logits=stored + holes[::-1], labels=labels)
    spec, decided = spec_of(objective=objective, classes=CLASSES[:num_classes]), replace(DECIDED, baseline=BASELINE)
    found = judge_winner(folder, spec, decided, answers_of(answers, labels, is_clean), labels)
    assert from_json(Evaluation, json.loads(json.dumps(to_json(found), allow_nan=False))) == found
    assert all(each.reason for each in found.test.metrics.values() if each.ci95 is None)
    champion_blocker = champion_blocker_of(found.test, CLASSES)
    winner = Winner(3, {}, 0.5, 9, 1.0, 1)
    print_result(
        SearchResult(
            "s", None, "m", objective, winner, (), has_several, champion_blocker, 1, {"completed": 1}, 9.0, found
        )
    )
    assert all(math.isfinite(value) for value in evaluation_metrics(found).values())


@pytest.mark.parametrize("content", [b"", b"no numbers", None])
def test_a_winner_is_judged_although_a_file_beside_it_is_damaged(tmp_path, content):
    path, kept = logits_path(StudyFolder(tmp_path).logits, 3), baseline_logits(StudyFolder(tmp_path).baseline)
    for each in (path, kept):
        each.parent.mkdir()
        each.write_bytes(content or b"")
    if content is None:
        save(path, digests_of(60), logits=np.zeros((60, 2), np.float32), labels=np.zeros(60, np.int32))
        path.write_bytes(path.read_bytes()[:200])
        save(kept, digests_of(40), logits=np.zeros((40, 2), np.float32))
        kept.write_bytes(kept.read_bytes()[:-80])
    logits = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    labels = (np.arange(40) % 2).astype(np.int32)
    decided = replace(DECIDED, baseline=BASELINE)
    found = judge_winner(StudyFolder(tmp_path).for_training, spec_of(), decided, answers_of(logits, labels), labels)
    assert found.test.accuracy == 1.0
    assert found.temperature.reason.startswith(f"{path} cannot be used: ")
    assert (found.validation, to_json(found)["validation"]) == (None, {})
    assert found.search_gain.baseline.reason.startswith(f"{kept} cannot be used: ")
    assert found.confusion == {"ant": {"ant": 20}, "bee": {"bee": 20}}
    assert [each.recall for each in found.by_class.values()] == [1.0, 1.0]
