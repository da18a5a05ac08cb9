"""What the options of a search mean: bfloat16 is refused where it would be emulated, logits are adjusted or not."""

import re
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pytest

from pipeline.cli.commands.search import command, search_request
from pipeline.errors import DataError, InvalidUsage
from pipeline.limits import Limits
from pipeline.records import Objective
from pipeline.search.options import SearchOptions, check_precision
from pipeline.search.spaces.loader import default_space
from pipeline.search.storage.store import StudyStore
from pipeline.workflows.plan import SearchRequest, choose_balance, make_plan, wanted_options
from pipeline.workspace import Workspace
from tests.search.stubs import FACTS


def requested(folder, data, options, given):
    return replace(search_request(data, options, given), workspace=folder)


@pytest.mark.parametrize(
    ("precision", "has_it", "is_refused"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("auto", False, False), ("float32", False, False)],
)
def test_bfloat16_needs_a_machine_that_computes_in_it(monkeypatch, precision, has_it, is_refused):
    monkeypatch.setattr("pipeline.search.options.has_bfloat16", lambda: has_it)
    if not is_refused:
        check_precision(SearchOptions("photos", precision=precision))
        return
    with pytest.raises(InvalidUsage, match="neither avx512_bf16 nor amx_bf16 among the flags"):
        check_precision(SearchOptions("photos", precision=precision))


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
    plan = make_plan(requested(tmp_path, str(tmp_path / "images.npz"), options, given))
    assert plan.options.space == plan.space.name == expected
    batches = plan.context(plan.spec, plan.counts).baseline.get("batch_size")
    assert batches == (512 if gpus else None)


REFUSED = [
    (["--average-flips", "--minimise", "mflops"], "--average-flips doubles the work"),
    (["--average-flips", "--minimise", "latency"], "--average-flips doubles the work"),
    (["--ensemble", "--minimise", "params"], "--ensemble uses two or three networks"),
    (["--distill"], "--distill: the winner is the best trial"),
    (["--distill", "--minimise", "params", "--folds", "3"], "--distill: with --folds"),
    (["--until", "val_auc=0.9", "--objective", "val_accuracy"], "--until val_auc=0.9: the objective is val_accuracy"),
    (["--precision", "bfloat16"], "--precision bfloat16: this machine has no GPU"),
    (["--space", "zork"], "zork"),
    (["--space", "./none.yaml"], "none.yaml"),
    (["--space", "none.py:build"], "none.py"),
    (["--space", "none.py"], "names no class or function"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_the_options_alone_can_tell_is_refused_before_anything_is_opened(tmp_path, monkeypatch, words, message):
    """DATA, an archive that would be unpacked into the workspace, is not touched."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("pipeline.search.options.has_bfloat16", lambda: False)
    (tmp_path / "set.npz").write_bytes(b"never read")
    options = command.make_context("search", [str(tmp_path / "set.npz"), *words]).params
    with pytest.raises(InvalidUsage, match=re.escape(message)):
        make_plan(requested(tmp_path, options["data"], options, set()))
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def resume(folder, *words):
    """Plan to resume a study whose images are gone, with further options."""
    begun = command.make_context("search", ["none.npz"]).params
    facts = {
        "study": "set-1", "oracle": "asha", "seed": 0, "objective": "val_accuracy", "minimise": None, "folds": 0,
        "limits": asdict(Limits()), "is_deterministic": False,
        "options": {**begun, "data": str(folder / "none.npz"), "objective": "val_accuracy"},
    }  # fmt: skip
    (Workspace(folder).studies / "set-1").mkdir(parents=True)
    with closing(StudyStore(Workspace(folder).studies / "set-1" / "study.db")) as store:
        store.create({**FACTS, **facts})
    options = command.make_context("search", ["--name", "set-1", *words]).params
    given = {"name", *(word.removeprefix("--").replace("-", "_") for word in words[:1])}
    make_plan(requested(folder, options["data"], options, given))


def test_a_study_with_its_own_options_is_resumed_as_far_as_its_images(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file or folder"):
        resume(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "1"], ["--oracle", "tpe"], ["--minimise", "params"], ["--objective", "val_loss"],
        ["--deterministic"], ["--folds", "3"], ["--max-params", "10"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_study_is_not_resumed_with_other_options_and_its_images_are_not_opened(tmp_path, words):
    with pytest.raises(InvalidUsage, match=r"study set-1 cannot be resumed: .*add --fork NEW_NAME"):
        resume(tmp_path, *words)


def test_the_record_of_options_has_those_of_the_command_with_their_defaults():
    typed = command.make_context("search", ["photos"]).params
    of_the_call = {"resume", "fork", "name", "dry_run", "as_json", "verbose", "quiet"}
    shown = {option.name for option in command.params} - of_the_call
    fields = asdict(SearchOptions("photos"))
    assert set(fields) == shown
    assert {name: typed[name] for name in fields} == fields


def test_a_study_that_remembers_a_damaged_option_says_which(tmp_path):
    request = SearchRequest(SearchOptions(""), tmp_path, resume=True)
    with pytest.raises(DataError, match=r"the study remembers: seed is 'x'; expected int; .*restore it from a copy"):
        wanted_options(request, {"data": "photos", "seed": "x"})
