"""Records and JSON: which keys are written, what is read back, and how what does not fit is refused."""

from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from pipeline.json_records import EMPTY, FLAT, from_json, to_json


class Kind(StrEnum):
    A = "a"
    B = "b"


@dataclass(frozen=True)
class Inner:
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Outer:
    number: int = field(metadata={"key": "class"})
    kind: Kind
    flag: bool = False
    shape: tuple[int, int] = (1, 1)
    names: tuple[str, ...] = ()
    flat: Inner = field(default_factory=lambda: Inner(0.5), metadata=FLAT)
    inner: Inner | None = None
    empty: Inner | None = field(default=None, metadata=EMPTY)
    by_name: dict[str, Inner] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    params: dict[str, int] | None = None


WHOLE = Outer(3, Kind.B, True, (4, 5), ("x", "y"), Inner(None, "why"), Inner(1.0), Inner(2.0), {"one": Inner(7.0)})
JSON = {
    "class": 3, "kind": "b", "flag": True, "shape": [4, 5], "names": ["x", "y"], "value": None, "reason": "why",
    "inner": {"value": 1.0}, "empty": {"value": 2.0}, "by_name": {"one": {"value": 7.0}},
}  # fmt: skip


def test_what_is_written_is_read_back():
    assert to_json(WHOLE) == JSON
    assert from_json(Outer, JSON) == WHOLE
    assert isinstance(from_json(Outer, JSON).kind, Kind)


def test_what_has_a_default_of_none_is_left_out_and_an_undefined_figure_is_null():
    assert to_json(Outer(1, Kind.A)) == {
        "class": 1, "kind": "a", "flag": False, "shape": [1, 1], "names": [], "value": 0.5, "empty": {}, "by_name": {},
    }  # fmt: skip
    assert to_json(Inner(None)) == {"value": None}


def test_keys_that_came_later_have_their_default_and_unknown_ones_are_passed_over():
    assert from_json(Outer, {"class": 1, "kind": "a", "value": 0.5, "empty": {}, "later": 7}) == Outer(1, Kind.A)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "x"}, "class is 'x'; expected int"),
        ({"class": True}, "class is True; expected int"),
        ({"class": None}, "class is None; expected int"),
        ({"kind": "c"}, "kind is 'c'; expected Kind"),
        ({"flag": 1}, "flag is 1; expected bool"),
        ({"shape": [1, 2, 3]}, r"shape is \[1, 2, 3\]; expected tuple"),
        ({"shape": [1, "2"]}, "shape is '2'; expected int"),
        ({"by_name": {"one": {"value": "high"}}}, "by_name.one.value is 'high'; expected float"),
        ({"by_name": []}, r"by_name is \[\]; expected dict"),
        ({"by_name": {"one": {"value": 1.0, "reason": 5}}}, "by_name.one.reason is 5; expected str"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        from_json(Outer, {**JSON, **changes})
    with pytest.raises(ValueError, match="kind is missing"):
        from_json(Outer, {"class": 1})
    with pytest.raises(ValueError, match="it is 5; expected Outer"):
        from_json(Outer, 5)


def test_a_missing_figure_is_undefined_and_an_empty_dict_stays_one():
    assert from_json(Inner, {"reason": "x"}) == Inner(None, "x")
    assert from_json(Named, {"params": {}}) == Named({})


def test_a_number_beyond_all_floats_is_none():
    with pytest.raises(ValueError, match=r"^value is 1000"):
        from_json(Inner, {"value": 10**400})


def test_a_whole_number_will_do_for_a_figure():
    assert from_json(Inner, {"value": 1}).value == 1.0
