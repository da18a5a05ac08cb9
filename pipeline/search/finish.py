"""The end of a search: which trial wins, its last training, its test, and the folder of its model."""

import math
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.bundle import read_bundle, write_bundle
from pipeline.card import Evaluation, ModelCard, num_networks
from pipeline.crashpoints import crashpoint
from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.records import Objective, TrialRow
from pipeline.search.checkpoints import drop_files
from pipeline.search.engines.base import Engine
from pipeline.search.health import CURES
from pipeline.search.jobs import Chosen, Findings, TrainingJob, TrainingPlan
from pipeline.search.loop import SearchCallback, forget, train_to_end
from pipeline.search.ranking import at_knee, knee, pareto_front, ranked, winner
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.states import AttemptState, OutcomeState, TrainingKind
from pipeline.workspace import StudyFolder


@dataclass(frozen=True)
class Finished:
    """What a search ends with: the winning trial, the folder of its model, and what is known of that.

    `front` are the trials that no other beats in both objectives, the cheapest first; empty with one objective.
    """

    winner: TrialRow
    model_folder: Path
    card: ModelCard
    front: tuple[TrialRow, ...] = ()


def finish(study: Study, engine: Engine, callback: SearchCallback, picked: TrialRow | None = None) -> Finished:
    """Train the winner, or a trial that was picked, on train + validation, open the test split, and write the model.

    Raises:
        StoppedEarly: no trial finished, or the winner's last training failed; the message names the reason.
    """
    adopt_model(study.store.folder)
    if picked is None and study.store.has_final_model():  # an earlier process was stopped before MLflow had it
        return _finished_model(study)
    best = picked or chosen(study)
    if best is None:
        raise StoppedEarly(_no_winner(study.store))
    outcome, job = train_to_end(study, engine, lambda: begin_final(study, best), callback)
    if outcome.state != OutcomeState.COMPLETED:
        raise StoppedEarly(
            f"study {study.store.get('study')}: the last training of trial {best.number} ended as {outcome.state}: "
            f"{outcome.reason}; all trials are kept; run the same command with --resume to train it again"
        )
    crashpoint("final-trained")
    epochs = study.num_epochs(TrainingKind.FINAL, job.samples)
    write_bundle(study.store.folder.new_model, card_of(study, best, epochs, outcome.findings))
    crashpoint("facts-written")
    study.end_attempt(study.attempt_of(outcome), AttemptState.DONE, outcome)
    study.store.save()
    adopt_model(study.store.folder)
    drop_files(job)
    forget(study, job)
    return _finished_model(study)


def begin_final(study: Study, best: TrialRow) -> TrainingJob:
    """Decide on the winner's last training, on train + validation, and return its job.

    It sees the images of all networks where several answer. One that was stopped goes on as it began.
    """
    store, estimates = study.store, study.estimates
    lesson, ensemble = store.distillation(), store.ensemble()
    is_taught = lesson is not None and lesson.is_kept and lesson.student == best.number
    number = num_networks(ensemble) if ensemble is not None and ensemble.winner == best.number else 1
    if ensemble is not None and ensemble.samples is not None and number > 1:
        samples = number * ensemble.samples
    elif study.last_state(TrainingKind.FINAL) == AttemptState.STOPPED and study.budget.is_timed:
        samples = study.attempts[TrainingKind.FINAL][-1].samples
    else:
        samples = estimates.hoped_samples(best)
    limits = estimates.final_limits(best, number)
    chosen = Chosen(TrainingKind.STUDENT if is_taught else best.number, lesson, ensemble, store.baseline())
    plan = TrainingPlan(best.rung, samples, best.params, *limits, trial=best.number, chosen=chosen)
    return study.begin(TrainingKind.FINAL, plan)


def adopt_model(folder: StudyFolder) -> None:
    """Put a new model that is whole in the place of the one before, if there is one; a kill in between is made good."""
    new, model = folder.new_model, folder.model
    if (new / "model.json").is_file():
        crashpoint("before-adopt")
        shutil.rmtree(model, ignore_errors=True)
        crashpoint("model-removed")
        new.rename(model)
        crashpoint("after-adopt")


