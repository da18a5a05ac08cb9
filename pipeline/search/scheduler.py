"""What a search trains next: a trial that goes on, a configuration of the portfolio, or what the oracle proposes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pipeline.records import Objective, Params, TrialRow
from pipeline.search.jobs import TrainingJob
from pipeline.search.ranking import climbers
from pipeline.search.timing.budget import REDUCTION, Budget
from pipeline.search.timing.estimates import SLOWEST, StudyContext, TimeEstimates
from pipeline.states import TrialState

Choice = tuple[int, int, Params]
"""Number of a trial, the rung that it is to train, and its configuration."""


class Proposal(Protocol):
    """What an oracle proposes: see `oracles.Proposal`."""

    number: int
    rung: int
    params: Params


class Oracle(Protocol):
    """What is needed of an oracle here: see `oracles.Proposer`."""

    def propose(self, next_number: int | None, is_acceptable: Callable[[Any], bool]) -> Any:
        """Return the next acceptable proposal, or None; without `next_number`, only one that continues a trial."""

    def begin(self, number: int, rung: int, params: Params) -> None:
        """Count a training that the oracle did not propose in this process."""


class SearchState(Protocol):
    """What is known of a search: see `study.Study`."""

    rows: dict[int, TrialRow]
    leader: TrialRow | None
    running: dict[int, TrainingJob]
    objective: Objective
    context: StudyContext
    budget: Budget
    estimates: TimeEstimates

    @property
    def oracle(self) -> Oracle | None:
        """The oracle, if there is one yet."""

    def consult(self) -> Oracle:
        """Return the oracle; a new one first learns what has happened so far."""

    def time_left(self) -> float:
        """Return the seconds that trials may still take."""


def next_training(study: SearchState) -> Choice | None:
    """Return what to train next; None if nothing fits, or the end of a running training must be waited for."""
    return _next_to_go_on(study) or _next_of_portfolio(study) or _next_of_oracle(study) or _next_of_end_game(study)


def _next_to_go_on(study: SearchState) -> Choice | None:
    """Return a trial that the oracle promotes before the portfolio is through: a good network is known sooner."""
    has_some_left = len(study.rows) < len(study.context.portfolio)
    return _next_of_oracle(study, may_begin=False) if has_some_left else None


def _next_of_portfolio(study: SearchState) -> Choice | None:
    """Return the next configuration that the space's author thinks strong, if it can be used."""
    if len(study.rows) >= len(study.context.portfolio) or not _has_room(study):
        return None
    tried = [row.params for row in study.rows.values()]
    for params in study.context.portfolio:
        if params not in tried and is_affordable(study, params, 0):
            number = len(study.rows)
            if study.oracle is not None:
                study.oracle.begin(number, 0, params)
            return number, 0, params
    return None


def _next_of_oracle(study: SearchState, may_begin: bool = True) -> Choice | None:
    """Return what the oracle proposes, or None if it has nothing, or nothing that fits into the time."""
    next_number = len(study.rows) if may_begin and _has_room(study) else None
    if next_number is None and (len(study.budget.rungs) == 1 or _num_ended(study) < REDUCTION):
        return None  # none can begin and none can be promoted: the oracle need not even be made
    proposal = study.consult().propose(next_number, partial(is_acceptable, study))
    return None if proposal is None else (proposal.number, proposal.rung, dict(proposal.params))


def _num_ended(study: SearchState) -> int:
    """Return how many trials have finished a rung or failed."""
    return sum(row.state not in (TrialState.PLANNED, TrialState.RUNNING) for row in study.rows.values())


def _has_room(study: SearchState) -> bool:
    """Tell whether a new configuration may be tried, by the number of trials and the time."""
    if study.budget.max_trials is not None and len(study.rows) >= study.budget.max_trials:
        return False
    return not study.rows or is_affordable(study, study.context.typical, 0)


def is_acceptable(study: SearchState, proposal: Proposal) -> bool:
    """Tell whether a proposal is a possible network within the limits, and quick enough for the time."""
    is_known = proposal.number in study.rows
    return (is_known or study.context.is_feasible(proposal.params)) and is_affordable(
        study, proposal.params, proposal.rung, proposal.number if is_known else None
    )


def is_affordable(study: SearchState, params: Params, rung: int, number: int | None = None) -> bool:
    """Tell whether a rung fits into the time, and leaves enough to bring one trial to the highest rung."""
    if not study.budget.is_timed or not study.rows:  # the first trial runs, however short the time is
        return True
    if number is None and study.estimates.slowness(params) > SLOWEST:
        return False
    seconds = study.estimates.training_seconds(params, study.estimates.rung_samples(params, rung), number)
    return seconds <= study.time_left() - (
        0.0 if _is_settled(study, rung) else study.estimates.climb_seconds(study.leader)
    )


def _is_settled(study: SearchState, rung: int) -> bool:
    """Tell whether some trial has reached the highest rung, is on its way there, or would be with this job."""
    top = len(study.budget.rungs) - 1
    is_reached = study.leader is not None and study.leader.rung == top
    return rung == top or is_reached or any(job.rung == top for job in study.running.values())


def _next_of_end_game(study: SearchState) -> Choice | None:
    """Return a trial that goes on although it was not promoted: the winner must have seen the highest rung.

    With a time limit, others follow while there is time.
    """
    top = len(study.budget.rungs) - 1
    if (_is_settled(study, 0) and not study.budget.is_timed) or (study.running and not study.budget.is_timed):
        return None
    for row in climbers(list(study.rows.values()), study.objective):
        for rung in range(top, row.rung, -1):
            samples = study.estimates.rung_samples(row.params, rung)
            seconds = study.estimates.training_seconds(row.params, samples, row.number)
            if seconds <= study.time_left():
                if study.oracle is not None:
                    study.oracle.begin(row.number, rung, row.params)
                return row.number, rung, row.params
    return None
