"""What a winner is worth on the test images: figures with intervals, and whether it beats answering blindly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.intervals import Interval, counts_interval, paired_interval, wilson_interval
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.validation import DAMAGES, describe_temperature, judge_validation
from pipeline.training.certainty import measure_with_intervals

Slices = dict[str, tuple[list[str], NDArray[np.int32]]]
"""The values of each further column of a table, and which of them each test image has (-1: none)."""
MIN_SLICE = 10  # images; of fewer, an accuracy says next to nothing
NUM_ERRORS = 2.0  # standard errors by which a model must beat the blind answer
CLASS_MEANS = ("val_balanced_accuracy", "val_macro_f1", "val_auc")
"""Objectives of unbalanced classes: there, a good model may have less accuracy than always the largest class."""


def judge_winner(
    study_path: str,
    facts: dict[str, Any],
    logits: NDArray[np.float32],
    labels: NDArray[np.int32],
    is_clean: NDArray[np.bool_],
    trained_labels: NDArray[np.int32],
    slices: Slices,
) -> dict[str, Any]:
    """Return what model.json says of a winner's worth: `test`, `temperature`, `validation`, `search_gain`, `slices`.

    The temperature is that of the winning trial, whose network did not train on the validation images; the winner
    itself did, so that it has none left to fit one to.
    """
    counted = is_clean if is_clean.any() else np.ones(len(labels), bool)
    is_flip_averaged = facts.get("flip_average", {}).get("is_kept", False)
    validation, temperature = judge_validation(study_path, facts["winner"], facts["objective"], is_flip_averaged)
    baseline = facts.get("baseline") or {"reason": "this study has no default network"}
    kept = baseline_logits(study_path, is_flip_averaged)
    if not baseline["reason"]:
        try:
            others = np.load(kept, allow_pickle=False)[counted]
            baseline |= search_gain(logits[counted], others, labels[counted], facts["objective"])
        except (*DAMAGES, IndexError) as error:  # no cause to lose a winner
            baseline |= {"reason": f"{kept} cannot be read: {type(error).__name__}"}
    return {
        "validation": validation,
        "search_gain": baseline,
        "test": judge_test(logits, labels, is_clean, trained_labels, facts["objective"]),
        "temperature": describe_temperature(temperature, logits[counted], labels[counted]),
        "slices": judge_slices(
            (logits.argmax(axis=1) == labels)[counted],
            {name: (values, codes[counted]) for name, (values, codes) in slices.items()},
        ),
    }


def judge_test(
    logits: NDArray[np.float32],
    labels: NDArray[np.int32],
    is_clean: NDArray[np.bool_],
    trained_labels: NDArray[np.int32],
    objective: str,
) -> dict[str, Any]:
    """Return the score of logits (num_images, num_classes) on the test images, as model.json keeps it.

    If some have a copy in train or val (`is_clean` is false), the score is that of the others, and `leaked` holds their
    number and the inflated accuracy over all. `trained_labels` are those that the model was trained on.
    """
    is_right = logits.argmax(axis=1) == labels
    score: dict[str, Any] = {}
    if not is_clean.all():
        score["leaked"] = {"num_images": int((~is_clean).sum()), "accuracy_with": float(is_right.mean())}
        if is_clean.any():
            logits, labels = logits[is_clean], labels[is_clean]
    figures = measure_with_intervals(logits, labels)
    accuracy = figures.pop("accuracy")
    majority = int(np.bincount(trained_labels, minlength=logits.shape[1]).argmax())
    return {
        "accuracy": accuracy["value"],
        "ci95": accuracy["ci95"],
        "num_images": len(labels),
        "metrics": figures,
        "majority": compare_with_majority(logits.argmax(axis=1), labels, majority, objective),
        **score,
    }


def judge_slices(is_right: NDArray[np.bool_], slices: Slices) -> dict[str, dict[str, Any]]:
    """Return the accuracy on the test images of each value of each further column of the table, the worst first.

    Values of fewer than MIN_SLICE images are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, (values, codes) in slices.items():
        rows = {value: is_right[codes == number] for number, value in enumerate(values)}
        figures: dict[str, dict[str, Any]] = {
            value: {"accuracy": float(right.mean()), "ci95": list(wilson_interval(int(right.sum()), len(right))),
                    "num_images": len(right)}
            for value, right in rows.items()
            if len(right) >= MIN_SLICE
        }  # fmt: skip
        if figures:
            found[name] = dict(sorted(figures.items(), key=lambda pair: pair[1]["accuracy"]))
    return found


