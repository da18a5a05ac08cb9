"""A latency is a time for one image, and threads are afterwards where they were."""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.heavy


def test_latency_grows_with_the_network():
    from pipeline.models.build import Pixels, build
    from pipeline.training.latency import measure_latency

    pixels = Pixels((32, 32, 1), "uint8", (128.0,), (60.0,))
    small = measure_latency(build({"depth": 1, "filters": 8}, pixels, 3))
    large = measure_latency(build({"depth": 2, "filters": 512, "convs_per_stage": 2}, pixels, 3))
    assert 0 < small[0] < large[0]
    assert 0 < small[1] < large[1]
    assert large[1] > 20  # 7 GFLOP on one core


def test_all_threads_are_on_one_core_and_then_back():
    from pipeline.training.latency import on_one_core, threads

    before = {thread: os.sched_getaffinity(thread) for thread in threads()}
    with on_one_core():
        inside = {frozenset(os.sched_getaffinity(thread)) for thread in threads()}
        assert len(inside) == 1
        assert len(next(iter(inside))) == 1
        assert np.ones(3).sum() == 3
    assert all(os.sched_getaffinity(thread) == before[thread] for thread in threads() if thread in before)
