"""The thread pool: slices, failures, nesting, many callers."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einloom.backends.cpu import threads
from einloom.backends.cpu.threads import ThreadPool, available_threads, plan_slices, shared_pool
from einloom.ir.errors import BackendError, EinloomError


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    before = workers()
    pool = ThreadPool()
    yield pool
    pool.close()
    wait_until(lambda: workers() <= before)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "einloom-worker"}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def meeting(number: int) -> Callable[[int, int], int]:
    """A slice function that ends only when `number` threads are inside it at once."""
    together = threading.Barrier(number)

    def function(begin: int, end: int) -> int:
        together.wait(30)
        return 0

    return function


@given(
    extent=st.integers(1, 10**12),
    count=st.integers(1, 70),
    grain=st.one_of(st.integers(1, 100), st.integers(1, 10**12)),
)
def test_slices_cover_the_extent_once(extent: int, count: int, grain: int) -> None:
    slices = plan_slices(extent, count, grain)
    assert 1 <= len(slices) <= count
    assert slices[0][0] == 0
    assert slices[-1][1] == extent
    assert all(left[1] == right[0] for left, right in pairwise(slices))
    assert all(begin < end and begin % grain == 0 for begin, end in slices)
    lengths = [end - begin for begin, end in slices]
    assert max(lengths) - min(lengths) < 2 * grain


def test_planned_slices() -> None:
    assert plan_slices(100, threads=4, grain=1) == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert plan_slices(100, threads=4, grain=16) == [(0, 16), (16, 48), (48, 80), (80, 100)]
    assert plan_slices(100, threads=4, grain=64) == [(0, 64), (64, 100)]
    assert plan_slices(2**40, threads=2, grain=8) == [(0, 2**39), (2**39, 2**40)]
    assert plan_slices(5, threads=4, grain=8) == [(0, 5)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_native_function_sees_every_element_once(pool: ThreadPool, count: int) -> None:
    source = np.random.default_rng(1).integers(0, 256, 100_003, dtype=np.uint8)
    target = np.zeros_like(source)
    copy = ctypes.CDLL(None).memcpy
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    calls = []

    def function(begin: int, end: int) -> int:
        calls.append((begin, end))
        copy(target.ctypes.data + begin, source.ctypes.data + begin, end - begin)
        return 0

    assert pool.run_slices(function, source.size, count, 64) == 0
    np.testing.assert_array_equal(target, source)
    assert sorted(calls) == plan_slices(source.size, count, 64)


def test_empty_and_small_extents_stay_on_the_caller(pool: ThreadPool) -> None:
    calls: list[tuple[int, int, int]] = []

    def function(begin: int, end: int) -> int:
        calls.append((begin, end, threading.get_ident()))
        return 3

    before = len(workers())
    assert pool.run_slices(function, 0, 8, 1) == 0
    assert calls == []
    assert pool.run_slices(function, 8, 8, 8) == 3
    assert pool.run_slices(function, 99, 1, 8) == 3
    me = threading.get_ident()
    assert calls == [(0, 8, me), (0, 99, me)]
    assert len(workers()) == before


def test_slices_run_side_by_side_on_daemon_threads_that_are_kept(pool: ThreadPool) -> None:
    seen: set[threading.Thread] = set()
    for _ in range(20):
        together = threading.Barrier(3)

        def function(begin: int, end: int, together: threading.Barrier = together) -> int:
            together.wait(30)
            seen.add(threading.current_thread())
            return 0

        assert pool.run_slices(function, 3, 3, 1) == 0
    assert len(seen) == 3
    assert threading.current_thread() in seen
    assert all(thread.daemon for thread in seen - {threading.current_thread()})


def test_lowest_failing_slice_gives_the_status(pool: ThreadPool) -> None:
    for _ in range(50):
        together = threading.Barrier(4)

        def function(begin: int, end: int, together: threading.Barrier = together) -> int:
            together.wait(30)
            return begin * 10

        assert pool.run_slices(function, 4, 4, 1) == 10


def test_exception_waits_for_all_started_slices(pool: ThreadPool) -> None:
    together = threading.Barrier(3)
    ended: list[int] = []

    def function(begin: int, end: int) -> int:
        together.wait(30)
        if begin > 0:
            raise BackendError(f"slice {begin}")
        time.sleep(0.05)
        ended.append(begin)
        return 7

    with pytest.raises(BackendError, match=r"^slice 1$"):
        pool.run_slices(function, 3, 3, 1)
    assert ended == [0]
    assert pool.run_slices(lambda begin, end: 0, 3, 3, 1) == 0


def test_callers_exception_waits_for_the_workers(pool: ThreadPool) -> None:
    together = threading.Barrier(2)
    ended: list[str] = []
    caller = threading.get_ident()

    def function(begin: int, end: int) -> int:
        together.wait(30)
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        time.sleep(0.05)
        ended.append("worker")
        return 0

    with pytest.raises(KeyboardInterrupt):
        pool.run_slices(function, 2, 2, 1)
    assert ended == ["worker"]


def test_interrupt_while_waiting_for_a_worker(pool: ThreadPool) -> None:
    """Ctrl-C is not allowed to free operands that a worker still writes to."""
    together = threading.Barrier(2)
    ended: list[str] = []
    caller = threading.get_ident()

    def function(begin: int, end: int) -> int:
        together.wait(30)
        if threading.get_ident() != caller:
            time.sleep(0.05)
            signal.pthread_kill(caller, signal.SIGINT)
            time.sleep(0.1)
            ended.append("worker")
        return 0

    with pytest.raises(KeyboardInterrupt):
        pool.run_slices(function, 2, 2, 1)
    assert ended == ["worker"]
    assert pool.run_slices(lambda begin, end: 0, 2, 2, 1) == 0


def test_nested_runs(pool: ThreadPool) -> None:
    counts = np.zeros((4, 4, 4), dtype=np.int64)

    def run(*outer: int) -> int:
        def function(begin: int, end: int) -> int:
            for i in range(begin, end):
                if len(outer) == 2:
                    counts[(*outer, i)] += 1
                elif run(*outer, i):
                    return 1
            return 0

        return pool.run_slices(function, 4, 4, 1)

    for _ in range(20):
        assert run() == 0
    assert (counts == 20).all()
    assert pool._crew.workers <= 3


def test_many_callers_at_once(pool: ThreadPool) -> None:
    start = threading.Barrier(32)

    def call(number: int) -> int:
        start.wait(30)
        total = 0
        for repeat in range(30):
            parts: list[int] = []

            def function(begin: int, end: int, parts: list[int] = parts) -> int:
                parts.append(sum(range(begin, end)))
                return 0

            extent = 100 + number + repeat
            assert pool.run_slices(function, extent, 3, 8) == 0
            total += sum(parts) == extent * (extent - 1) // 2
        return total

    with ThreadPoolExecutor(32) as executor:
        assert list(executor.map(call, range(32))) == [30] * 32
    assert pool._crew.workers == 2


def test_large_run_after_a_small_one_gets_its_worker(pool: ThreadPool) -> None:
    """A worker that comes too late for one run helps with the next."""
    for _ in range(200):
        pool.run_slices(lambda begin, end: 0, 2, 2, 1)
        assert pool.run_slices(meeting(2), 2, 2, 1) == 0
    assert pool._crew.workers == 1


def test_without_new_threads_the_caller_does_it_all(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[int] = []

    def function(begin: int, end: int) -> int:
        seen.append(begin)
        return 0

    assert pool.run_slices(function, 4, 4, 1) == 0
    assert seen == [0, 1, 2, 3]
    assert pool._crew.workers == 0
    monkeypatch.undo()
    assert pool.run_slices(meeting(2), 2, 2, 1) == 0


def test_operands_are_not_kept_alive(pool: ThreadPool) -> None:
    class Kernel:
        def __init__(self, failing: bool) -> None:
            self.meet = meeting(2)
            self.failing = failing

        def __call__(self, begin: int, end: int) -> int:
            self.meet(begin, end)
            if self.failing:
                raise BackendError("no")
            return 0

    gc.disable()
    try:
        for failing in (False, True):
            kernel = Kernel(failing)
            alive = weakref.ref(kernel)
            if failing:
                with pytest.raises(BackendError):
                    pool.run_slices(kernel, 2, 2, 1)
            else:
                pool.run_slices(kernel, 2, 2, 1)
            del kernel
            # The worker may still be on its way to bed.
            wait_until(lambda alive=alive: alive() is None)  # type: ignore[misc]
    finally:
        gc.enable()


def test_close_ends_the_workers_and_a_later_run_starts_new_ones(pool: ThreadPool) -> None:
    before = workers()
    for _ in range(2):
        assert pool.run_slices(meeting(3), 3, 3, 1) == 0
        assert len(workers() - before) == 2
        pool.close()
        wait_until(lambda: workers() <= before)


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool()
    assert pool.num_threads == available_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert pool.num_threads == 3
    pool.default_threads = lambda: 5
    assert pool.num_threads == 5
    pool.set_num_threads(2)
    assert pool.num_threads == 2
    pool.set_num_threads(None)
    assert pool.num_threads == 5
    for wrong in (0, -1, 1025):
        with pytest.raises(EinloomError) as caught:
            pool.set_num_threads(wrong)
        assert str(caught.value) == f"the number of threads is {wrong}; it must be from 1 to 1024"
    assert pool.num_threads == 5
    assert shared_pool() is shared_pool()


def test_there_is_one_limit_for_runs(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST_THREADS", 3)
    calls: list[int] = []

    def function(begin: int, end: int) -> int:
        calls.append(begin)
        return 0

    assert pool.run_slices(function, 100, 10**9, 1) == 0
    assert sorted(calls) == [0, 33, 66]
