"""What a winner is worth on the test images: figures with intervals, and whether it beats answering blindly."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.card import (
    Baseline,
    ClosestClass,
    Distillation,
    Ensemble,
    Evaluation,
    FlipAverage,
    Leaked,
    Majority,
    SearchGain,
    SliceFigures,
    TestResult,
)
from pipeline.data.readers.arrays import NPZ_ERRORS
from pipeline.intervals import wilson_interval
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.worker import predictions
from pipeline.search.worker.comparison import compare, metric_name, search_gain
from pipeline.search.worker.validation import describe_temperature, judge_validation, judged_trainings
from pipeline.spec import StudySpec
from pipeline.states import TrainingId
from pipeline.targets import Labels, answers, blind_logits, class_scores, is_multi_label, is_right
from pipeline.training.auc import MIN_SIDE, class_counts, measure_auc
from pipeline.training.certainty import count_answers, measure_by_class, measure_with_intervals
from pipeline.workspace import TrainingFolders

Slices = dict[str, tuple[list[str], NDArray[np.int32]]]
"""The values of each further column of a table, and which of them each test image has (-1: none)."""
_MIN_SLICE = 10  # images; of fewer, an accuracy says next to nothing
_NUM_NAMED = 5  # labels of a blind answer
_NUM_ERRORS = 2.0  # standard errors by which a model must beat the blind answer


@dataclass(frozen=True)
class Answers:
    """What a model says of test images: finite logits float32 (num_images, num_classes), and their true labels.

    `digests` uint8 (num_images, 32) are the SHA-256 of the images. `is_clean` is false for those with a copy in train
    or val. `places` int64 (num_images,) are those of the images among all of the test split.
    """

    logits: NDArray[np.float32]
    labels: Labels
    digests: NDArray[np.uint8]
    is_clean: NDArray[np.bool_]
    slices: Slices
    places: NDArray[np.int64]

    def counted(self) -> "Answers":
        """Return the answers that count: to images without a copy in train or val, unless all have one."""
        return self.where(self.is_clean) if self.is_clean.any() else self

    def where(self, is_chosen: NDArray[np.bool_]) -> "Answers":
        """Return the answers to some of the images."""
        return Answers(
            self.logits[is_chosen],
            self.labels[is_chosen],
            self.digests[is_chosen],
            self.is_clean[is_chosen],
            {name: (values, codes[is_chosen]) for name, (values, codes) in self.slices.items()},
            self.places[is_chosen],
        )


@dataclass(frozen=True)
class Decided:
    """What was decided on a winner before its test: by which training its logits on the validation images are."""

    winner: TrainingId
    flip_average: FlipAverage
    distillation: Distillation | None
    ensemble: Ensemble | None
    baseline: Baseline | None


def judge_winner(
    folders: TrainingFolders, spec: StudySpec, decided: Decided, answers: Answers, trained_labels: Labels
) -> Evaluation:  # fmt: skip
    """Return what the answers to the test images, and the logits of the trials, say of a winner's worth.

    The temperature is that of the winning trial, whose network did not train on the validation images; the winner
    itself did, so that it has none left to fit one to.
    """
    counted = answers.counted()
    is_flip_averaged, objective = decided.flip_average.is_kept, spec.objective
    judged = judged_trainings(decided.winner, decided.ensemble)
    validation, temperature = judge_validation(folders.logits, judged, objective, is_flip_averaged)
    kept = baseline_logits(folders.baseline, is_flip_averaged)
    has_one_label = not is_multi_label(counted.labels)
    return Evaluation(
        test=judge_test(answers, trained_labels, objective),
        validation=validation,
        temperature=describe_temperature(temperature, counted.logits, counted.labels),
        search_gain=_judge_gain(decided.baseline, counted, kept, objective),
        slices=judge_slices(is_right(counted.logits, counted.labels), counted.slices),
        by_class=dict(zip(spec.classes, measure_by_class(counted.logits, counted.labels), strict=True)),
        confusion=_confusion_of(counted, spec.classes) if has_one_label else None,
    )


def _judge_gain(baseline: Baseline | None, answers: Answers, kept: Path, objective: str) -> SearchGain:
    """Return what a search gained over the reference network, whose logits are `kept` in a file."""
    if baseline is None:
        return SearchGain(Baseline("this study has no reference network"))
    if baseline.reason:
        return SearchGain(baseline)
    try:
        others = predictions.load_for(kept, answers.digests)["logits"]
        return _gain_where_both_answer(baseline, answers, others, objective)
    except FileNotFoundError:
        missing = "its predictions are missing, or from an earlier version, which did not note their images"
        return SearchGain(replace(baseline, reason=f"the reference network cannot be compared: {missing}"))
    except NPZ_ERRORS as error:  # no cause to lose a winner
        return SearchGain(replace(baseline, reason=f"{kept} cannot be used: {type(error).__name__}: {error}"))


def _gain_where_both_answer(
    baseline: Baseline, answers: Answers, others: NDArray[np.float32], objective: str
) -> SearchGain:  # fmt: skip
    """Return what a search gained, on the images to which the reference network gives a finite answer too.

    Raises:
        ValueError: there is none.
    """
    is_finite = np.asarray(np.isfinite(others).all(axis=1))
    if not is_finite.any():
        raise ValueError("no prediction is finite")
    both = answers.where(is_finite)
    return search_gain(baseline, both.logits, others[is_finite], both.labels, objective)


def judge_test(answers: Answers, trained_labels: Labels, objective: str) -> TestResult:
    """Return what the test images say of a model that was trained on images with `trained_labels`."""
    counted, leaked = answers.counted(), None
    if num_leaked := int((~answers.is_clean).sum()):
        leaked = Leaked(num_leaked, float(is_right(answers.logits, answers.labels).mean()))
    figures = measure_with_intervals(counted.logits, counted.labels)
    accuracy = float(is_right(counted.logits, counted.labels).mean())
    blind = blind_logits(trained_labels, counted.logits.shape[1])
    return TestResult(
        accuracy=accuracy,
        ci95=figures.pop("accuracy").ci95 or (0.0, 1.0),
        num_images=len(counted.labels),
        metrics=figures,
        majority=compare_with_majority(counted.logits, counted.labels, blind, objective),
        leaked=leaked,
    )


def _confusion_of(answers: Answers, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return how many images of a class got which answer, by names; zeros are left out."""
    counts = count_answers(answers.logits, answers.labels)
    return {
        name: {classes[number]: int(row[number]) for number in np.flatnonzero(row).tolist()}
        for name, row in zip(classes, counts, strict=True)
    }


