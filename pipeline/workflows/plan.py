"""What a search will do: which study, data, space, limits and processes; nothing is written yet."""

import math
import shlex
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipeline.data.cache.images import choose_spec
from pipeline.data.readers.registry import open_source, source_name
from pipeline.data.source import Source
from pipeline.errors import DataError, InvalidUsage, StoppedEarly
from pipeline.files import is_locked, lock_owner
from pipeline.json_records import from_json
from pipeline.machine import Resources, hide_gpus, share_resources
from pipeline.models.backbones.applications import fetch_weights, refusal
from pipeline.records import ImageSpec, Objective
from pipeline.search import planning, setup
from pipeline.search.options import SearchOptions, check_options
from pipeline.search.spaces.loader import default_space, open_space, read_space
from pipeline.search.storage.store import StudyStore
from pipeline.search.storage.studies import list_studies
from pipeline.search.timing.budget import Budget
from pipeline.search.timing.estimates import StudyContext
from pipeline.space import SearchSpace
from pipeline.text import redacted, safe_name
from pipeline.workspace import StudyFolder, Workspace


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search.

    `name` is the study's; one that exists is continued with its own options, save those that `given` names; None means
    those that differ from their defaults. With `resume` or `fork`, `options.data` may be empty: the study knows its
    data. `fork` is the name of a new study that begins with the trials of the other. `started` is an instant of
    `time.monotonic`, from which the budget counts.
    """

    options: SearchOptions
    workspace: Path = field(default_factory=Path.cwd)
    name: str | None = None
    resume: bool = False
    fork: str | None = None
    given: Collection[str] | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def data(self) -> str | None:
        """Where the images lie; None leaves that to the study."""
        return self.options.data or None

    @property
    def given_names(self) -> Collection[str]:
        """The options that also count for a study that exists."""
        if self.given is not None:
            return self.given
        usual = SearchOptions(self.options.data)
        names = [each.name for each in fields(usual)]
        return [name for name in names if getattr(self.options, name) != getattr(usual, name)]


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    `stored` are the facts of the study if it exists already, `parent` those of the one that it is forked from. `pick`
    names a trial, or "knee", that is trained and registered instead of a search.
    """

    request: SearchRequest
    options: SearchOptions
    space: SearchSpace
    source: Source
    spec: ImageSpec
    config: setup.SearchConfig
    resources: list[Resources]
    counts: dict[str, int]
    objective_reason: str
    stored: dict[str, Any]
    parent: dict[str, Any]
    pick: str | None = None

    @property
    def study(self) -> str:
        """The name of the study."""
        return self.config.study

    @property
    def folder(self) -> StudyFolder:
        """Where the study lies."""
        return Workspace(self.request.workspace).study(self.study)

    def context(self, spec: ImageSpec, counts: dict[str, int]) -> StudyContext:
        """Return what is fixed for the study, by what is known of the images."""
        parallelism = planning.make_parallelism(self.resources)
        context = planning.make_context(self.space, spec, len(self.source.classes), counts, self.config, parallelism)
        num_views = 2 if self.options.average_flips else 1
        return replace(context, num_test_images=num_views * context.num_test_images)

    def budget(self, context: StudyContext, factor: float, elapsed: float) -> Budget:
        """Return how the time is divided when `elapsed` seconds are gone; a resumed study keeps its rungs."""
        rungs = (self.stored or self.parent).get("rungs")
        before = float(self.stored.get("elapsed") or 0.0)
        budget = planning.make_budget(context, self.config, factor, before + elapsed)
        if self.pick is not None:  # it trains as long as the winner of a search without a time limit
            budget = replace(budget, total=math.inf, search_until=math.inf, end=math.inf)
        return budget if rungs is None else replace(budget, rungs=tuple(rungs))

    def resume_command(self) -> str:
        """Return what to type to continue this search; a study that was created remembers its options and DATA."""
        shown = redacted(self.options.data)
        is_left_out = shown != self.options.data and _stored_facts(self.request.workspace, self.study)
        data = "" if is_left_out else f"{shlex.quote(shown)} "
        return f"pipeline search {data}--name {self.study} --resume"

    def start_command(self) -> str:
        """Return what to type to begin this search: every option that was given."""
        request = self.request
        known = {**vars(request.options), "resume": request.resume, "fork": request.fork}
        values = {name: known[name] for name in request.given_names if name in known and name != "data"}
        if "budget" in values:
            values["budget"] = f"{round(values['budget'])}s"
        if "name" in request.given_names and (request.fork or request.resume):
            values["name"] = request.name
        elif not request.resume:
            values = {"name": self.study, **values}
        texts = (
            f" --{key.replace('_', '-')}" + ("" if each is True else f" {shlex.quote(str(each))}")
            for key, value in values.items()
            for each in (value if isinstance(value, list | tuple) else [value])
            if each is not None
        )
        return f"pipeline search {shlex.quote(redacted(self.options.data))}{''.join(texts)}"


