"""Whatever becomes of a child process, the parent gets an outcome with a reason, and a child takes the next task."""

import itertools
import os
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InvalidUsage, StoppedEarly
from pipeline.heartbeat import Beat
from pipeline.machine import Resources
from pipeline.search.checkpoints import checkpoint_path
from pipeline.search.engines.child import Child, WatchdogTimeouts, is_process
from pipeline.search.engines.local import TASKS_PER_CHILD, LocalEngine, Work, bound_log
from pipeline.search.events import EpochEnded, Heartbeat, SplitOpened, TrainingEnded
from pipeline.search.jobs import TrainingJob
from pipeline.search.loop import run_trials
from pipeline.search.study import MICRO_BATCHES
from pipeline.search.worker.predictions import load
from pipeline.search.worker.validation import logits_path
from pipeline.states import TrainingKind
from pipeline.workspace import StudyFolder
from tests.search import fault_stubs
from tests.search.noise_study import make_noise_study, real_task
from tests.search.stubs import Silence, job_in, make_study, unlimited

MEMORY_MB = 400.0
IMPATIENT = WatchdogTimeouts(start=60.0, build=1.0, silent=1.0, overtime=0.0, term=0.3)


def bad_task(folder, fault: str, attempt: int = 1, **changes) -> TrainingJob:
    params = {"fault": fault, "score": changes.pop("score", None)}
    job = job_in(folder, attempt, 3, 0, 100, params, seconds_limit=600.0)
    return replace(job, **changes)


def next_outcome(engine, events=None):
    """Wait for the end of a training, and keep what it tells before."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for event in engine.poll(1.0):
            if isinstance(event, TrainingEnded):
                return event.outcome
            if events is not None:
                events.append(event)
    raise AssertionError("the engine does not answer")


def do(engine, job, events=None):
    """Have a task done by a child that is warm: its patience is short."""
    engine.check()
    engine.submit(job)
    return next_outcome(engine, events)


def outcomes_of(events):
    return [event.outcome for event in events if isinstance(event, TrainingEnded)]


def wait_for_epoch(engine):
    """Wait until a training has ended its first epoch."""
    while not any(isinstance(event, EpochEnded) for event in engine.poll(0.05)):
        assert engine.running


def wait_for_beats(engine, *attempts):
    """Wait until the trainings of some attempts have begun."""
    begun = set()
    while not begun.issuperset(attempts):
        begun.update(event.attempt for event in engine.poll(0.05) if isinstance(event, Heartbeat))


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start an engine of stub children, which is stopped after the test."""
    engines = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the engine sets it

    def start_engine(warm_up=fault_stubs.warm_up, timeouts=IMPATIENT, num_children=1, train=fault_stubs.train):
        resources = [Resources(1, memory_mb=MEMORY_MB)] * num_children
        engines.append(LocalEngine(resources, tmp_path / "log", Work(train, warm_up), timeouts))
        engines[-1].start()
        return engines[-1]

    yield start_engine
    for engine in engines:
        engine.stop()


FAULTS = [
    ("raise_an_error", "FAILED", "ValueError: no such layer"),
    ("leave_python", "FAILED", "SystemExit: 3"),
    ("leave_the_process", "CRASHED", "its process died (exit code 9)"),
    ("break_the_process", "CRASHED", "its process died (signal 11)"),
    ("take_memory", "INFEASIBLE", "its process took N MB of memory; its share is 400 MB"),
    ("hang_before_the_first_step", "TIMEOUT", "no step for N s; killed"),
    ("hang_after_a_step", "TIMEOUT", "no step for N s; killed"),
    ("hang_and_ignore_sigterm", "TIMEOUT", "no step for N s; killed"),
    ("return_nothing", "FAILED", "the training returned None; expected an outcome"),
]


@pytest.mark.heavy
def test_every_fault_has_its_state_and_a_child_takes_the_next_task(start, tmp_path):
    engine = start()
    for number, (fault, state, reason) in enumerate(FAULTS):
        outcome = do(engine, bad_task(tmp_path, fault, attempt=2 * number))
        shown = re.sub(r"\d+ (s;|MB of)", r"N \1", outcome.reason)
        assert (outcome.state, shown, outcome.score) == (state, reason, None)
        assert (outcome.attempt, outcome.number, outcome.rung) == (2 * number, 3, 0)
        assert outcome.findings.is_out_of_memory == (state == "INFEASIBLE")
        after = do(engine, bad_task(tmp_path, "work_as_bidden", attempt=2 * number + 1))
        assert (after.state, after.score, engine.num_free()) == ("COMPLETED", 0.5, 1)