def compare_with_majority(
    predicted: NDArray[np.int64], labels: NDArray[np.int32], majority: int, objective: str
) -> dict[str, Any]:
    """Return by how much a model beats the answer that looks at no image: always the class that was commonest.

    What is compared, on the same images, is the accuracy, or the balanced accuracy where the objective is a mean over
    classes; `standard_error` is that of the difference.
    """
    difference = compare(predicted == labels, labels == majority, labels, objective)
    gain, error = difference["gain"], difference["standard_error"]
    return {"class": majority, **difference, "is_beaten": gain > NUM_ERRORS * error and gain > 0}


def compare(
    is_right: NDArray[np.bool_], is_other_right: NDArray[np.bool_], labels: NDArray[np.int32], objective: str
) -> dict[str, Any]:
    """Return by how much one model is better than another on the same images: a paired bootstrap.

    `metric` is what is compared, `value` that of the other model, `gain` the difference with its interval `ci95` and
    its `standard_error`.
    """
    if objective in CLASS_MEANS:
        metric = "balanced_accuracy"
        means = [is_other_right[labels == number].mean() for number in np.unique(labels)]
        value = float(np.mean(means))
        gain, interval, error = balanced_gain(is_right, is_other_right, labels)
    else:
        metric, value = "accuracy", float(is_other_right.mean())
        gain = (int(is_right.sum()) - int(is_other_right.sum())) / len(labels)
        interval, error = paired_interval(is_right, is_other_right)
    return {"metric": metric, "value": value, "gain": gain, "ci95": list(interval), "standard_error": error}


def balanced_gain(
    is_right: NDArray[np.bool_], is_other_right: NDArray[np.bool_], labels: NDArray[np.int32]
) -> tuple[float, Interval, float]:
    """Return by how much the balanced accuracy of one model is above that of another, with interval and error."""
    ahead = is_right.astype(np.int64) - is_other_right
    kinds, counts = np.unique(labels.astype(np.int64) * 3 + ahead + 1, return_counts=True)
    classes, value = np.divmod(kinds, 3)
    of_class = classes[:, None] == np.unique(classes)  # (num_kinds, num_classes)

    def gain(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        num_labels = drawn @ of_class
        means = (drawn * (value - 1)) @ of_class / np.maximum(num_labels, 1)
        return np.asarray(means.sum(axis=1) / (num_labels > 0).sum(axis=1))

    return float(gain(counts[None])[0]), *counts_interval(counts, gain)


def search_gain(
    logits: NDArray[np.float32], other: NDArray[np.float32], labels: NDArray[np.int32], objective: str
) -> dict[str, Any]:
    """Return what a search gained: the winner's logits (num_images, num_classes) against those of the default network.

    It is a gain only if the whole 95 % interval of the difference is above 0: two equally good networks show one in
    2.5 % of all cases.
    """
    is_right, is_other_right = logits.argmax(axis=1) == labels, other.argmax(axis=1) == labels
    found = compare(is_right, is_other_right, labels, objective)
    return {**found, "is_gain": found["ci95"][0] > 0}


def gain_text(gain: dict[str, Any]) -> str:
    """Return in words what a search gained, or why nobody knows."""
    if gain["reason"]:
        return f"not measured: {gain['reason']}"
    low, high = (100 * end for end in gain["ci95"])
    name, value = gain["metric"].replace("_", " "), gain["value"]
    than = f"over the default network ({value:.2%} {name}, {gain['num_params']:,} params, {gain['epochs']} epochs)"
    if gain["is_gain"]:
        return f"search gain {100 * gain['gain']:+.1f} points ({low:.1f} to {high:.1f}) {than}"
    if high < 0:
        return f"no gain: {100 * gain['gain']:+.1f} points ({low:.1f} to {high:.1f}) {than}, which is better"
    return f"no gain ({low:+.1f} to {high:+.1f} points) {than}"


def flaw_of(test: dict[str, Any], classes: list[str]) -> str:
    """Return what is wrong with a model that does not beat the blind answer, and what to do; empty if nothing is."""
    majority = test.get("majority")  # models of before have none
    if majority is None or majority["is_beaten"]:
        return ""
    name = classes[majority["class"]]
    return (
        f"it does not beat the blind answer: always {name!r} has {majority['value']:.2%} "
        f"{majority['metric'].replace('_', ' ')} on the test images, this model {majority['gain']:+.2%} beside "
        f"that, with a standard error of {majority['standard_error']:.2%}; expected more than "
        f"{NUM_ERRORS:g} standard errors; it is registered without the alias champion: look at the images and labels "
        "with `pipeline data check`, add images, or search longer with --budget"
    )