def make_plan(request: SearchRequest) -> Plan:
    """Check the options, then read space and source, and decide study, objective and processes.

    Mistakes in the options alone are refused before anything is opened, unpacked or downloaded.

    Raises:
        PipelineError: anything that the user has to change, before any time is spent.
    """
    known, study = _choose_study(request)
    _refuse_if_in_use(request.workspace, study)
    stored = _stored_facts(request.workspace, study)
    parent = _stored_facts(request.workspace, known) if known != study and not stored else {}
    options = wanted_options(request, (stored or parent).get("options", {}))
    check_options(options)
    if options.space:
        read_space(options.space)
    if stored:
        _refuse_changes(stored, options)
    source = open_source(options.data, request.workspace, options.source, options.cache_limit, options.allow_host)
    spec = choose_spec(source, options.images)
    resources = share_resources(options.workers, options.trials_per_gpu)
    hide_gpus()
    counts = setup.expected_counts(source)
    chosen = options.space or default_space(spec.shape, counts["train"], has_gpu=bool(resources[0].gpu))
    space = open_space(chosen, spec.shape, len(source.classes))
    fetch_weights(name for name in space.backbones() if not refusal(name, spec.shape))
    if options.augment != "auto":
        space = space.with_fixed("augment", options.augment)
    objective, reason = _choose_objective(options, source)
    config = setup.SearchConfig(
        study, options.oracle, options.seed, objective, options.limits, options.budget, options.trials, options.epochs,
        options.folds, options.deterministic, choose_balance(options.balance, objective), options.distill,
        options.ensemble,
    )  # fmt: skip
    options = replace(options, objective=objective.name, space=chosen)
    return Plan(request, options, space, source, spec, config, resources, counts, reason, stored, parent)


def wanted_options(request: SearchRequest, remembered: dict[str, Any]) -> SearchOptions:
    """Return the options of a search: those that were given, else those that the study remembers.

    Raises:
        InvalidUsage: there is no DATA.
        DataError: an option that the study remembers is damaged.
    """
    given = request.given_names
    wanted = vars(request.options) | {name: value for name, value in remembered.items() if name not in given}
    if (data := request.data or remembered.get("data")) is None:
        raise InvalidUsage("DATA is missing; name a built-in set, a folder or a table")
    try:
        return from_json(SearchOptions, {**wanted, "data": data})
    except ValueError as error:  # what was typed has the right types
        raise DataError(
            f"the options that the study remembers: {error}; its file is damaged; restore it from a copy, or begin a "
            "new study with another --name"
        ) from error


def _choose_study(request: SearchRequest) -> tuple[str | None, str]:
    """Return the study whose options are remembered (None for a new one), and the study to work on.

    Raises:
        InvalidUsage: there is nothing to resume or to fork, or no data to begin with.
    """
    place, name, fork = Workspace(request.workspace), request.name, request.fork
    if name is not None and place.study(name).database.is_file():
        return name, fork or name
    if name is not None and (request.resume or fork):
        option = "--fork" if fork else "--resume"
        raise InvalidUsage(
            f"{option}: study {name} not found in {place.studies}; found "
            f"{', '.join(list_studies(request.workspace)) or 'none'}; check the name or the folder, or leave the "
            "option out to begin it"
        )
    if request.resume or fork:
        latest = setup.latest_study_name(request.workspace, _dataset_name(request.data))
        return latest, fork or latest
    if name is None and request.data is None:
        raise InvalidUsage(
            "DATA is missing; name a built-in set (pipeline search digits), a folder or "
            "a table, or continue the newest study with --resume"
        )
    return None, name or setup.next_study_name(request.workspace, str(_dataset_name(request.data)))


def _dataset_name(data: str | None) -> str | None:
    """Return what studies of some data are called; None without data."""
    return None if data is None else safe_name(source_name(data))


def _refuse_if_in_use(workspace: Path, study: str) -> None:
    """Look at the lock of a study before anything that takes time.

    Raises:
        StoppedEarly: another process works on it.
    """
    lock = Workspace(workspace).study(study).lock
    if is_locked(lock):
        raise StoppedEarly(
            f"study {study} is in use by {lock_owner(lock)}; follow it with: pipeline "
            f"status {study}; end it with: pipeline stop {study}"
        )


def _stored_facts(workspace: Path, study: str | None) -> dict[str, Any]:
    """Return what a study remembers; nothing if there is none, or if it was killed while it was being created."""
    if study is None or not (path := Workspace(workspace).study(study).database).is_file():
        return {}
    with StudyStore(path) as store:
        store.check_whole()
        return store.facts() if store.is_created() else {}


def _refuse_changes(stored: dict[str, Any], options: SearchOptions) -> None:
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


def _choose_objective(options: SearchOptions, source: Source) -> tuple[Objective, str]:
    """Return what trials are ranked by, and why if the user did not say."""
    name, reason = options.objective, ""
    if name is None and options.goal:
        name, reason = options.goal[0], "as --until says"
    if name is None:
        name, reason = setup.default_objective(source)
    return Objective(name, options.minimise), reason
