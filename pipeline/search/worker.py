"""What runs in a child process: one task at a time, from the study's cached images to an outcome."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import StoredDataset, Subset
from pipeline.errors import TrialFailed
from pipeline.files import is_disk_full, replacing
from pipeline.machine import GPU_SHARE, Resources, end_with_parent, gpu_mb, has_bfloat16
from pipeline.pulse import going_on
from pipeline.records import COMPLETED, FAILED, INFEASIBLE, STOPPED, EpochRow, ImageSpec, TrialOutcome, TrialTask
from pipeline.search import validation
from pipeline.search.checkpoints import NEW_MODEL, baseline_logits, checkpoint_path, pulse_path
from pipeline.search.store import BASELINE_TRIAL, EPOCH_COLUMNS, FINAL_TRIAL, StudyStore
from pipeline.space import Builder

Report = Callable[[EpochRow], None]
Train = Callable[[TrialTask], tuple[float, dict[str, Any]]]  # to the score and what else is known

# What child processes are started with; the parent sets none of it for itself.
CHILD_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
# What Keras imports for tools that no training uses: 1.4 of the 3.7 s that its import takes.
NEEDLESS_IMPORTS = ("matplotlib", "pandas", "sklearn")
KILL_ME_FIRST = "500"  # of -1000 to 1000: when memory runs out the kernel kills a child rather than the search


def prepare(resources: Resources, log_path: str) -> None:
    """Make this child ready: its cores, GPU and threads, its chatter to a file, and Ctrl-C left to the parent.

    It ends with its parent.
    """
    end_with_parent()
    with Path(log_path).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until a training knows how to stop
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILL_ME_FIRST)
    if resources.cores:
        os.sched_setaffinity(0, resources.cores)
    os.environ.update(CHILD_ENVIRONMENT)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(resources.num_threads))
    if resources.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = resources.gpu
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{resources.gpu_share:.2f}"  # for JAX; `warm_up` limits TensorFlow


def warm_up() -> int:
    """Import what every task needs, so that it overlaps with what the parent does; return the number of the process."""
    with absent(NEEDLESS_IMPORTS):
        import pipeline.training.stopping
        import pipeline.training.trial
    from pipeline.training.compute import limit_gpu_memory

    gpu, share = os.environ.get("CUDA_VISIBLE_DEVICES"), float(os.environ.get("XLA_CLIENT_MEM_FRACTION", GPU_SHARE))
    if gpu and share < GPU_SHARE:  # another child has the rest
        limit_gpu_memory(share * gpu_mb([gpu])[0])

    pipeline.training.stopping.listen()
    return os.getpid() if pipeline.training.trial else 0


@contextlib.contextmanager
def absent(names: Iterable[str]) -> Iterator[None]:
    """Let packages look as if they were not installed; one that is imported already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an ImportError, says the import system
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def run_task(task: TrialTask) -> TrialOutcome:
    """Train and return the outcome."""
    last = {FINAL_TRIAL: train_final, BASELINE_TRIAL: train_default}
    return outcome_of(last.get(task.number, train_rung), task)


def outcome_of(train: Train, task: TrialTask) -> TrialOutcome:
    """Return the outcome of a training: every exception becomes one, with its reason.

    A full disk is no fault of the trial: it goes on when there is room.
    """
    started = time.monotonic()
    try:
        score, facts = train(task)
        state, reason = COMPLETED, ""
    except TrialFailed as error:
        score, facts, state, reason = None, error.facts, error.state, error.reason
    except (Exception, SystemExit) as error:  # noqa: BLE001  border: what a training raises is recorded with its reason
        score, facts, state, reason = None, {}, FAILED, f"{type(error).__name__}: {error}"[:500]
        if is_disk_full(error):
            facts, state, reason = {"is_disk_full": True}, STOPPED, f"the disk is full; free some space ({reason})"
    seconds = time.monotonic() - started
    return TrialOutcome(task.attempt, task.number, task.rung, state, score, reason, seconds, facts)


def stored_dataset(task: TrialTask, facts: dict[str, Any]) -> StoredDataset:
    """Return the data set of a study."""
    return StoredDataset(Path(task.study_path) / "data", Path(facts["cache"]), ImageSpec(**facts["image"]))


def labelled(subset: Subset) -> Any:
    """Return images as the training takes them."""
    from pipeline.training.images import Labelled

    return Labelled(subset.images, subset.labels, subset.weights)


