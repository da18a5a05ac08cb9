"""The states and kinds that a study records: of trials, of their attempts, of the ends of trainings."""

from enum import StrEnum


class TrialState(StrEnum):
    """Where a trial stands. All but the first three are final."""

    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # finished a rung; may be promoted to the next
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"  # stopped before its rung ended because the budget did
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"  # does not fit into memory, or breaks a limit of the user
    CRASHED = "CRASHED"  # its process died twice
    TIMEOUT = "TIMEOUT"


FINAL_STATES = tuple(TrialState)[3:]


class OutcomeState(StrEnum):
    """How a training ended."""

    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"  # by the user; it goes on where it stopped
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"
    CRASHED = "CRASHED"  # its process died
    TIMEOUT = "TIMEOUT"


class AttemptState(StrEnum):
    """What became of one training of a trial to the end of a rung."""

    STARTED = "STARTED"  # it runs, or its process was killed with the search
    DONE = "DONE"  # it has a score
    STOPPED = "STOPPED"
    DIED = "DIED"  # its process did
    RETRIED = "RETRIED"  # it ran out of memory and is tried again in smaller pieces
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"
    TIMEOUT = "TIMEOUT"

    @classmethod
    def after(cls, outcome: OutcomeState) -> "AttemptState":
        """Return the state of an attempt whose training ended so."""
        others = {OutcomeState.COMPLETED: cls.DONE, OutcomeState.CRASHED: cls.DIED}
        return others.get(outcome) or cls(outcome)


class TrainingKind(StrEnum):
    """The trainings of a study other than its trials; each value is the name of its checkpoint."""

    FINAL = "final"
    """The winner, on train + validation, before it meets the test images."""
    BASELINE = "baseline"
    """The reference network, which the winner is compared with."""
    STUDENT = "student"
    """The winner's network while it learns from a better trial: see `search.distillation`."""
    SECOND_SEED = "twin"
    """The winner's network while it trains once more, with another seed: see `search.ensemble`."""


TrainingId = int | TrainingKind
"""Which training of a study: the number of a trial, or the kind of another training."""


def trial_number(training: TrainingId) -> int:
    """Return the number of a trial.

    Raises:
        TypeError: the training is not a trial.
    """
    if isinstance(training, TrainingKind):
        raise TypeError(f"{training} is not a trial")
    return training
