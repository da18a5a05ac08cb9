"""Every error that a user can cause, each with the exit code that the command ends with; no other code lives here."""

from pipeline.states import OutcomeState


class PipelineError(Exception):
    """Something that the user can act on: the message says where, what was found, what was expected, what to do."""

    exit_code = 1


class InvalidUsage(PipelineError):
    """An option or argument that cannot be followed."""

    exit_code = 2


class SpaceError(InvalidUsage):
    """A search space that is malformed or holds no network that fits the images."""


class DataError(PipelineError):
    """Images, labels or manifests that cannot be used."""

    exit_code = 3


class GateNotMet(PipelineError):
    """A check that the user asked for did not pass."""

    exit_code = 4


class StoppedEarly(PipelineError):
    """The work stopped before its end and can be resumed (budget, disk, lock)."""

    exit_code = 5


class ModelRefused(PipelineError):
    """A model or bundle that is missing, damaged, changed or of an unknown kind."""

    exit_code = 6


class TrackingError(PipelineError):
    """The MLflow store cannot be used as it is."""

    exit_code = 7


class Interrupted(PipelineError):
    """Ctrl-C (130) or SIGTERM (143) ended the command after the state was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TrialFailed(PipelineError):
    """A training that ended without a score; `state` says how, and `is_out_of_memory` whether that was the reason.

    Raised inside the child process that trains; the search turns it into a row, never into an exit.
    """

    is_out_of_memory = False

    def __init__(self, state: OutcomeState, reason: str) -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason
