"""What a call of `pipeline search` means: which study, data, space, limits and processes; nothing is written yet."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cli.terminal.output import quoted
from pipeline.data.cache import choose_spec
from pipeline.data.source import Source
from pipeline.data.sources import open_source, source_name
from pipeline.errors import DataError, InvalidUsage, StoppedEarly
from pipeline.files import is_locked, lock_owner
from pipeline.json_records import from_json
from pipeline.machine import Resources, hide_gpus, share_resources
from pipeline.models.backbones import fetch_weights, refusal
from pipeline.records import ImageSpec, Objective
from pipeline.search import setup
from pipeline.search.options import SearchOptions, check_options
from pipeline.search.pace import Terms
from pipeline.search.spaces import default_space, open_space, read_space
from pipeline.search.store import StudyStore
from pipeline.search.studies import list_studies
from pipeline.space import SearchSpace
from pipeline.text import redacted, safe_name
from pipeline.workspace import StudyFolder, Workspace

CALL_ONLY = ("name", "resume", "fork")  # options of one call, which a study does not remember


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
    options: SearchOptions
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
        num_views = 2 if self.options.average_flips else 1
        return replace(terms, num_test_images=num_views * terms.num_test_images)

    def resume_command(self) -> str:
        """Return what to type to continue this search; a study that was created remembers its options and DATA."""
        shown = redacted(self.options.data)
        is_left_out = shown != self.options.data and stored_facts(self.call.workspace, self.request.study)
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
        return f"pipeline search {quoted(redacted(self.options.data))}{''.join(texts)}"


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
    options = wanted_options(call, (stored or parent).get("options", {}))
    check_options(options)
    if options.space:
        read_space(options.space)
    if stored:
        refuse_changes(stored, options)
    source = open_source(options.data, call.workspace, options.source, options.cache_limit, options.allow_host)
    spec = choose_spec(source, options.images)
    resources = share_resources(options.workers, options.trials_per_gpu)
    hide_gpus()
    counts = setup.expected_counts(source)
    chosen = options.space or default_space(spec.shape, counts["train"], has_gpu=bool(resources[0].gpu))
    space = open_space(chosen, spec.shape, len(source.classes))
    fetch_weights(name for name in space.backbones() if not refusal(name, spec.shape))
    if options.augment != "auto":
        space = space.with_fixed("augment", options.augment)
    objective, reason = choose_objective(options, source)
    request = setup.Request(
        study, options.oracle, options.seed, objective, options.limits, options.budget, options.trials, options.epochs,
        options.folds, options.deterministic, choose_balance(options.balance, objective), options.distill,
        options.ensemble,
    )  # fmt: skip
    options = replace(options, objective=objective.name, space=chosen)
    return Plan(call, options, space, source, spec, request, resources, counts, reason, stored, parent)


def wanted_options(call: Call, remembered: dict[str, Any]) -> SearchOptions:
    """Return the options of a call: those that were typed, else those that the study remembers.

    Raises:
        InvalidUsage: there is no DATA.
        DataError: an option that the study remembers is damaged.
    """
    typed = {name: value for name, value in call.options.items() if name not in CALL_ONLY}
    wanted = typed | {name: value for name, value in remembered.items() if name not in call.given}
    if (data := call.data or remembered.get("data")) is None:
        raise InvalidUsage("DATA is missing; expected images to search for; name a built-in set, a folder or a table")
    try:
        return from_json(SearchOptions, {**wanted, "data": data})
    except ValueError as error:  # what was typed has the right types
        raise DataError(
            f"the options that the study remembers: {error}; its file is damaged; restore it from a copy, or begin a "
            "new study with another --name"
        ) from error


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


def refuse_changes(stored: dict[str, Any], options: SearchOptions) -> None:
    """Refuse changes of what the scores of an existing study depend on, as far as its images need not be read.

    Raises:
        InvalidUsage: something differs.
    """
    wanted = {name: getattr(options, name) for name in ("oracle", "seed", "minimise", "objective")}
    limits, is_deterministic = asdict(options.limits), options.deterministic
    others = {"is_deterministic": is_deterministic, "folds": options.folds or 0, "limits": limits}
    setup.refuse_changes(stored, {**wanted, **others, "study": stored["study"]})


def choose_balance(wanted: str, objective: Objective) -> str | None:
    """Return "logits" where rare classes are to count as much as common ones in training, else nothing."""
    is_adjusted = wanted == "logits" or (wanted == "auto" and objective.name == "val_balanced_accuracy")
    return "logits" if is_adjusted else None


def choose_objective(options: SearchOptions, source: Source) -> tuple[Objective, str]:
    """Return what trials are ranked by, and why if the user did not say."""
    name, reason = options.objective, ""
    if name is None and options.goal:
        name, reason = options.goal[0], "as --until says"
    if name is None:
        name, reason = setup.default_objective(source)
    return Objective(name, options.minimise), reason
