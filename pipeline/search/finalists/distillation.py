"""Is the winner better when it also learns from a better trial's predictions? Validation images decide.

With a second objective the winner is a cheaper network than the best one, which then can teach it. It is trained as
its trial was, with the teacher's answers in the labels, and its last training has them too if that was better.
"""

from dataclasses import replace

from pipeline.card import Distillation
from pipeline.crashpoints import crashpoint
from pipeline.json_records import to_json
from pipeline.records import TrialRow
from pipeline.search.engines.base import Engine
from pipeline.search.jobs import TrainingJob, TrainingPlan, TrialOutcome
from pipeline.search.loop import SearchCallback, settle, train_to_end
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.budget import TRAIN_FORWARD_RATIO
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.search.worker.teacher import Teacher, read_teacher
from pipeline.states import TrainingKind


def distil(study: Study, engine: Engine, callback: SearchCallback, best: TrialRow) -> Distillation:
    """Return whether the winner `best` learns from a better trial, and keep that in the study as `distillation`.

    A training that fails costs only this.

    Raises:
        StoppedEarly, KeyboardInterrupt: the search is to end; the training goes on with --resume.
    """
    store, found = study.store, study.store.distillation()
    if found is None or not _is_decided(found, store, best):
        teacher = read_teacher(store.folder.teacher)
        found = Distillation(False, _obstacle(study, best, teacher), alone=best.score, student=best.number)
        if teacher is not None and not found.reason:
            outcome, job = train_to_end(study, engine, lambda: begin(study, best), callback)
            crashpoint("student-trained")
            found = close(study, replace(found, teacher=teacher.number), outcome, job)
        store.put_later("distillation", to_json(found))
    study.estimates.reserved_for_retraining = 0.0
    store.save()
    return found


def _is_decided(found: Distillation, store: StudyStore, best: TrialRow) -> bool:
    """Tell whether it is known if the winner learns from a better trial; one that it learns from must still be best."""
    if found.student != best.number:
        return False
    teacher = read_teacher(store.folder.teacher)
    return not found.is_kept or (teacher is not None and teacher.number == found.teacher)


def _obstacle(study: Study, best: TrialRow, teacher: Teacher | None) -> str:
    """Return why the winner cannot learn from a teacher; empty if it can."""
    sign = study.objective.sign
    if best.score is None or teacher is None or sign * teacher.score <= sign * best.score:
        return "no better trial has finished the highest rung"
    room, needed = study.estimates.seconds_before_final(best), _seconds_for(study.estimates, best, teacher)
    if needed > room:
        return f"it takes some {needed:.0f} s, of which the budget has {max(room, 0.0):.0f} s"
    return ""


def _seconds_for(estimates: TimeEstimates, best: TrialRow, teacher: Teacher) -> float:
    """Return the seconds in which the teacher looks at all images and their mirror images, and the winner learns."""
    context = estimates.context
    answering = (
        estimates.training_seconds(teacher.params, 2 * context.num_final_images, teacher.number) / TRAIN_FORWARD_RATIO
    )
    learning = estimates.training_seconds(best.params, best.samples, best.number)
    return (answering + learning) / context.parallelism.final_speedup


def begin(study: Study, best: TrialRow) -> TrainingJob:
    """Decide on the training, before it runs, and return its job: the highest rung, whose logits are kept."""
    limit = study.estimates.seconds_before_final(best)
    top = len(study.budget.rungs) - 1
    return study.begin(TrainingKind.STUDENT, TrainingPlan(top, best.samples, best.params, limit, trial=best.number))


def close(study: Study, found: Distillation, outcome: TrialOutcome, job: TrainingJob) -> Distillation:
    """Decide on the end of the training, and return whether it was better."""
    reason = settle(study, outcome, job)
    if reason or outcome.score is None or found.alone is None:
        return replace(found, reason=reason)
    is_better = study.objective.sign * (outcome.score - found.alone) > 0
    reason = "" if is_better else "no better on the validation images"
    return replace(found, value=outcome.score, is_kept=is_better, reason=reason)


def distillation_text(found: Distillation, objective: str) -> str:
    """Return in words whether the winner learns from a better trial, and why not."""
    if found.value is None:
        return f"not used: {found.reason}"
    change = f"{objective} {found.value:.4f}, without it {found.alone:.4f}"
    if found.is_kept:
        return f"the winner is distilled from trial {found.teacher}: {change}"
    return f"not used: {found.reason} ({change}, distilled from trial {found.teacher})"
