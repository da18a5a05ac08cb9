"""The probe measures a child, and takes bfloat16 only where it is there and trains like float32."""

import numpy as np
import pytest

from pipeline.search.timing.speed import Course, agrees, measure_speed

IMAGE = {"height": 8, "width": 8, "channels": 1, "dtype": "uint8"}


def course(logits=1.0, losses=(2.0, 1.5, 1.0)):
    return Course(np.full((4, 2), logits, np.float32), list(losses), 1.0, 1.0)


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        (course(1.01, (2.01, 1.5, 1.02)), True),
        (course(1.2), False),  # other logits
        (course(losses=(2.0, 2.0, 2.0)), False),  # it does not learn
        (course(losses=(2.0, 3.0, 4.0)), False),
        (course(losses=(2.0, 1.0, 0.0)), False),
        (course(float("nan")), False),
        (course(losses=(2.0, float("nan"), float("nan"))), False),
    ],
)
def test_bfloat16_has_to_go_like_float32(short, expected):
    assert agrees(course(), short) is expected


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_wanted_precision_is_measured_and_kept(precision):
    speed = measure_speed({"depth": 1, "filters": 8}, IMAGE, 2, None, precision)
    assert speed.precision == precision
    assert 0 < speed.sample_seconds < 1
    assert 0.05 < speed.start_seconds < 60


@pytest.mark.heavy
def test_without_bfloat16_it_is_not_tried(monkeypatch):
    monkeypatch.setattr("pipeline.search.timing.speed.has_bfloat16", lambda: False)
    assert measure_speed({"depth": 1, "filters": 8}, IMAGE, 2, None, "auto").precision == "float32"


@pytest.mark.heavy
def test_courses_of_both_precisions_agree_on_a_real_network():
    from pipeline.search.timing.speed import follow

    network = ({"depth": 2, "filters": 16, "head": "flatten", "dropout": 0.0}, IMAGE, 2, None)
    exact, short = (follow(*network, precision, 0.01) for precision in ("float32", "bfloat16"))
    assert agrees(exact, short)
    assert exact.losses[-1] < 0.9 * exact.losses[0]
