"""What a call of `pipeline search` means: which study, data, space, limits and processes; nothing is written yet."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cli.output import quoted
from pipeline.data.cache import SpecOptions, choose_spec
from pipeline.data.source import Source
from pipeline.data.sources import open_source, source_name
from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.files import is_locked, lock_owner
from pipeline.limits import Limits
from pipeline.machine import Resources, has_bfloat16, hide_gpus, share_resources
from pipeline.models.backbones import fetch_weights, refusal
from pipeline.records import ImageSpec, Objective
from pipeline.search import setup
from pipeline.search.pace import Terms
from pipeline.search.spaces import default_space, open_space, read_space
from pipeline.search.store import StudyStore, list_studies
from pipeline.space import SearchSpace
from pipeline.text import redacted, safe_name
from pipeline.workspace import StudyFolder, Workspace

CALL_ONLY = ("name", "resume", "fork")  # options of one call, which a study does not remember
LIMITS = ("max_params", "max_mflops", "max_size_mb", "max_latency_ms")


@dataclass(frozen=True)
class Call:
    """What was typed: `options` as click has them, `given` the names of those that were not left at their default."""

    started: float
    workspace: Path
    data: str | None
    options: dict[str, Any]
    given: set[str]


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    `stored` are the facts of the study if it exists already, `parent` those of the one that it is forked from.
    """

    call: Call
    data: str
    options: dict[str, Any]
    space: SearchSpace
    source: Source
    spec: ImageSpec
    request: setup.Request
    resources: list[Resources]
    counts: dict[str, int]
    objective_reason: str
    stored: dict[str, Any]
    parent: dict[str, Any]

    @property
    def folder(self) -> StudyFolder:
        """Where the study lies."""
        return Workspace(self.call.workspace).study(self.request.study)

    def terms(self, spec: ImageSpec, counts: dict[str, int]) -> Terms:
        """Return what is fixed for the study, by what is known of the images."""
        workforce = setup.make_workforce(self.resources)
        terms = setup.make_terms(self.space, spec, len(self.source.classes), counts, self.request, workforce)
        num_views = 2 if self.options["average_flips"] else 1
        return replace(terms, num_test_images=num_views * terms.num_test_images)

    def resume_command(self) -> str:
        """Return what to type to continue this search; a study that was created remembers its options and DATA."""
        shown = redacted(self.data)
        is_left_out = shown != self.data and stored_facts(self.call.workspace, self.request.study)
        data = "" if is_left_out else f"{quoted(shown)} "
        return f"pipeline search {data}--name {self.request.study} --resume"

    def start_command(self) -> str:
        """Return what to type to begin this search: every option that was given."""
        call = self.call
        values = {
            key: call.options[key] for key in call.options if key in call.given and key not in ("name", "dry_run")
        }
        if "budget" in values:
            values["budget"] = f"{round(values['budget'])}s"
        if "name" in call.given and (call.options["fork"] or call.options["resume"]):
            values["name"] = call.options["name"]
        elif not call.options["resume"]:
            values = {"name": self.request.study, **values}
        texts = (
            f" --{key.replace('_', '-')}" + ("" if each is True else f" {quoted(str(each))}")
            for key, value in values.items()
            for each in (value if isinstance(value, list | tuple) else [value])
            if each is not None
        )
        return f"pipeline search {quoted(redacted(self.data))}{''.join(texts)}"


def make_plan(call: Call) -> Plan:
    """Check the options, then read space and source, and decide study, objective and processes.

    Mistakes in the options alone are refused before anything is opened, unpacked or downloaded.

    Raises:
        PipelineError: anything that the user has to change, before any time is spent.
    """
    known, study = choose_study(call)
    refuse_if_in_use(call.workspace, study)
    stored = stored_facts(call.workspace, study)
    parent = stored_facts(call.workspace, known) if known != study and not stored else {}
    remembered = (stored or parent).get("options", {})
    options = call.options | {key: value for key, value in remembered.items() if key not in call.given}
    data = call.data or remembered.get("data")
    if data is None:
        raise InvalidUsage("DATA is missing; expected images to search for; name a built-in set, a folder or a table")
    check_options(options, stored)
    source = open_source(data, call.workspace, options["source"], options["cache_limit"], options["allow_host"])
    names = ("image_size", "background", "max_megapixels", "max_megabytes")
    spec = choose_spec(source, SpecOptions(**{name: options[name] for name in names}))
    resources = share_resources(options["workers"], options["trials_per_gpu"])
    hide_gpus()
    counts = setup.expected_counts(source)
    chosen = options["space"] or default_space(spec.shape, counts["train"], has_gpu=bool(resources[0].gpu))
    space = open_space(chosen, spec.shape, len(source.classes))
    fetch_weights(name for name in space.backbones() if not refusal(name, spec.shape))
    if options["augment"] != "auto":
        space = space.with_fixed("augment", options["augment"])
    objective, reason = choose_objective(options, source)
    options = {key: value for key, value in options.items() if key not in CALL_ONLY}
    options |= {"data": data, "objective": objective.name, "space": chosen}
    request = setup.Request(
        study, options["oracle"], options["seed"], objective, Limits(**{name: options[name] for name in LIMITS}),
        options["budget"], options["trials"], options["epochs"], options["folds"], options["deterministic"],
        choose_balance(options["balance"], objective), options["distill"], options["ensemble"],
    )  # fmt: skip
    return Plan(call, data, options, space, source, spec, request, resources, counts, reason, stored, parent)