@pytest.mark.heavy
def test_what_a_training_returns_is_checked_and_what_it_prints_goes_to_the_log(start, tmp_path):
    engine = start(timeouts=WatchdogTimeouts())
    shown = {"nan": "nan", "inf": "inf", "-inf": "-inf", "text": "'0.9'"}
    for score, text in shown.items():
        outcome = do(engine, bad_task(tmp_path, "return_an_odd_score", score=score))
        assert (outcome.state, outcome.score) == ("FAILED", None)
        assert outcome.reason == f"the score became {text}; expected a finite number"
    unsent = do(engine, bad_task(tmp_path, "return_what_cannot_be_sent"))
    assert (unsent.state, "pickle" in unsent.reason) == ("FAILED", True)
    assert "_thread.lock" in unsent.reason
    assert do(engine, bad_task(tmp_path, "print_a_line")).state == "COMPLETED"
    assert (tmp_path / "log").read_text() == "a line of a training\n"


@pytest.mark.heavy
def test_what_children_print_is_bounded_and_its_end_is_kept(start, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.search.engines.local.LOG_BYTES", 3_000_000)
    engine, log, older = start(timeouts=WatchdogTimeouts(), num_children=2), tmp_path / "log", tmp_path / "log.1"
    engine.check()
    for attempt in (1, 2):
        engine.submit(bad_task(tmp_path, "print_until_asked", attempt=attempt))
    while not older.exists():
        engine.poll(0.05)
    sizes = []
    for _ in range(40):
        engine.poll(0.05)
        sizes.append(log.stat().st_size)
    assert max(sizes) < 3 * 3_000_000  # what two children print between two looks comes on top
    assert older.stat().st_size <= 3_000_000
    assert any(after < before for before, after in itertools.pairwise(sizes))
    assert len(outcomes_of(engine.interrupt(seconds=60.0))) == 2
    assert do(engine, bad_task(tmp_path, "print_a_line", attempt=3)).state == "COMPLETED"
    assert log.read_bytes().endswith(b"a line of a training\n")
    assert b"\0" not in log.read_bytes()  # a child that wrote where it was would leave a hole


def test_a_long_log_of_an_earlier_search_is_cut_and_one_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.search.engines.local.LOG_BYTES", 10)
    log, older = tmp_path / "log", tmp_path / "log.1"
    bound_log(log)
    assert not log.exists()
    log.write_text("0123456789")
    bound_log(log)
    assert (log.read_text(), older.exists()) == ("0123456789", False)
    log.write_text("x" * 1000 + "9876543210")
    bound_log(log)
    assert (log.read_text(), older.read_text()) == ("", "9876543210")
    older.unlink()
    older.mkdir()
    log.write_text("0123456789a")
    bound_log(log)
    assert log.read_text() == ""


@pytest.mark.heavy
def test_a_child_that_is_killed_from_outside_says_by_what(start, tmp_path):
    engine = start(timeouts=WatchdogTimeouts())
    engine.check()
    engine.submit(bad_task(tmp_path, "step_for_ever"))
    wait_for_beats(engine, 1)
    os.kill(engine.children[0].pid, signal.SIGKILL)
    died = next_outcome(engine)
    killed = "its process died (signal 9, which the kernel sends when memory runs out)"
    assert (died.state, died.reason) == ("CRASHED", killed)


@pytest.mark.heavy
def test_a_search_goes_on_over_all_faults(start, tmp_path):
    engine = start(timeouts=replace(IMPATIENT, build=60.0), num_children=2, train=fault_stubs.train_by_number)
    study = make_study(tmp_path / "study", unlimited(6, rungs=(1000,)))
    run_trials(study, engine, Silence(), free_floor_mb=0)
    ends = ["CRASHED", "INFEASIBLE", "TIMEOUT", "FAILED", "COMPLETED", "COMPLETED"]
    assert [row.state for row in study.store.trials()] == ends
    tried = {number: [each.state for each in study.store.attempts(number)] for number in range(3)}
    assert tried == {0: ["DIED", "DIED"], 1: ["RETRIED", "INFEASIBLE"], 2: ["TIMEOUT"]}
    assert [each.num_micro_batches for each in study.store.attempts(1)] == [1, MICRO_BATCHES]
    study.store.close()


@pytest.mark.heavy
def test_a_task_that_runs_over_its_limit_is_killed(start, tmp_path):
    outcome = do(start(), bad_task(tmp_path, "step_for_ever", seconds_limit=0.5))
    assert (outcome.state, outcome.reason) == ("TIMEOUT", "still running 0 s after its limit of 0 s; killed")


@pytest.mark.heavy
def test_children_are_replaced_when_they_die_idle_or_have_worked_enough(start, tmp_path):
    engine = start(timeouts=WatchdogTimeouts())
    child = engine.children[0]
    first = do(engine, bad_task(tmp_path, "work_as_bidden")).findings.epochs
    same = do(engine, bad_task(tmp_path, "work_as_bidden")).findings.epochs
    assert (same, child.pid) == (first, first)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # dead, and left for pebble to notice
    second = do(engine, bad_task(tmp_path, "work_as_bidden"))
    if second.state == "CRASHED":  # the task went to the dead one before pebble had noticed
        second = do(engine, bad_task(tmp_path, "work_as_bidden"))
    assert (second.state, second.findings.epochs != first) == ("COMPLETED", True)
    child.num_tasks = TASKS_PER_CHILD
    third = do(engine, bad_task(tmp_path, "work_as_bidden")).findings.epochs
    assert third not in (first, second.findings.epochs)
    assert not is_process(second.findings.epochs)


@pytest.mark.heavy
def test_an_interruption_stops_those_that_hear_it_and_kills_the_others(start, tmp_path):
    engine = start(timeouts=WatchdogTimeouts(), num_children=4)
    engine.check()
    engine.submit(bad_task(tmp_path, "step_until_asked", attempt=1))
    for attempt in (2, 3, 4):
        engine.submit(bad_task(tmp_path, "hang_and_ignore_sigterm", attempt=attempt))
    pids = [child.pid for child in engine.children]
    wait_for_beats(engine, 1, 2, 3, 4)
    assert engine.num_free() == 0
    begun = time.monotonic()
    heard, *killed = outcomes_of(engine.interrupt(seconds=2.0))
    assert time.monotonic() - begun < 2.0 + 2.5  # killed at once: pebble itself gives each of them 3 s after SIGTERM
    assert (heard.attempt, heard.state, heard.reason) == (1, "STOPPED", "")
    assert [(outcome.attempt, outcome.state) for outcome in killed] == [(2, "STOPPED"), (3, "STOPPED"), (4, "STOPPED")]
    assert killed[0].reason == "stopped before it could save; it goes on from its last checkpoint"
    assert [is_process(pid) for pid in pids] == [True, False, False, False]
    assert engine.num_free() == 4
    engine.stop()
    assert not is_process(pids[0])


@pytest.mark.heavy
def test_a_child_that_cannot_start_gives_back_its_task_or_says_what_to_install(start, tmp_path):
    hanging = start(fault_stubs.hang_at_start, replace(IMPATIENT, start=2.0))
    hanging.submit(bad_task(tmp_path, "work_as_bidden"))
    outcome = next_outcome(hanging)
    assert (outcome.state, outcome.reason) == ("TIMEOUT", "its process did not start within 2 s; killed")
    dying = start(fault_stubs.die_at_start)
    dying.submit(bad_task(tmp_path, "hang_before_the_first_step"))
    outcome = next_outcome(dying)
    assert (outcome.state, outcome.reason) == ("CRASHED", "its process could not start: Abnormal termination")
    with pytest.raises(StoppedEarly, match=r"died while it started .*log; free memory.* the same command again"):
        start(fault_stubs.die_at_start).check()
    with pytest.raises(InvalidUsage, match=r"No module named 'tensorflow'.*pip install tensorflow-cpu"):
        start(fault_stubs.lack_the_backend).check()


# ---- a real training -------------------------------------------------------------------------------------------------


@pytest.fixture
def study_folder(tmp_path):
    return make_noise_study(tmp_path / "mlruns" / "studies" / "noise-1")


@pytest.mark.heavy
def test_a_real_child_trains_fails_stops_and_saves_a_model(study_folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    engine, told = LocalEngine([Resources(1)], study_folder / "trials.log"), []
    engine.start()
    try:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # the parent never touches a GPU
        trained = do(engine, real_task(study_folder, 0), told)
        rows = [event.row for event in told if isinstance(event, EpochEnded)]
        assert [row.step for row in rows] == [1, 2]
        assert (trained.state, trained.score) == ("COMPLETED", rows[-1].val_loss)
        raised = do(engine, real_task(study_folder, 1, pooling="no such pooling", depth=2))
        assert (raised.state, "no such pooling" in raised.reason) == ("FAILED", True)
        engine.submit(replace(real_task(study_folder, 2), samples=10**6))
        wait_for_epoch(engine)
        (stopped,) = outcomes_of(engine.interrupt(seconds=60.0))
        assert stopped.state == "STOPPED"
        assert re.match(r"it was stopped after \d+ of 41667 epochs", stopped.reason)
        assert checkpoint_path(real_task(study_folder, 2)).exists()
        told.clear()
        final = do(engine, replace(real_task(study_folder, TrainingKind.FINAL), attempt=9, is_final=True), told)
    finally:
        engine.stop()
    kinds = [type(event) for event in told if not isinstance(event, Heartbeat)]
    assert kinds == [EpochEnded, EpochEnded, SplitOpened]
    evaluation = final.findings.evaluation
    test = evaluation.test
    assert (final.state, test.num_images, test.leaked.num_images) == ("COMPLETED", 7, 1)
    assert final.score == test.accuracy
    assert test.majority.number in (0, 1)
    with np.load(logits_path(StudyFolder(study_folder).logits, 0)) as kept:  # of a network that did not train on them
        assert (kept["logits"].shape, kept["labels"].tolist()) == ((8, 2), [0, 1] * 4)
    validation = evaluation.validation
    assert validation.value == pytest.approx(rows[-1].val_loss, abs=1e-5)
    assert validation.ci95[0] <= validation.value <= validation.ci95[1]
    temperature = evaluation.temperature
    assert (temperature.value, temperature.reason) == (1.0, "8 validation images; expected 50 or more")
    assert temperature.test.ece_before == temperature.test.ece_after > 0
    assert load(study_folder / "model.new" / "test_logits.npz")["logits"].shape == (8, 2)
    assert (final.findings.epochs, evaluation.planned_epochs) == (2, 2)
    assert evaluation.robustness.num_images == 7  # one has a copy in train
    assert all(0 < milliseconds < 1000 for milliseconds in vars(evaluation.latency).values())
    assert set(evaluation.robustness.changes) == {"noise", "blur", "darker", "brighter", "jpeg"}
    assert sum(sum(row.values()) for row in evaluation.confusion.values()) == 7
    assert [each.num_images for each in evaluation.by_class.values()] == [4, 3]
    assert (study_folder / "model.new" / "model.keras").stat().st_size > 10_000


# ---- the watchdog without a process ---------------------------------------------------------------------------------


def judged(folder, began: float, timeouts: WatchdogTimeouts, beat=None, **changes):
    """Return the verdict on a task that began some seconds ago."""
    job = bad_task(folder, "none", **changes)
    child = Child(Resources(1), folder / "log", fault_stubs.warm_up, timeouts)
    child.began = time.monotonic() - began
    if beat is not None:
        child.beat, child.heard = Beat(1, 1, beat["batch"], 10, beat["step"]), time.monotonic() - beat["ago"]
    return child.judge(job)


def test_slow_steps_and_slow_builds_are_no_hangs(tmp_path):
    timeouts = WatchdogTimeouts(start=5, build=600, silent=120, silent_steps=20, overtime=60)
    assert judged(tmp_path, 599, timeouts) is None
    assert judged(tmp_path, 601, timeouts) == ("TIMEOUT", "no step for 601 s; killed")
    built = {"batch": 0, "step": 0.0, "ago": 601}
    assert judged(tmp_path, 650, timeouts, built) == ("TIMEOUT", "no step for 601 s; killed")
    assert judged(tmp_path, 650, timeouts, {**built, "ago": 10}) is None
    steps = {"batch": 3, "step": 1.0, "ago": 121}
    assert judged(tmp_path, 300, timeouts, steps) == ("TIMEOUT", "no step for 121 s; killed")
    assert judged(tmp_path, 300, timeouts, {**steps, "step": 30.0, "ago": 599}) is None
    assert judged(tmp_path, 602, timeouts, {**steps, "step": 30.0, "ago": 601})[0] == "TIMEOUT"


def test_the_heartbeat_of_an_earlier_task_condemns_nobody(tmp_path):
    old = {"batch": 0, "step": 0.0, "ago": 5000}
    assert judged(tmp_path, 10, WatchdogTimeouts(), old) is None


def test_a_task_may_run_over_its_limit_by_a_little(tmp_path):
    assert judged(tmp_path, 369, WatchdogTimeouts(), seconds_limit=10.0) is None  # it may still be importing
    assert judged(tmp_path, 371, WatchdogTimeouts(), seconds_limit=10.0)[0] == "TIMEOUT"
    steps = {"batch": 3, "step": 0.1, "ago": 0}
    assert judged(tmp_path, 69, WatchdogTimeouts(), steps, seconds_limit=10.0) is None
    kill_reason = ("TIMEOUT", "still running 60 s after its limit of 10 s; killed")
    assert judged(tmp_path, 71, WatchdogTimeouts(), steps, seconds_limit=10.0) == kill_reason


def test_the_test_of_a_winner_may_take_long_after_its_limit(tmp_path):
    alive = {"batch": 0, "step": 0.0, "ago": 5}
    assert judged(tmp_path, 5000, WatchdogTimeouts(), alive, seconds_limit=10.0, is_final=True) is None
    assert (
        judged(tmp_path, 5000, WatchdogTimeouts(), {**alive, "ago": 700}, seconds_limit=10.0, is_final=True)[0]
        == "TIMEOUT"
    )
