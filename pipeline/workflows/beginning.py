"""How a search begins: its study is created, forked, or opened again, and what it does is said."""

import dataclasses
from contextlib import ExitStack

from pipeline.data.splits.dataset import Dataset
from pipeline.search import setup
from pipeline.search.conclusion import times_opened
from pipeline.search.fork import fork_study
from pipeline.search.result import SearchResult
from pipeline.search.spaces.loader import FOR_CPU, FOR_GPU
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.budget import Budget
from pipeline.workflows.images import prepare_images
from pipeline.workflows.plan import Plan
from pipeline.workflows.progress import Progress


def open_store(plan: Plan, dataset: Dataset, budget: Budget, progress: Progress) -> StudyStore:
    """Create the study, or open it and check that nothing its scores depend on has changed."""
    facts = setup.study_spec(plan.config, dataset, plan.space).facts()
    with ExitStack() as on_failure:
        store = on_failure.enter_context(StudyStore(plan.folder.database))
        if store.is_created():
            setup.check_unchanged(store, facts, dataset)
            store.put("options", dataclasses.asdict(plan.options))
            if version := setup.note_version(store):
                progress.say(f"  warning: version {version} of pipeline worked on this study last; its trials are kept")
        else:
            if plan.parent:
                facts["forked_from"] = plan.parent["study"]
            setup.create_study(store, facts, dataclasses.asdict(plan.options), dataset, budget)
        if store.get("forked_from") is not None and store.get("takeover") is None:
            progress.say(f"  {fork_study(store, plan.space, plan.request.workspace)}")
        on_failure.pop_all()
    return store


def known_result(plan: Plan, progress: Progress) -> SearchResult:
    """Return the result of a finished study, if nothing that it depends on has changed."""
    dataset = prepare_images(plan, progress).dataset
    budget = plan.budget(plan.context(dataset.spec, dataset.counts), 1.0, 0.0)
    open_store(plan, dataset, budget, progress).close()
    progress.say(f"study {plan.study} is finished already; this is its result")
    with StudyStore(plan.folder.database, is_read_only=True) as store:
        result = dataclasses.replace(store.result(), test_opened=times_opened(store))
    if result.run_id is None:
        progress.say(f"its model is not in MLflow yet: pipeline sync {plan.study}")
    return result


def announce(plan: Plan, study: Study, precision: str, progress: Progress) -> None:
    """Say what is ranked, and how trials are trained."""
    objective, reason = study.objective, plan.objective_reason
    cost = f", against {objective.minimise}" if objective.minimise else ""
    if plan.options.space == FOR_GPU and "space" not in plan.request.given_names:
        progress.say(
            f"  space {FOR_GPU}, chosen for the GPU: wide networks, large batches (narrower: --space {FOR_CPU})"
        )
    progress.say(f"  objective {objective.name}{cost}{f' ({reason})' if reason else ''}")
    if plan.config.balance:
        what = "its absence" if plan.source.is_multi_label else "a common one"
        progress.say(f"  in training, a rare class counts as much as {what} (to turn this off: --balance none)")
    rungs = " / ".join(f"{rung / study.context.num_images:.3g}" for rung in study.budget.rungs)
    force = study.context.parallelism
    gpus = {each.gpu for each in plan.resources if each.gpu}
    progress.say(
        f"  {plan.config.oracle}: rungs of {rungs} epoch(s); {force.num_workers} process(es) of "
        f"{force.num_threads} thread(s){f' on {len(gpus)} GPU(s)' if gpus else ''}, {precision}"
    )
