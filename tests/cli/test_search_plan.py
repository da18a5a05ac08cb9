"""What the options of a search mean: bfloat16 is refused where it would be emulated, logits are adjusted or not."""

import pytest

from pipeline.cli.search_plan import check_precision, choose_balance
from pipeline.errors import InvalidUsage
from pipeline.records import Objective


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
