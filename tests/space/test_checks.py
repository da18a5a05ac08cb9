"""Broken spaces: each is refused with the place, what was found and the fix."""

from pathlib import Path

import pytest

from pipeline.errors import SpaceError
from pipeline.space import load_space


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


HEAD = "schema: 1\nparams:\n"
INT = "type: int, min_value: 1, max_value: 4"
RATE = "type: float, min_value: 1.0e-3, max_value: 1.0e-1"
SGD = "when: {optimizer: [sgd]}"
OPTIMIZER = "  optimizer: {type: choice, values: [adamw, sgd]}\n"

BROKEN_FILES = [
    ("schema: [1", "line 1: not YAML"),
    ("schema: 1\nparams:\n\tdepth: 1\n", "line 3: not YAML"),
    ("schema: 1\n--- \nschema: 1\n", "not YAML: but found another document"),
    ("", "the file is nothing; expected a mapping"),
    ("- depth", "the file is the list ['depth']; expected a mapping"),
    ("params: {}", "the file has no schema; expected schema: 1; add the line"),
    ("schema: 2\nparams: {}", "schema is the number 2; expected 1"),
    ("schema: yes\nparams: {}", "schema is the boolean true; expected 1"),
    ("schema: 1", "params is empty or missing"),
    ("schema: 1\nparams: [depth]", "params is the list ['depth']"),
    ("schema: 1\nparam: {}", "key 'param' is unknown here"),
    ("schema: 1\ndescription: [a]\nparams: {}", "description is the list ['a']; expected one line"),
    ("schema: 1\nschema: 1\n", "line 2 has the key 'schema' a second time"),
    ("schema: 1\nyes: 1\n", "line 2 has the key 'yes', which is not text to YAML"),
    ("schema: &a 1\nparams: *a\n", "line 2 uses the alias *a; expected plain values"),
    (
        "schema: 1\nparams: !!python/object:os.system {}\n",
        "has the tag tag:yaml.org,2002:python/object:os.system",
    ),
    ("schema: 1\nparams: !!python/name:os.system\n", "line 2 has the tag tag:yaml.org,2002:python/name:os.system"),
    ("schema: !!bool x\n", "line 1 has the tag tag:yaml.org,2002:bool; expected plain values; remove the tag"),
    ("schema: !!timestamp x\n", "line 1 has the tag tag:yaml.org,2002:timestamp"),
    ("schema: ! 1\n", "line 1 has the tag !;"),
    ("schema: " + "[" * 30, "line 1 is beyond 20 levels"),
    ("schema: [" + "1," * 10_001 + "]", "line 1 is beyond 20 levels or 10000 values"),
    ("schema: 1" + "1" * 5000, "holds a value that YAML cannot read"),
    ("schema: 2026-13-45", "holds a value that YAML cannot read"),
    ("schema: \x00", "not YAML: special characters are not allowed"),
]

