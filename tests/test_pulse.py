"""A pulse says what a child is at; a torn or missing one says nothing."""

import os
import time

from pipeline.pulse import Pulse, PulseState, going_on, read_pulse


def test_a_reader_sees_what_was_written_last(tmp_path):
    path = tmp_path / "t1.pulse"
    pulse = Pulse(path)
    before = time.monotonic()
    for batch in range(1, 6):
        pulse.batch(2, 7, batch, 40)
    state = read_pulse(path)
    assert state == PulseState(os.getpid(), 2, 7, 5, 40, state.beat, state.step_seconds)
    assert before <= state.beat <= time.monotonic()
    assert 0 < state.step_seconds < state.beat - before + 1e-9


def test_a_new_training_beats_at_once_and_forgets_the_old_place(tmp_path):
    path = tmp_path / "pulse"
    old = Pulse(path)
    old.batch(2, 7, 5, 40)
    old.close()
    old_beat = read_pulse(path).beat
    Pulse(path).close()
    state = read_pulse(path)
    assert (state.epoch, state.batch, state.step_seconds) == (0, 0, 0.0)
    assert state.beat > old_beat


def test_the_time_of_a_step_is_the_median_and_what_is_between_epochs_is_no_step(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 11.0, 13.0, 14.0, 500.0, 900.0, 901.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    pulse = Pulse(tmp_path / "pulse")
    for batch in range(4):
        pulse.batch(1, 2, batch, 4)
    pulse.touch()
    for batch in range(2):
        pulse.batch(2, 2, batch, 4)
    state = read_pulse(tmp_path / "pulse")
    assert state.step_seconds == 1.0  # of 1, 2, 1, 1
    assert state.beat == 901.0
    assert sorted(pulse.intervals) == [1.0, 1.0, 1.0, 2.0]


def test_a_torn_or_missing_record_is_none(tmp_path):
    path = tmp_path / "pulse"
    assert read_pulse(path) is None
    Pulse(path).batch(1, 2, 3, 4)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_pulse(path) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_pulse(path) is None
    path.write_bytes(whole)
    assert read_pulse(path).batch == 3


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pulse = Pulse(None)
    pulse.batch(1, 1, 1, 1)
    pulse.close()
    assert list(tmp_path.iterdir()) == []


def test_a_beat_is_cheap_enough_for_every_batch(tmp_path):
    pulse = Pulse(tmp_path / "pulse")
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        for batch in range(200):
            pulse.batch(1, 1, batch, 200)
        seconds.append((time.perf_counter() - started) / 200)
    assert min(seconds) < 50e-6  # about 5 on an idle core


def test_what_follows_a_training_stays_where_it_ended(tmp_path):
    pulse = Pulse(tmp_path / "pulse")
    pulse.batch(3, 3, 10, 10)
    pulse.close()
    test = going_on(tmp_path / "pulse")
    test.touch()
    state = read_pulse(tmp_path / "pulse")
    assert (state.epoch, state.num_epochs, state.batch, state.num_batches) == (3, 3, 10, 10)
    assert state.beat <= time.monotonic()
    test.close()
    going_on(tmp_path / "none").close()
    assert read_pulse(tmp_path / "none").batch == 0