def judge_slices(is_right: NDArray[np.bool_], slices: Slices) -> dict[str, dict[str, SliceFigures]]:
    """Return the accuracy on the test images of each value of each further column of the table, the worst first.

    Values of fewer than _MIN_SLICE images are left out.
    """
    found: dict[str, dict[str, SliceFigures]] = {}
    for name, (values, codes) in slices.items():
        rows = {value: is_right[codes == number] for number, value in enumerate(values)}
        figures = {
            value: SliceFigures(float(right.mean()), wilson_interval(int(right.sum()), len(right)), len(right))
            for value, right in rows.items()
            if len(right) >= _MIN_SLICE
        }
        if figures:
            found[name] = dict(sorted(figures.items(), key=lambda pair: pair[1].accuracy))
    return found


def compare_with_majority(
    logits: NDArray[np.float32], labels: Labels, blind: NDArray[np.float32], objective: str
) -> Majority:
    """Return by how much a model beats the answer that looks at no image, `blind` logits (num_classes,) for each.

    What is compared, on the same images, is said by `compare`; `standard_error` is that of the difference, for an AUC
    the exact one of random scores.
    """
    answer = answers(blind[None], is_multi_label(labels))[0]
    found = Majority(**vars(compare(logits, np.tile(blind, (len(labels), 1)), labels, objective)))
    if is_multi_label(labels):
        found = replace(found, classes=tuple(np.flatnonzero(answer).tolist()))
    else:
        found = replace(found, number=int(answer))
    if found.metric == "auc" and found.reason:
        return replace(found, closest=_closest_class(labels, logits.shape[1]))
    if found.metric == "auc":
        error = measure_auc(class_scores(logits, is_multi_label(labels)), labels).chance_error
        found = replace(found, standard_error=error)
    if found.gain is None or found.standard_error is None:
        return found
    return replace(found, is_beaten=found.gain > _NUM_ERRORS * found.standard_error and found.gain > 0)


def _closest_class(labels: Labels, num_classes: int) -> ClosestClass:
    """Return the class that has the most images on its smaller side, with it or without it; of two, the rarer."""
    sides = [(int(num), len(labels) - int(num)) for num in class_counts(labels, num_classes)]
    number = max(range(num_classes), key=lambda each: (min(sides[each]), -sides[each][0]))
    return ClosestClass(number, *sides[number])


def champion_blocker_of(test: TestResult, classes: Sequence[str]) -> str:
    """Return why a model has not been shown to beat the blind answer, and what to do; empty if it has."""
    majority = test.majority  # None in models of earlier versions
    if majority is None or majority.is_beaten:
        return ""
    if majority.closest is not None:
        return (
            f"its AUC cannot be judged: no class has at least {MIN_SIDE} test images in it and {MIN_SIDE} outside it; "
            f"the closest is {_closest_text(majority.closest, classes)}; it is registered without the alias champion: "
            "add images of the rare classes, or search with another --objective"
        )
    if majority.reason:
        name = metric_name(majority.metric)
        return (
            f"its {name} cannot be compared with that of the blind answer ({majority.reason}); "
            "it is registered without the alias champion: add test images, or search with another --objective"
        )
    points, error = 100 * (majority.gain or 0.0), 100 * (majority.standard_error or 0.0)
    return (
        f"it is no better than a blind answer ({_blind_text(majority, classes)}), which has {majority.value:.2%} "
        f"{metric_name(majority.metric)} on the test images; this model gains {points:+.1f} points (standard error "
        f"{error:.1f}; a gain of more than {_NUM_ERRORS:g} standard errors is needed); it is registered without the "
        "alias champion: look at the images and labels with `pipeline data check`, add images, or search longer with "
        "--budget"
    )


def _closest_text(closest: ClosestClass, classes: Sequence[str]) -> str:
    """Return a class in words, and how many images are in it or outside it, whichever are fewer."""
    number, side = min((closest.num_with, "in it"), (closest.num_without, "outside it"), key=lambda pair: pair[0])
    return f"{classes[closest.number]!r} ({number} {side})"


def _blind_text(majority: Majority, classes: Sequence[str]) -> str:
    """Return in words the answer that looks at no image."""
    if majority.number is not None:
        return f"always answering {classes[majority.number]!r}"
    names = ", ".join(repr(classes[number]) for number in (majority.classes or ())[:_NUM_NAMED])
    more = ", ..." if len(majority.classes or ()) > _NUM_NAMED else ""
    return f"always answering {names}{more}" if names else "never giving any label"