BROKEN_PARAMS = [
    ("dept: {}", "params.dept is not a hyperparameter", "did you mean depth?"),
    ("depth: 3", "params.depth is the number 3", "write {type: fixed, value: 3}"),
    ("depth: []", "params.depth is an empty list", "add one, or remove it"),
    ("depth: {min_value: 1}", "params.depth has no type", "add `type: int`"),
    ("depth: {type: integer}", "params.depth.type is the text 'integer'", "did you mean int?"),
    ("depth: {type: [int]}", "params.depth.type is the list ['int']", "write `type: int`"),
    ("depth: {type: float}", "params.depth.type is the text 'float'", "since depth is a whole number >= 1"),
    ("backbone: {type: fixed, value: 'hub:./mine'}", "params.backbone.value is the text 'hub:./mine'", "absolute path"),
    ("backbone: {type: fixed, value: 'hub:my/own'}", "params.backbone.value is the text 'hub:my/own'", "absolute path"),
    ("backbone: {type: fixed, value: 'hub:'}", "params.backbone.value is the text 'hub:'", "absolute path"),
    (
        "backbone: {type: fixed, value: resnet}",
        "params.backbone.value is the text 'resnet'",
        "did you mean resnet50_v2?",
    ),
    ("head: {type: boolean}", "params.head.type is the text 'boolean'", "expected choice, fixed"),
    (
        f"depth: {{{INT}, maxvalue: 3}}",
        "params.depth: key 'maxvalue' is unknown here",
        "did you mean max_value?",
    ),
    ("depth: {type: choice}", "params.depth has no values", "add `values:`"),
    ("depth: {type: fixed}", "params.depth has no value;", "add `value:`"),
    ("depth: {type: int, min_value: 1}", "params.depth has no max_value", "add `max_value:`"),
    (
        "learning_rate: {type: float, min_value: 1e-4, max_value: 1.0e-2}",
        "params.learning_rate.min_value is the text '1e-4'; expected a number > 0",
        "YAML reads 1e-4 as text; write 1.0e-4",
    ),
    (
        "head: {type: choice, values: [gap, off]}",
        "params.head.values[1] is the boolean false; expected one of gap, gmp, gem, flatten",
        "YAML reads off and no as false; quote it: 'off'",
    ),
    ("depth: {type: fixed, value: yes}", "params.depth.value is the boolean true", "write a number"),
    ("augment: {type: fixed, value: null}", "params.augment.value is nothing", "expected one of none, light"),
    (
        "squeeze_excite: {type: boolean, default: 'on'}",
        "params.squeeze_excite.default is the text 'on'",
        "without quotes",
    ),
    ("depth: {type: fixed, value: 2.0}", "params.depth.value is the number 2.0", "write 2"),
    ("depth: {type: fixed, value: 0}", "params.depth.value is the number 0", "a whole number >= 1"),
    ("depth: {type: fixed, value: 10000000}", "expected a whole number >= 1", "stay at or below 1,000,000"),
    (
        "learning_rate: {type: fixed, value: .nan}",
        "params.learning_rate.value is the number nan",
        "a number > 0",
    ),
    (
        "learning_rate: {type: fixed, value: .inf}",
        "params.learning_rate.value is the number inf",
        "a number > 0",
    ),
    ("depth: {type: fixed, value: 2026-01-01}", "params.depth.value is the date", "expected a whole number"),
    (
        "kernel_size: {type: fixed, value: 4}",
        "params.kernel_size.value is the number 4",
        "odd number from 1 to 11",
    ),
    ("kernel_size: {type: int, min_value: 3, max_value: 7}", "params.kernel_size includes 4", "set step: 2"),
    ("dropout: {type: fixed, value: 1.0}", "params.dropout.value is the number 1.0", ">= 0 and < 1"),
    (
        "pooling: {type: fixed, value: average}",
        "params.pooling.value is the text 'average'",
        "did you mean avg?",
    ),
    (
        "depth: {type: int, min_value: 4, max_value: 2}",
        "params.depth.min_value is 4, above max_value 2",
        "swap",
    ),
    ("depth: {type: int, min_value: 3, max_value: 3}", "equals max_value 3", "write {type: fixed, value: 3}"),
    (
        "dropout: {type: float, min_value: 0, max_value: 0.5, sampling: log}",
        "is 0.0 with sampling log",
        "raise",
    ),
    (
        f"learning_rate: {{{RATE}, sampling: log, step: 2}}",
        "step is given with sampling log",
        "one of the two",
    ),
    (f"learning_rate: {{{RATE}, sampling: cosine}}", "sampling is the text 'cosine'", "linear or log"),
    (f"depth: {{{INT}, default: 5}}", "params.depth.default is 5; expected a value from 1 to 4", "widen"),
    (f"depth: {{{INT}, step: 0}}", "params.depth.step is the number 0", "a whole number >= 1"),
    (
        f"depth: {{{INT}, step: 2}}",
        "max_value is 4, which steps of 2 from 1 never reach",
        "write `max_value: 3`",
    ),
    (
        f"depth: {{{INT}, step: 3, default: 2}}",
        "params.depth.default is 2, off the steps",
        "1 plus a multiple of step 3",
    ),
    (
        "dropout: {type: float, min_value: 0, max_value: 0.5, step: 1.0e-9}",
        "more than 1,000,000 values",
        "raise",
    ),
    (
        "filters: {type: choice, values: [8, 16], default: 9}",
        "default is the number 9",
        "one of its values 8, 16",
    ),
    ("filters: {type: choice, values: [8, 16, 8]}", "params.filters.values[2] repeats 8", "remove it"),
    ("filters: {type: choice, values: []}", "params.filters.values is the list []", "at least one value"),
    ("filters: {type: choice, values: 8}", "params.filters.values is the number 8", "write it as [a, b]"),
    ("filters: {type: choice, values: [8, a]}", "params.filters.values[1] is the text 'a'", "write a number"),
    (
        "filters_growth: {type: choice, values: [1, 1.5]}",
        "mix whole numbers and floats",
        "write 1.0 instead of 1",
    ),
    (
        f"depth: {{{INT}, when: {{head: [gap]}}}}",
        "params.depth.when.head is not in this space",
        "declared above",
    ),
    (f"depth: {{{INT}, when: head}}", "params.depth.when is the text 'head'", "one parent"),
    (f"depth: {{{INT}, when: {{depth: [1]}}}}", "params.depth.when.depth is depth itself", "remove `when`"),
    (
        f"depth: {{{INT}, {SGD}}}\n{OPTIMIZER}",
        "params.depth.when.optimizer is declared after depth",
        "move optimizer above depth",
    ),
    (
        f"{OPTIMIZER}  depth: {{{INT}, when: {{optimizer: sgd}}}}",
        "when.optimizer is the text 'sgd'",
        "a list of values",
    ),
    (
        f"{OPTIMIZER}  depth: {{{INT}, when: {{optimizer: [sgd, sgd]}}}}",
        "params.depth.when.optimizer[1] repeats 'sgd'",
        "remove it",
    ),
    (
        f"batch_size: {{type: choice, values: [8, 16]}}\n  depth: {{{INT}, when: {{batch_size: [9]}}}}",
        "params.depth.when.batch_size[0] is the number 9",
        "a value that params.batch_size can have",
    ),
    (
        f"learning_rate: {{{RATE}}}\n  depth: {{{INT}, when: {{learning_rate: [0.01]}}}}",
        "params.depth.when.learning_rate is a range of floats",
        "give learning_rate the type choice",
    ),
    (
        f"{OPTIMIZER}  depth: {{{INT}, {SGD}}}\n  filters: {{{INT}, when: {{depth: [2]}}}}",
        "params.filters.when.depth has a condition of its own (nested conditions)",
        "make one of the two unconditional",
    ),
    (
        f"{OPTIMIZER}  depth: [{{{INT}, {SGD}}}, {{{INT}}}]",
        "params.depth[1] has no condition",
        "add `when:",
    ),
    (
        f"{OPTIMIZER}  depth: [{{{INT}, {SGD}}}, {{{INT}, when: {{optimizer: [adamw, sgd]}}}}]",
        "params.depth[1].when overlaps with [0]: both hold where optimizer is sgd",
        "remove the value from one",
    ),
    (
        f"{OPTIMIZER}  head: {{type: choice, values: [gap, gmp]}}\n"
        f"  depth: [{{{INT}, {SGD}}}, {{{INT}, when: {{head: [gap]}}}}]",
        "params.depth[1].when depends on head, but [0] on optimizer",
        "the same parent",
    ),
]