def choose_study(call: Call) -> tuple[str | None, str]:
    """Return the study whose options are remembered (None for a new one), and the study to work on.

    Raises:
        InvalidUsage: there is nothing to resume or to fork, or no data to begin with.
    """
    place, options = Workspace(call.workspace), call.options
    name, fork = options["name"], options["fork"]
    if name is not None and place.study(name).database.is_file():
        return name, fork or name
    if name is not None and (options["resume"] or fork):
        option = "--fork" if fork else "--resume"
        raise InvalidUsage(
            f"{option}: study {name} not found in {place.studies}; found "
            f"{', '.join(list_studies(call.workspace)) or 'none'}; check the name or the folder, or leave the option "
            "out to begin it"
        )
    if options["resume"] or fork:
        latest = setup.latest_study_name(call.workspace, dataset_name(call.data))
        return latest, fork or latest
    if name is None and call.data is None:
        raise InvalidUsage(
            "DATA is missing; expected images to search for; name a built-in set (pipeline search digits), a folder or "
            "a table, or continue the newest study with --resume"
        )
    return None, name or setup.next_study_name(call.workspace, str(dataset_name(call.data)))


def dataset_name(data: str | None) -> str | None:
    """Return what studies of some data are called; None without data."""
    return None if data is None else safe_name(source_name(data))


def refuse_if_in_use(workspace: Path, study: str) -> None:
    """Look at the lock of a study before anything that takes time.

    Raises:
        StoppedEarly: another process works on it.
    """
    lock = Workspace(workspace).study(study).lock
    if is_locked(lock):
        raise StoppedEarly(
            f"study {study} is in use by {lock_owner(lock)}; expected one process at a time; follow it with: pipeline "
            f"status {study}; end it with: pipeline stop {study}"
        )


def stored_facts(workspace: Path, study: str | None) -> dict[str, Any]:
    """Return what a study remembers; nothing if there is none, or if it was killed while it was being created."""
    if study is None or not (path := Workspace(workspace).study(study).database).is_file():
        return {}
    with StudyStore(path) as store:
        store.check_whole()
        return store.facts() if store.is_created() else {}


def check_options(options: dict[str, Any], stored: dict[str, Any]) -> None:
    """Refuse what no images could make possible, and changes of what the scores of an existing study depend on.

    Raises:
        InvalidUsage: options contradict each other or the study, or this machine cannot do them.
        SpaceError: the space is invalid, or cannot be read.
    """
    for check in (check_precision, check_averaging, check_distillation, check_ensemble, check_goal):
        check(options)
    if options["space"]:
        read_space(options["space"])
    if stored:
        wanted = {name: options[name] for name in ("oracle", "seed", "minimise", "objective")}
        limits = asdict(Limits(**{name: options[name] for name in LIMITS}))
        others = {"is_deterministic": options["deterministic"], "folds": options["folds"] or 0, "limits": limits}
        setup.refuse_changes(stored, {**wanted, **others, "study": stored["study"]})


def check_precision(options: dict[str, Any]) -> None:
    """Refuse bfloat16 where it would be emulated, many times slower.

    Raises:
        InvalidUsage: the machine does not compute in it.
    """
    if options["precision"] == "bfloat16" and not has_bfloat16():
        raise InvalidUsage(
            "--precision bfloat16: this machine has no GPU, and neither avx512_bf16 nor amx_bf16 among the flags in "
            "/proc/cpuinfo; expected one of them; leave --precision at auto"
        )


def check_averaging(options: dict[str, Any]) -> None:
    """Refuse to double the cost that is to be as small as possible.

    Raises:
        InvalidUsage: --average-flips with a second objective that counts work.
    """
    if options["average_flips"] and options["minimise"] in ("mflops", "latency"):
        raise InvalidUsage(
            f"--average-flips does twice the work, and --minimise {options['minimise']} as little as possible; "
            "expected one of them; leave one out"
        )


def check_distillation(options: dict[str, Any]) -> None:
    """Refuse to distil where no network could teach another.

    Raises:
        InvalidUsage: --distill without a second objective, or with folds.
    """
    if options["distill"] and options["minimise"] is None:
        raise InvalidUsage(
            "--distill: the winner is the best trial, and learns nothing from a worse one; expected --minimise, with "
            "which a cheaper one wins; add it, or leave --distill out"
        )
    if options["distill"] and options["folds"] is not None:
        raise InvalidUsage(
            "--distill: with --folds no network has seen all training images; expected one of them; leave one out"
        )


def check_ensemble(options: dict[str, Any]) -> None:
    """Refuse to multiply the cost that is to be as small as possible.

    Raises:
        InvalidUsage: --ensemble with a second objective.
    """
    if options["ensemble"] and options["minimise"] is not None:
        raise InvalidUsage(
            f"--ensemble answers by two or three networks, and --minimise {options['minimise']} looks for a cheap one; "
            "expected one of them; leave one out"
        )


def check_goal(options: dict[str, Any]) -> None:
    """Refuse a goal in another metric than the one that trials are ranked by.

    Raises:
        InvalidUsage: --until and --objective name two.
    """
    goal = (options["until"] or "").partition("=")[0]
    if goal and options["objective"] not in (None, goal):
        raise InvalidUsage(
            f"--until {options['until']}: the objective is {options['objective']}; "
            "expected the same metric in --until and --objective"
        )


def choose_balance(wanted: str, objective: Objective) -> str | None:
    """Return "logits" where rare classes are to count as much as common ones in training, else nothing."""
    is_adjusted = wanted == "logits" or (wanted == "auto" and objective.name == "val_balanced_accuracy")
    return "logits" if is_adjusted else None


def choose_objective(options: dict[str, Any], source: Source) -> tuple[Objective, str]:
    """Return what trials are ranked by, and why if the user did not say."""
    name, reason = options["objective"], ""
    goal = (options["until"] or "").partition("=")[0]
    if name is None and goal:
        name, reason = goal, "as --until says"
    if name is None:
        name, reason = setup.default_objective(source)
    return Objective(name, options["minimise"]), reason