def train_rung(task: TrialTask) -> tuple[float, dict[str, Any]]:
    """Train one trial to the end of a rung and return the objective's value there, the mean of the folds if any."""
    store = StudyStore(Path(task.study_path) / "study.db")
    try:
        facts = store.facts()
        dataset, report = stored_dataset(task, facts), reporter(store, task)
        costs = latencies(task, facts) if task.rung == 0 else {}
        if facts.get("folds"):
            last = train_folds(task, facts, dataset, report)
        else:
            training, held_out = labelled(dataset.split("train")), labelled(dataset.split("val"))
            model, last, _ = train_watched(task, facts, training, held_out, report)
            validation.keep(task, [validation.predicted(task, facts, model, held_out)])
    finally:
        store.close()
    return float(getattr(last, facts["objective"])), costs


def train_watched(
    task: TrialTask, facts: dict[str, Any], training: Any, validation: Any, report: Report, fold: int | None = None
) -> Any:  # fmt: skip
    """Train, with a checkpoint each epoch and a pulse each batch; a lack of memory is marked as such."""
    from pipeline.training.trial import TrainingFiles, train

    pulse = pulse_path(task.study_path, task.attempt)
    pulse.parent.mkdir(exist_ok=True)
    files = TrainingFiles(checkpoint=checkpoint_path(task, fold), pulse=pulse)
    try:
        return train(task.params, training, validation, setting(task, facts), report, files)
    except TrialFailed as error:
        if error.state == INFEASIBLE:
            error.facts["is_out_of_memory"] = True
        raise


def latencies(task: TrialTask, facts: dict[str, Any]) -> dict[str, float]:
    """Return the measured latency of a network, if the study asks for it: before it trains.

    Raises:
        TrialFailed: it is over the limit.
    """
    limit = (facts.get("limits") or {}).get("max_latency_ms")
    if limit is None and facts.get("minimise") != "latency":
        return {}
    from pipeline.models.build import Pixels, build
    from pipeline.training.latency import measure_latency

    image = ImageSpec(**facts["image"])
    pixels = Pixels(image.shape, image.dtype, tuple(facts["mean"]), tuple(facts["std"]))
    default_ms, one_core_ms = measure_latency(
        build(task.params, pixels, len(facts["classes"]), Builder.of(facts["space"]))
    )
    one_core_ms = default_ms if one_core_ms is None else one_core_ms  # where threads cannot be pinned
    measured = {"latency_ms": default_ms, "latency_ms_1core": one_core_ms}
    if limit is not None and one_core_ms > limit:
        raise TrialFailed(INFEASIBLE, f"{one_core_ms:.2f} ms for one image on one core, more than {limit:g}", measured)
    return measured