SPACE = """schema: 1
params:
  depth: {type: int, min_value: 1, max_value: 4}
  optimizer: {type: choice, values: [adamw, sgd]}
  dropout: {type: float, min_value: 0.0, max_value: 0.4, step: 0.1}
  learning_rate: {type: float, min_value: 1.0e-3, max_value: 1.0e-1, when: {optimizer: [sgd]}}
portfolio: """

BROKEN_PORTFOLIOS = [
    ("[small]", "portfolio is the list ['small']", "write such as `small: {filters: 16}`"),
    ("null", "portfolio is nothing", "write such as"),
    ("{small: 3}", "portfolio.small is the number 3", "write {} for the defaults"),
    ("{small: {dept: 2}}", "portfolio.small.dept is not in this space", "did you mean depth?"),
    ("{small: {filters: 8}}", "portfolio.small.filters is not in this space; expected depth", "remove it"),
    ("{small: {depth: two}}", "portfolio.small.depth is the text 'two'", "write a number"),
    ("{small: {depth: 0}}", "portfolio.small.depth is the number 0; expected a whole number >= 1", "correct"),
    ("{small: {depth: 5}}", "depth is the number 5; expected a value that params.depth can have: 1 to 4", "widen"),
    ("{a: {dropout: 0.15}}", "dropout is the number 0.15", "0.0 to 0.4 in steps of 0.1"),
    ("{a: {optimizer: adam}}", "portfolio.a.optimizer is the text 'adam'", "did you mean adamw?"),
    (
        "{a: {learning_rate: 1.0e-2}}",
        "portfolio.a.learning_rate is given, though optimizer is adamw; expected optimizer to be sgd with it",
        "remove learning_rate, or change optimizer",
    ),
    ("{a: {depth: 2}, b: {depth: 2}}", "portfolio.b is the same configuration as a", "remove it"),
]


@pytest.mark.parametrize(("text", "found", "do"), BROKEN_PORTFOLIOS, ids=lambda value: repr(value)[:40])
def test_a_broken_portfolio_is_refused_with_its_fix(tmp_path: Path, text: str, found: str, do: str) -> None:
    path = write(tmp_path, SPACE + text)
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: portfolio")
    assert found in message
    assert do in message
    assert message.count("; ") >= 2


@pytest.mark.parametrize(("text", "expected"), BROKEN_FILES, ids=lambda value: repr(value)[:40])
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert message.count("; ") >= 2  # found; expected; what to do


@pytest.mark.parametrize(("text", "found", "do"), BROKEN_PARAMS, ids=lambda value: repr(value)[:40])
def test_a_broken_hyperparameter_is_refused_with_its_fix(tmp_path: Path, text: str, found: str, do: str) -> None:
    path = write(tmp_path, f"{HEAD}  {text.lstrip()}\n")
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: params")
    assert found in message
    assert do in message
    assert message.count("; ") >= 2
