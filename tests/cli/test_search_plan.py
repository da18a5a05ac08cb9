"""What the options of a search mean: bfloat16 is refused where it would be emulated, logits are adjusted or not."""

import numpy as np
import pytest

from pipeline.cli.search import command
from pipeline.cli.search_plan import Call, check_precision, choose_balance, make_plan
from pipeline.errors import InvalidUsage
from pipeline.records import Objective
from pipeline.search.spaces import default_space


@pytest.mark.parametrize(
    ("precision", "has_it", "is_refused"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("auto", False, False), ("float32", False, False)],
)
def test_bfloat16_needs_a_machine_that_computes_in_it(monkeypatch, precision, has_it, is_refused):
    monkeypatch.setattr("pipeline.cli.search_plan.has_bfloat16", lambda: has_it)
    if not is_refused:
        check_precision({"precision": precision})
        return
    with pytest.raises(InvalidUsage, match="neither avx512_bf16 nor amx_bf16 among the flags"):
        check_precision({"precision": precision})


@pytest.mark.parametrize(
    ("wanted", "objective", "expected"),
    [
        ("auto", "val_balanced_accuracy", "logits"),
        ("auto", "val_accuracy", None),
        ("auto", "val_macro_f1", None),  # not what adjusted logits are best for
        ("none", "val_balanced_accuracy", None),
        ("logits", "val_accuracy", "logits"),
    ],
)
def test_logits_are_adjusted_where_the_balanced_accuracy_is_the_objective(wanted, objective, expected):
    assert choose_balance(wanted, Objective(objective)) == expected


@pytest.mark.parametrize(
    ("side", "num_images", "has_gpu", "expected"),
    [
        (32, 10_000, True, "gpu"),
        (32, 10_000, False, "cnn"),
        (32, 9_999, True, "cnn"),
        (64, 10_000, True, "gpu"),
        (65, 10_000, True, "cnn"),
    ],
)
def test_the_space_suits_machine_and_images(side, num_images, has_gpu, expected):
    assert default_space((8, side, 3), num_images, has_gpu) == expected


@pytest.mark.parametrize(
    ("gpus", "words", "expected"), [("0", [], "gpu"), ("", [], "cnn"), ("0", ["--space", "tiny"], "tiny")]
)
def test_a_search_takes_the_space_for_a_gpu_unless_told_otherwise(tmp_path, monkeypatch, gpus, words, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    rng = np.random.default_rng(0)
    labels = np.arange(15_000) % 3
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 256, (15_000, 8, 8), np.uint8), labels=labels)
    options = command.make_context("search", [*words, "images.npz"]).params
    given = {"space"} if words else set()
    plan = make_plan(Call(0.0, tmp_path, str(tmp_path / "images.npz"), options, given))
    assert plan.options["space"] == plan.space.name == expected
    batches = plan.terms(plan.spec, plan.counts).baseline.get("batch_size")
    assert batches == (512 if gpus else None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--average-flips", "--minimise", "mflops"], "--average-flips does twice the work"),
        (["--ensemble", "--minimise", "params"], "--ensemble answers by two or three networks"),
        (["--distill"], "--distill: the winner is the best trial"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_any_time_is_spent(tmp_path, monkeypatch, words, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    options = command.make_context("search", ["digits", *words]).params
    with pytest.raises(InvalidUsage, match=message):
        make_plan(Call(0.0, tmp_path, options.pop("data"), options, set()))
