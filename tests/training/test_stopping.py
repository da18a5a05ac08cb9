"""A request to stop reaches a child of the process pool, also before its training."""

import multiprocessing
import os
import threading

import pebble
import pytest

from pipeline.training import stopping

pytestmark = pytest.mark.heavy


def look():
    return os.getpid(), threading.current_thread() is threading.main_thread(), stopping.is_requested()


def clear_and_look():
    stopping.clear()
    return stopping.is_requested()


def test_a_request_stays_until_it_is_followed():
    context = multiprocessing.get_context("spawn")
    with pebble.ProcessPool(max_workers=1, context=context, initializer=stopping.listen) as pool:
        pid, is_main_thread, is_requested = pool.schedule(look).result()
        assert is_main_thread  # where signals are handled
        assert not is_requested
        os.kill(pid, stopping.SIGNAL)
        assert [pool.schedule(look).result() for _ in range(2)] == [(pid, True, True)] * 2
        assert not pool.schedule(clear_and_look).result()


def test_without_listening_there_is_no_request():
    assert not stopping.is_requested()
    stopping.clear()