def train_folds(task: TrialTask, facts: dict[str, Any], dataset: StoredDataset, report: Report) -> EpochRow:
    """Train once for each fold that is held out and report the mean of the folds, epoch by epoch, with the last one."""
    ends = time.monotonic() + task.seconds_limit
    num_folds = facts["folds"]
    curves: list[list[EpochRow]] = []
    logits: list[list[NDArray[Any]]] = []
    for number in range(num_folds):
        curves.append([])
        training, held_out = map(labelled, dataset.fold(number))
        part = replace(task, samples=task.samples // num_folds, seconds_limit=ends - time.monotonic())
        add = partial(add_to_curve, curves, report if number == num_folds - 1 else None)
        model, _, _ = train_watched(part, facts, training, held_out, add, number)
        logits.append(validation.predicted(task, facts, model, held_out))
    validation.keep(task, logits)
    return mean_row([curve[-1] for curve in curves])


def add_to_curve(curves: list[list[EpochRow]], report: Report | None, row: EpochRow) -> None:
    """Keep an epoch of the newest fold; report the mean of all folds if that one is the last."""
    curves[-1].append(row)
    if report:
        place = len(curves[-1]) - 1
        report(mean_row([curve[place] for curve in curves]))


def mean_row(rows: list[EpochRow]) -> EpochRow:
    """Return one epoch that has the mean figures of several folds and the sum of their seconds."""
    names = [name for name in EPOCH_COLUMNS if name != "seconds"]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return EpochRow(step=rows[-1].step, seconds=sum(row.seconds for row in rows), **means)


def train_final(task: TrialTask) -> tuple[float, dict[str, Any]]:
    """Train the winner on train + validation, save it, and open the test split, once, with the saved file.

    Returns the test accuracy and the facts of the test. The logits are saved beside the model for reports.
    """
    import keras

    from pipeline.models.predict import predict_logits
    from pipeline.search.verdict import judge_winner
    from pipeline.training.latency import measure_latency
    from pipeline.training.recipe import without_recipe

    store = StudyStore(Path(task.study_path) / "study.db")
    try:
        facts = store.facts()
        dataset = stored_dataset(task, facts)
        training = labelled(dataset.split("train", "val"))
        model, last, num_planned = train_watched(task, facts, training, None, reporter(store, task))
        target = Path(task.study_path) / NEW_MODEL / "model.keras"
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name("unfinished.keras")
        without_recipe(model).save(temporary)
        temporary.replace(target)
        saved = keras.saving.load_model(target, compile=False, safe_mode=True)
        test = dataset.split("test")
        is_clean = ~dataset.column("leaked")[test.images.rows]
        slices = {name: (values, codes[test.images.rows]) for name, (values, codes) in dataset.slices().items()}
        with closing(going_on(pulse_path(task.study_path, task.attempt))) as pulse:
            predict = partial(predict_logits, saved, on_batch=pulse.touch)
            logits = predict(test.images)
            robustness = examined(task, facts, predict, test, is_clean)
        default_ms, one_core_ms = measure_latency(saved)
        np.save(target.parent / "test_logits.npy", logits)
        found = judge_winner(task.study_path, facts, logits, test.labels, is_clean, training.labels, slices)
        found["epochs"] = max(0, last.step - task.first_step + 1)  # fewer than planned if the time was over
        found |= {"planned_epochs": num_planned, "robustness": robustness}
        found["latency"] = {"default_ms": default_ms, "one_core_ms": one_core_ms}
    finally:
        store.close()
    return found["test"]["accuracy"], {**found, "versions": versions()}


def examined(
    task: TrialTask, facts: dict[str, Any], predict: Callable[..., Any], test: Subset, is_clean: NDArray[np.bool_]
) -> dict[str, Any]:  # fmt: skip
    """Return how the accuracy of the saved model falls when some of the test images change a little.

    Those that have a copy in train or val (`is_clean` is false) are left out, unless all have.
    """
    from pipeline.models.cost import measure
    from pipeline.training.robustness import examine, num_examined, pixel_range

    image = facts["image"]
    flops = measure(task.params, ImageSpec(**image).shape, len(facts["classes"]), Builder.of(facts["space"])).flops
    counted = np.flatnonzero(is_clean if is_clean.any() else np.ones(len(is_clean), bool))
    places = np.random.default_rng(0).permutation(counted)[: num_examined(len(counted), flops)]
    places.sort()
    scale = pixel_range(image["dtype"], facts["std"])
    return examine(predict, test.images[places], test.labels[places], scale)


def train_default(task: TrialTask) -> tuple[float, dict[str, Any]]:
    """Train the default network on train + validation and keep what it says of the test images; return its accuracy.

    It is built by the product even where the space is code of the user.
    """
    from pipeline.models.predict import predict_logits

    store = StudyStore(Path(task.study_path) / "study.db")
    try:
        facts = store.facts() | {"space": {}}
        dataset = stored_dataset(task, facts)
        training, test = labelled(dataset.split("train", "val")), dataset.split("test")
        model, last, _ = train_watched(task, facts, training, None, reporter(store, task))
        with closing(going_on(pulse_path(task.study_path, task.attempt))) as pulse:
            logits = predict_logits(model, test.images, on_batch=pulse.touch)
    finally:
        store.close()
    path = baseline_logits(task.study_path)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, logits)
    return float((logits.argmax(axis=1) == test.labels).mean()), {"epochs": last.step - task.first_step + 1}


def setting(task: TrialTask, facts: dict[str, Any]) -> Any:
    """Return what the training needs to know of the study and of the task."""
    from pipeline.training.trial import Setting

    return Setting(
        num_classes=len(facts["classes"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        dtype=facts["image"]["dtype"],
        samples=task.samples,
        seed=task.seed,
        objective=facts["objective"],
        seconds_limit=task.seconds_limit,
        seconds_wanted=task.wanted_end - time.monotonic(),
        first_step=task.first_step,
        num_micro_batches=task.num_micro_batches,
        is_deterministic=bool(facts.get("is_deterministic")),
        keeps_unfinished=task.is_final,
        allows_flips=facts.get("allows_flips", True),
        adjusts_logits=facts.get("balance") == "logits",
        precision=facts.get("precision", "float32") if has_bfloat16() else "float32",
        builder=Builder.of(facts["space"]),
    )


def reporter(store: StudyStore, task: TrialTask) -> Report:
    """Return the function that records an epoch."""
    return partial(store.add_epoch, task.attempt)


def versions() -> dict[str, str]:
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
