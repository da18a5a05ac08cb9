"""The last trainings of a search, in a child process: the reference network, and the winner with its test."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.card import Latency, NotFinite, Robustness
from pipeline.data.source import encodable
from pipeline.data.splits.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.models.predict import predict_logits
from pipeline.search.checkpoints import baseline_logits
from pipeline.search.events import Reporter
from pipeline.search.jobs import Findings, TrainingJob
from pipeline.search.worker import flip_average, networks, predictions
from pipeline.search.worker.evaluation import Answers, Decided, judge_winner
from pipeline.search.worker.rung import labelled, stored_dataset, train_watched
from pipeline.search.worker.student import taught
from pipeline.states import OutcomeState, TrainingKind
from pipeline.targets import is_right

_NUM_NAMED = 10  # images that are named in model.json


def train_final(job: TrainingJob, reporter: Reporter) -> tuple[float, Findings]:
    """Train the winner on train + validation, save it, and open the test split, once, with the saved file.

    Returns the test accuracy and the facts of the test. The logits are saved beside the model for reports.
    """
    from pipeline.training.latency import measure_latency

    spec, chosen, dataset = job.spec, job.chosen, stored_dataset(job)
    images, test = dataset.split("train", "val"), dataset.split("test")
    is_taught = chosen.winner == TrainingKind.STUDENT
    training = taught(job, dataset, images, reporter.heart) if is_taught else labelled(images)
    trained, ensemble = networks.train_networks(job, training, reporter)
    network = _answering([each.model for each in trained])
    average = flip_average.choose(job, ensemble, network)
    target = job.folders.model / "model.keras"
    saved = saved_model(network, average.is_kept, target)
    digests = dataset.digests(test.images)
    reporter.opening()
    decided = Decided(chosen.winner, average, chosen.distillation, ensemble, chosen.baseline)
    predict = partial(predict_logits, saved, on_batch=reporter.heart.touch)
    logits = predict(test.images)
    predictions.save(target.parent / "test_logits.npz", digests, logits=logits)
    counted = answered(dataset, test, digests, logits)
    robustness = _examined(job, decided, predict, test, counted)
    found = judge_winner(job.folders, spec, decided, counted, training.labels)
    if len(counted.labels) < len(logits):
        found = replace(found, test=replace(found.tested, not_finite=not_finite(dataset, test, logits)))
    found = replace(
        found,
        flip_average=average if spec.average_flips else None,
        distillation=chosen.distillation if spec.distill else None,
        ensemble=ensemble if spec.ensemble else None,
        robustness=robustness,
        latency=Latency(*measure_latency(saved)),
        planned_epochs=trained[0].num_planned,
    )
    return found.tested.accuracy, Findings(epochs=trained[0].epochs, evaluation=found, versions=_versions())


def answered(
    dataset: StoredDataset, test: Subset, digests: NDArray[np.uint8], logits: NDArray[np.float32]
) -> Answers:  # fmt: skip
    """Return the winner's answers to the test images, except those that are NaN or infinite.

    Raises:
        TrialFailed: all of them are.
    """
    places = np.flatnonzero(np.isfinite(logits).all(axis=1))
    if not len(places):
        raise TrialFailed(OutcomeState.FAILED, "the saved network gives NaN or infinity for every test image")
    rows = test.images.rows[places]
    slices = {name: (values, codes[rows]) for name, (values, codes) in dataset.slices().items()}
    is_clean = ~dataset.column("leaked")[rows]
    return Answers(logits[places], test.labels[places], digests[places], is_clean, slices, places)


def not_finite(dataset: StoredDataset, test: Subset, logits: NDArray[np.float32]) -> NotFinite:
    """Return for how many test images the winner gives NaN or infinity, and the names of the first of them."""
    names = [encodable(name) for name in dataset.names(test.images)]
    left_out = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    return NotFinite(len(left_out), tuple(names[place] for place in left_out[:_NUM_NAMED]))


def _answering(models: list[Any]) -> Any:
    """Return the model that labels images: the winner's network, or the mean of several."""
    from pipeline.models.build import averaged

    return models[0] if len(models) == 1 else averaged(models)


def saved_model(model: Any, is_flip_averaged: bool, target: Path) -> Any:
    """Save a trained model and return what loads from the file."""
    import keras

    from pipeline.models.build import flip_averaged

    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name("unfinished.keras")
    (flip_averaged(model) if is_flip_averaged else model).save(temporary)
    temporary.replace(target)
    return keras.saving.load_model(target, compile=False, safe_mode=True)


def _examined(
    job: TrainingJob, decided: Decided, predict: Callable[..., Any], test: Subset, answers: Answers
) -> Robustness:  # fmt: skip
    """Return how the accuracy of the saved model falls as the test images it is judged by change a little."""
    from pipeline.training.robustness import examine, num_examined, pixel_range

    flops = flip_average.work(job, decided.ensemble) * (2 if decided.flip_average.is_kept else 1)
    counted = answers.counted().places
    places = np.random.default_rng(0).permutation(counted)[: num_examined(len(counted), flops)]
    places.sort()
    return examine(predict, test.images[places], test.labels[places], pixel_range(job.spec.image.dtype, job.spec.std))


def train_default(job: TrainingJob, reporter: Reporter) -> tuple[float, Findings]:
    """Train the reference network on train + validation and keep its test predictions; return its accuracy.

    It is built by the product even if the space is code of the user. With flip averaging both answers are kept.
    """
    from pipeline.models.averaging import both_answers

    job = replace(job, spec=replace(job.spec, space={}))
    dataset = stored_dataset(job)
    training, test = labelled(dataset.split("train", "val")), dataset.split("test")
    model, last, _ = train_watched(job, training, None, reporter)
    predict = partial(predict_logits, model, on_batch=reporter.heart.touch)
    answers = both_answers(predict, test.images) if job.spec.average_flips else (predict(test.images),)
    digests = dataset.digests(test.images)
    for is_averaged, answer in enumerate(answers):
        predictions.save(baseline_logits(job.folders.baseline, bool(is_averaged)), digests, logits=answer)
    return float(is_right(answers[0], test.labels).mean()), Findings(epochs=last.step - job.first_step + 1)


def _versions() -> dict[str, str]:
    """Return the versions that the model depends on."""
    import keras

    import pipeline

    backend = keras.backend.backend()
    module = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend]
    return {
        "pipeline": pipeline.__version__,
        "keras": keras.__version__,
        "backend": backend,
        backend: __import__(module).__version__,
        "numpy": np.__version__,
    }
