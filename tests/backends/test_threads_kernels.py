"""Kernels shared out by machine code: slices, faults, many callers, sleep and waking."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import board as layout
from einloom.backends.cpu import threads
from einloom.backends.cpu.threads import ThreadPool
from tests.backends.shared_kernels import (
    add,
    adding,
    all_asleep,
    meeting,
    new_pool,
    run,
    wait_until,
    word,
    workers,
)


@pytest.fixture(scope="module")
def kernel() -> Callable[..., int]:
    return adding()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    with new_pool() as pool:
        yield pool


@pytest.fixture(params=["watching", "sleeping at once"])
def any_pool(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ThreadPool]:
    """One whose workers look for kernels, and one of a machine with a single processor."""
    processors = 64 if request.param == "watching" else 1
    monkeypatch.setattr(threads, "available_threads", lambda: processors)
    with new_pool() as pool:
        yield pool


# ---- slices and faults --------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8, 200])
def test_every_slice_is_computed_once(any_pool: ThreadPool, kernel: Any, count: int) -> None:
    target = np.zeros(1000, np.int64)
    cuts = [1000 * i // count for i in range(count + 1)]
    for repeat in range(1, 21):
        assert add(any_pool, kernel, target, 3, cuts) == (0, (-7, -7))
        assert (target == 3 * repeat).all()
    assert any_pool._crew.workers == count - 1


def test_only_cells_between_the_cuts(pool: ThreadPool, kernel: Any) -> None:
    target = np.zeros(20, np.int64)
    add(pool, kernel, target, 1, [3, 4, 11])
    assert target.tolist() == [0] * 3 + [1] * 8 + [0] * 9


def test_twenty_thousand_tiny_runs(pool: ThreadPool, kernel: Any) -> None:
    """Each with memory, slices and a number of its own, while slots are given on and on."""
    targets = [np.zeros(24, np.int64) for _ in range(7)]
    expected = [np.zeros(24, np.int64) for _ in range(7)]
    plans = [[0, 8, 16, 24], [0, 12, 24], [0, 1, 23, 24], [0, 24], [4, 8, 12], [20, 21, 24]]
    for number in range(20_000):
        mine, cuts = number % 7, plans[number % 6]
        status, _ = add(pool, kernel, targets[mine], number, cuts)
        expected[mine][cuts[0] : cuts[-1]] += number
        assert status == 0
        assert targets[mine].tobytes() == expected[mine].tobytes(), number


def test_the_lowest_failing_slice_and_its_fault(any_pool: ThreadPool) -> None:
    for _ in range(50):
        meet = meeting(4)

        def body(begin: int, end: int, fault: Any, meet: Any = meet) -> int:
            meet(begin, end, fault)
            if begin == 0:
                return 0
            fault[0], fault[1] = 10 * begin, 10 * end
            return begin

        assert run(any_pool, body, [0, 3, 5, 6, 9]) == (3, (30, 50))


def test_a_negative_status(any_pool: ThreadPool) -> None:
    """It says that memory has run out."""
    body = lambda begin, end, fault: -1 if begin else 0  # noqa: E731
    assert run(any_pool, body, [0, 1, 2])[0] == -1


def test_after_a_failure_what_has_not_started_is_left_out(
    pool: ThreadPool, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    target = np.zeros(64, np.int64)
    assert add(pool, kernel, target, 1, range(65), limit=5) == (6, (5, 6))
    assert target.tolist() == [1] * 6 + [0] * 58
    assert pool._crew.workers == 0
    monkeypatch.undo()
    assert run(pool, meeting(2), range(3))[0] == 0


def test_failures_while_others_compute(pool: ThreadPool, kernel: Any) -> None:
    """Whatever the order in which slices end, the lowest one is told."""
    target = np.zeros(64, np.int64)
    for repeat in range(2000):
        limit = repeat % 64
        assert add(pool, kernel, target, 1, range(0, 65, 1), limit) == (
            limit + 1,
            (limit, limit + 1),
        )


# ---- help ---------------------------------------------------------------------------------


def test_no_call_for_help_is_lost(any_pool: ThreadPool) -> None:
    """Pauses about as long as workers look, so that runs begin while they go to sleep."""
    for repeat in range(600):
        assert run(any_pool, meeting(2), range(3))[0] == 0, repeat
        until = time.perf_counter() + repeat % 40 * 4e-6
        while time.perf_counter() < until:
            pass


def test_workers_sleep_soon_and_are_woken(any_pool: ThreadPool) -> None:
    for _ in range(5):
        assert run(any_pool, meeting(4), range(5))[0] == 0
        wait_until(lambda: all_asleep(any_pool))
        board = any_pool._crew.board
        assert board is not None
        assert word(board, layout.WATCHING) == 0
    assert any_pool._crew.workers == 3


def test_only_as_many_are_woken_as_there_are_slices_for(pool: ThreadPool) -> None:
    assert run(pool, meeting(5), range(6))[0] == 0
    board = pool._crew.board
    assert board is not None
    wait_until(lambda: all_asleep(pool))
    asleep: list[int] = []
    meet = meeting(2)

    def body(begin: int, end: int, fault: Any) -> int:
        meet(begin, end, fault)
        asleep.append(sum(word(board, layout.seat_offset(seat)) for seat in range(4)))
        return meet(begin, end, fault)

    assert run(pool, body, range(3))[0] == 0
    assert asleep == [3, 3]


def test_a_caller_waits_for_slow_helpers(any_pool: ThreadPool) -> None:
    caller = threading.get_ident()
    ended: list[str] = []
    for pause in (0.0, 1e-5, 1e-4, 0.05):
        meet = meeting(2)

        def body(begin: int, end: int, fault: Any, meet: Any = meet, pause: float = pause) -> int:
            meet(begin, end, fault)
            if threading.get_ident() != caller:
                time.sleep(pause)
                ended.append("helper")
            return 0

        before = len(ended)
        assert run(any_pool, body, range(3))[0] == 0
        assert len(ended) == before + 1


def test_more_threads_than_processors_do_not_look(
    pool: ThreadPool, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_threads", lambda: 2)
    pool.close()
    target = np.zeros(8, np.int64)
    found = []
    for count in (2, 3, 2):
        add(pool, kernel, target, 1, range(count + 1))
        board = pool._crew.board
        assert board is not None
        found.append(word(board, layout.HEAD_WORDS + 8 * layout.HEAD.index("turns")) > 0)
    assert found == [True, False, True]


def test_python_functions_and_kernels_in_turns(any_pool: ThreadPool) -> None:
    for repeat in range(200):
        assert run(any_pool, meeting(2), range(3))[0] == 0
        together = threading.Barrier(2)

        def function(begin: int, end: int, together: threading.Barrier = together) -> int:
            together.wait(20)
            return 0

        assert any_pool.run_slices(function, 2, 2, 1) == 0
        if repeat % 3 == 0:
            time.sleep(1e-4)
    assert any_pool._crew.workers == 1


# ---- many callers -------------------------------------------------------------------------


@pytest.mark.parametrize("callers", [3, layout.SLOTS + 8])
def test_many_callers_at_once(any_pool: ThreadPool, kernel: Any, callers: int) -> None:
    """Each with shapes and numbers of its own, some failing."""
    assert run(any_pool, meeting(2), range(3))[0] == 0
    start = threading.Barrier(callers)

    def call(number: int) -> int:
        start.wait(30)
        right = 0
        size = 30 + 11 * number
        target, expected = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for repeat in range(300):
            count = 1 + (number + repeat) % 4
            cuts = [size * i // count for i in range(count + 1)]
            limit = cuts[-2] if repeat % 5 == 0 else 1 << 40
            status, fault = add(any_pool, kernel, target, number + repeat, cuts, limit)
            expected += number + repeat
            told = (size, (cuts[-2], size)) if repeat % 5 == 0 else (0, (-7, -7))
            if status == size and fault == (0, size):  # no slot was free: it was one slice
                told = (status, fault)
            right += (target == expected).all() and (status, fault) == told
        return right

    with ThreadPoolExecutor(callers) as executor:
        assert list(executor.map(call, range(callers))) == [300] * callers


def test_runs_inside_runs(pool: ThreadPool, kernel: Any) -> None:
    """Kernels start none, but Python functions that the pool runs may."""
    targets = np.zeros((4, 40), np.int64)

    def function(begin: int, end: int) -> int:
        for i in range(begin, end):
            add(pool, kernel, targets[i], 1, [0, 13, 26, 40])
        return 0

    for _ in range(50):
        assert pool.run_slices(function, 4, 4, 1) == 0
    assert (targets == 50).all()


# ---- interrupts and ends ------------------------------------------------------------------


def test_interrupt_while_a_helper_computes(any_pool: ThreadPool, kernel: Any) -> None:
    """Ctrl-C is not allowed to free operands that a helper still writes to."""
    caller = threading.get_ident()
    ended: list[str] = []
    meet = meeting(2)

    def body(begin: int, end: int, fault: Any) -> int:
        meet(begin, end, fault)
        if threading.get_ident() != caller:
            time.sleep(0.05)
            signal.pthread_kill(caller, signal.SIGINT)
            time.sleep(0.1)
            ended.append("helper")
        return 0

    with pytest.raises(KeyboardInterrupt):
        run(any_pool, body, range(3))
    assert ended == ["helper"]
    assert run(any_pool, meeting(2), range(3))[0] == 0


def test_interrupts_at_any_moment(pool: ThreadPool, kernel: Any) -> None:
    """Each hits a loop of runs, mostly inside one; runs are done as a whole or not at all."""
    assert run(pool, meeting(2), range(3))[0] == 0
    caller, stop = threading.get_ident(), threading.Event()
    armed = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def disturb() -> None:
        while not stop.wait(0.002):
            signal.pthread_kill(caller, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    disturber = threading.Thread(target=disturb)
    target = np.zeros(40, np.int64)
    disturber.start()
    for _ in range(60):
        try:
            armed = True
            while True:
                add(pool, kernel, target, 1, [0, 10, 40])
        except KeyboardInterrupt:
            assert len(set(target.tolist())) == 1
    stop.set()
    disturber.join()
    signal.signal(signal.SIGUSR1, before)
    assert target[0] > 60
    assert run(pool, meeting(2), range(3))[0] == 0


@pytest.mark.parametrize("asleep", [False, True])
def test_close_ends_the_workers_and_a_later_run_starts_new_ones(
    pool: ThreadPool, asleep: bool
) -> None:
    before = workers()
    for _ in range(3):
        assert run(pool, meeting(3), range(4))[0] == 0
        assert len(workers() - before) == 2
        if asleep:
            wait_until(lambda: all_asleep(pool))
        pool.close()
        wait_until(lambda: workers() <= before)


def test_close_while_kernels_run(pool: ThreadPool, kernel: Any) -> None:
    stop = threading.Event()
    wrong: list[int] = []

    def keep_running() -> None:
        target = np.zeros(60, np.int64)
        count = 0
        while not stop.is_set():
            add(pool, kernel, target, 1, [0, 20, 40, 60])
            count += 1
            if (target != count).any():
                wrong.append(count)

    runners = [threading.Thread(target=keep_running) for _ in range(3)]
    for runner in runners:
        runner.start()
    for _ in range(100):
        pool.close()
        time.sleep(1e-3)
    stop.set()
    for runner in runners:
        runner.join()
    assert wrong == []


def test_a_board_lives_no_longer_than_it_is_used(pool: ThreadPool) -> None:
    assert run(pool, meeting(2), range(3))[0] == 0
    board = pool._crew.board
    assert board is not None
    alive = weakref.ref(board)
    del board
    pool.close()
    wait_until(lambda: gc.collect() >= 0 and alive() is None)
