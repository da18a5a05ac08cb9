"""Another trial of a study than the one that won is trained, tested and registered."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.search.finish import pick_trial
from pipeline.search.options import SearchOptions
from pipeline.search.result import SearchResult
from pipeline.search.storage.studies import list_studies, open_study
from pipeline.workflows.plan import Plan, SearchRequest, make_plan
from pipeline.workflows.progress import NO_SIGNALS, SILENT, Progress, StopSignal
from pipeline.workflows.search import run_plan


@dataclass(frozen=True)
class PromoteRequest:
    """Which trial of which study: `pick` is its number, or "knee" for that at the knee of the front."""

    study: str
    pick: str
    workspace: Path = field(default_factory=Path.cwd)


def run(request: PromoteRequest, progress: Progress = SILENT, stop: StopSignal = NO_SIGNALS) -> SearchResult:
    """Train a trial on train + validation, test it, and register it as the champion.

    Raises:
        PipelineError: there is no such study or trial, or something that a search would be refused for.
    """
    return run_plan(plan_promotion(request), progress, stop)


def plan_promotion(request: PromoteRequest) -> Plan:
    """Look for the trial, then plan to continue its study with its own options; nothing is written yet.

    Raises:
        PipelineError: there is no such study or trial, or its images are gone.
    """
    workspace, study = request.workspace, request.study
    if study in list_studies(workspace):
        with open_study(workspace, study, is_read_only=True) as store:
            pick_trial(store, request.pick)
    resumed = SearchRequest(SearchOptions(""), workspace, name=study, resume=True, given=("name", "resume"))
    return replace(make_plan(resumed), pick=request.pick)
