"""bfloat16 is refused where it would be emulated."""

import pytest

from pipeline.cli.search_plan import check_precision
from pipeline.errors import InvalidUsage


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
