"""A heartbeat says where a training is; it is told seldom, and a torn or missing record of it says nothing."""

import time

import pytest

from pipeline.heartbeat import NUM_FIRST, SEND_SECONDS, Beat, Heart, StoredBeat, read_beat, write_beat


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows what a test says."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_new_training_beats_at_once_and_says_that_it_is_nowhere_yet():
    told = []
    Heart(told.append)
    assert told == [Beat()]


def test_the_first_steps_are_told_and_later_ones_now_and_then(clock):
    told = []
    heart = Heart(told.append)
    for batch in range(1, 11):
        heart.batch(1, 2, batch, 40)
    assert [beat.batch for beat in told] == [0, *range(1, NUM_FIRST + 1)]
    clock[0] += SEND_SECONDS
    heart.batch(1, 2, 11, 40)
    heart.batch(1, 2, 12, 40)
    assert (told[-1].batch, len(told)) == (11, NUM_FIRST + 2)


def test_what_is_done_beside_steps_is_told_now_and_then_and_stays_where_the_training_is(clock):
    told = []
    heart = Heart(told.append)
    heart.batch(3, 3, 10, 10)
    heart.touch()
    assert len(told) == 2
    clock[0] += SEND_SECONDS
    heart.touch()
    assert told[-1] == Beat(3, 3, 10, 10, 0.0)


def test_the_time_of_a_step_is_the_median_and_what_is_between_epochs_is_no_step(clock):
    told = []
    heart = Heart(told.append)
    for seconds in (10.0, 1.0, 2.0, 1.0):
        clock[0] += seconds
        heart.batch(1, 2, 1, 4)
    clock[0] += 500.0
    heart.touch()
    for seconds in (400.0, 1.0):
        clock[0] += seconds
        heart.batch(2, 2, 1, 4)
    assert told[-1].step_seconds == 1.0  # of 1, 2, 1, 1
    assert sorted(heart.intervals) == [1.0, 1.0, 1.0, 2.0]


def test_a_reader_sees_what_was_kept_last_and_when(tmp_path, clock):
    path = tmp_path / "pulses" / "1"
    write_beat(path, Beat(1, 7, 2, 40, 0.5))
    clock[0] += 3.0
    write_beat(path, Beat(2, 7, 5, 40, 0.25))
    assert read_beat(path) == StoredBeat(Beat(2, 7, 5, 40, 0.25), 103.0)


def test_a_torn_or_missing_record_is_none(tmp_path):
    path = tmp_path / "beat"
    assert read_beat(path) is None
    write_beat(path, Beat(1, 2, 3, 4))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_beat(path) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_beat(path) is None
    path.write_bytes(whole)
    assert read_beat(path).beat.batch == 3


def test_a_beat_is_cheap_enough_for_every_batch():
    heart, seconds = Heart(lambda beat: None), []
    for _ in range(20):
        started = time.perf_counter()
        for batch in range(200):
            heart.batch(1, 1, batch, 200)
        seconds.append((time.perf_counter() - started) / 200)
    assert min(seconds) < 20e-6  # below 1 on an idle core