def chosen(study: Study) -> TrialRow | None:
    """Return the winner: the best, or with two objectives the knee of the front.

    The best is that of the highest rung, unless a trial of a lower one, which training further would rather improve, is
    better by more than the standard error of the difference that chance makes, and can still be trained.
    """
    rows, objective = list(study.rows.values()), study.objective
    if objective.minimise is not None:
        return at_knee(rows, objective)
    best = winner(rows, objective)
    if best is None or best.score is None:
        return None
    least = objective.sign * best.score + standard_error(best.score, study.context.num_val_images)
    better = [row for row in rows if row.score is not None and objective.sign * row.score > least]
    affordable = [row for row in better if study.estimates.fits_final(row)]
    return ranked(affordable, objective)[0] if affordable else best


def standard_error(score: float, num_images: int) -> float:
    """Return the standard error of a share of images; of a loss, which is none, that of an even chance."""
    share = score if 0 < score < 1 else 0.5
    return math.sqrt(share * (1 - share) / max(num_images, 1))


def pick_trial(store: StudyStore, pick: str) -> TrialRow:
    """Return the trial that a user means: a number, or `knee` for that of the front.

    Raises:
        InvalidUsage: there is no such trial, it has no score, or the study has no front.
    """
    rows, name = {row.number: row for row in store.trials()}, store.get("study")
    objective = Objective(store.get("objective"), store.get("minimise"))
    front = pareto_front(list(rows.values()), objective) if objective.minimise else []
    if pick == "knee":
        if not front:
            raise InvalidUsage(
                f"study {name} has no front: it looked for one objective ({objective.name}); expected one with "
                "--minimise; name a trial with --pick NUMBER"
            )
        return knee(front, objective)
    row = rows.get(int(pick)) if pick.isdecimal() else None
    if row is None or row.score is None:
        scored = ", ".join(str(each.number) for each in front or ranked(rows.values(), objective)[:10])
        raise InvalidUsage(
            f"--pick {pick}: no trial of study {name} with a score; expected `knee` or a number such as "
            f"{scored or 'none'}; see them with: pipeline runs {name}"
        )
    return row


def card_of(study: Study, best: TrialRow, epochs: int, findings: Findings) -> ModelCard:
    """Return what is known of the saved model; `findings` are those of its last training."""
    spec, evaluation = study.store.spec(), findings.evaluation or Evaluation()
    evaluation = replace(evaluation, planned_epochs=evaluation.planned_epochs or epochs)
    num_params, mflops = cost_of(best, evaluation)
    return ModelCard(
        classes=spec.classes,
        image=spec.image,
        is_multi_label=spec.is_multi_label,
        params=best.params,
        num_params=num_params,
        mflops=mflops,
        epochs=epochs if findings.epochs is None else findings.epochs,  # fewer than planned if its time was over
        study=spec.study,
        trial=best.number,
        data_fingerprint=spec.fingerprint,
        objective=spec.objective,
        score=final_score(best, evaluation),
        evaluation=evaluation,
        versions=findings.versions,
    )


def cost_of(best: TrialRow, evaluation: Evaluation) -> tuple[int, float]:
    """Return weights and MFLOPs of all networks that answer; they look twice at an image where flips are averaged."""
    number = evaluation.num_networks
    return number * best.num_params, round(number * evaluation.num_views * best.mflops, 3)


def final_score(best: TrialRow, evaluation: Evaluation) -> float | None:
    """Return the winner's objective on the validation images: as it learnt from a better trial, or of an ensemble."""
    for decision in (evaluation.distillation, evaluation.ensemble):
        if decision is not None and decision.is_kept:
            return decision.value
    return best.score


def _finished_model(study: Study) -> Finished:
    """Return what the search ended with, from the model's folder.

    Raises:
        ModelRefused: the folder was damaged since.
    """
    folder = study.store.folder.model
    card = read_bundle(folder).card
    best = study.rows[card.trial or 0]
    front = pareto_front(list(study.rows.values()), study.objective) if study.objective.minimise else []
    return Finished(best, folder, card, tuple(front))


def _no_winner(store: StudyStore) -> str:
    """Return why there is no winner, with the commonest reason and what to do."""
    rows = store.trials()
    failures = Counter((row.state, row.reason) for row in rows if row.reason)
    reason, cure = "", "give it more time (--budget) or a smaller space (--space tiny)"
    if failures:
        state, text = max(failures, key=failures.__getitem__)
        reason, cure = f"; most often {state}: {text}", CURES.get(state, cure)
    return (
        f"study {store.get('study')}: none of {len(rows)} trial(s) finished{reason}; expected at least one; {cure}; "
        "then run it again"
    )
