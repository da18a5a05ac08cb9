"""All trainings of a search: its trials, the winner's, and those that it is compared with or answers together with."""

from pipeline.machine import Resources, num_cores
from pipeline.records import TrialRow
from pipeline.search import setup
from pipeline.search.engines.base import Engine
from pipeline.search.engines.local import local_engine
from pipeline.search.finalists.baseline import is_trained, train_baseline
from pipeline.search.finalists.distillation import distil, distillation_text
from pipeline.search.finalists.ensemble import choose_networks, ensemble_text
from pipeline.search.finish import Finished, chosen, finish, pick_trial
from pipeline.search.loop import run_trials
from pipeline.search.storage.store import StudyStore
from pipeline.search.study import Study
from pipeline.search.timing.budget import RESTART_SECONDS
from pipeline.search.timing.estimates import TimeEstimates
from pipeline.workflows.beginning import announce
from pipeline.workflows.callback import ProgressCallback, following
from pipeline.workflows.plan import Plan
from pipeline.workflows.progress import Progress, StopSignal


def train_all(
    plan: Plan, store: StudyStore, engine: Engine, estimates: TimeEstimates, progress: Progress, stop: StopSignal
) -> Finished:
    """Run the trials and the winner; or the trial that was picked alone."""
    study = setup.make_study(store, plan.config, estimates)
    if study.rows:
        progress.say(f"  resumed with {len(study.rows)} trial(s)")
    with following(study, estimates.elapsed, stop, progress) as callback:
        if plan.pick is not None:
            picked = study.rows[pick_trial(store, plan.pick).number]
            progress.say(f"training trial {picked.number} on train + validation, then opening the test split")
            return train_winner(plan, engine, callback, picked)
        announce(plan, study, store.get("precision"), progress)
        if not store.has_final_model():
            goal = plan.options.goal
            run_trials(study, engine, callback, goal and goal[1])
        return train_winner(plan, engine, callback)


def train_winner(plan: Plan, engine: Engine, callback: ProgressCallback, picked: TrialRow | None = None) -> Finished:
    """Train the winner, or the trial that was picked, in a process that has the whole machine if that is worth a start.

    The trials' children may be gone afterwards.
    """
    study = callback.study
    best = picked or study.leader
    if best is None or len(plan.resources) == 1 or study.estimates.final_gain(best) < RESTART_SECONDS:
        return _train_last(plan, engine, callback, picked)
    engine.stop()
    memory_mb = sum(each.memory_mb for each in plan.resources)
    whole = Resources(num_cores(), gpu=plan.resources[0].gpu, memory_mb=memory_mb)
    alone = local_engine([whole], plan.folder.log)
    try:
        alone.start()
        return _train_last(plan, alone, callback, picked)
    finally:
        alone.stop()


def _train_last(plan: Plan, engine: Engine, callback: ProgressCallback, picked: TrialRow | None) -> Finished:
    """Train the reference network and the winner; a picked trial is compared with the one of the search."""
    study, say = callback.study, callback.progress.say
    best = picked or chosen(study)
    if best is None or (picked is None and study.store.has_final_model()):
        return finish(study, engine, callback, picked)
    if plan.options.distill:
        say("testing whether distillation from a better trial improves the winner")
        distillation = distil(study, engine, callback, best)
        say(f"  {distillation_text(distillation, study.objective.name)}")
    if picked is None:
        _train_default(study, engine, callback, best)
    if plan.options.ensemble:
        say("testing whether an ensemble of networks like the winner's is better")
        ensemble = choose_networks(study, engine, callback, best)
        say(f"  {ensemble_text(ensemble, study.objective.name)}")
    if picked is None:
        say("training the winner on train + validation, then opening the test split")
    return finish(study, engine, callback, picked)


def _train_default(study: Study, engine: Engine, callback: ProgressCallback, best: TrialRow) -> None:
    if not is_trained(study.store):
        callback.progress.say("training a reference network on train + validation, to compare the winner with")
    if reason := train_baseline(study, engine, callback, best):
        callback.progress.say(f"  not trained: {reason}")
