"""Kernels shared out in processes that fork, and in a process that ends."""

from __future__ import annotations

import time

import pytest

from tests.backends.test_threads_fork import run_script

PRELUDE = """
import os, sys, threading, time
import numpy as np
from einloom.backends.cpu.threads import shared_pool
from tests.backends.shared_kernels import add, adding, all_asleep, meeting, run, wait_until
pool = shared_pool()
pool._load()
kernel = adding()
def use():
    "Two threads at once, which only a pool with live workers can give; then compiled code."
    target = np.zeros(100, np.int64)
    met = run(pool, meeting(2), range(3))[0] == 0
    added = all(add(pool, kernel, target, 1, [0, 30, 100])[0] == 0 for _ in range(50))
    return met and added and (target == 50).all()
def child_of(body):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if body() else 2
        finally:
            os._exit(code)
    return child
def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

FORK_AFTER_USE = (
    PRELUDE
    + """
codes = []
for number in range(20):
    assert use()
    if number % 2:
        wait_until(lambda: all_asleep(pool))
    codes.append(exit_code(child_of(lambda: use() and use())))
grandchild = child_of(lambda: use() and exit_code(child_of(use)) == 0)
print(set(codes), exit_code(grandchild), use())
"""
)


def test_fork_while_workers_watch_and_while_they_sleep() -> None:
    assert run_script(FORK_AFTER_USE) == "{0} 0 True\n"


FORK_DURING_RUNS = (
    PRELUDE
    + """
stop, wrong = threading.Event(), []
def keep_running(size):
    target, count = np.zeros(size, np.int64), 0
    while not stop.is_set():
        add(pool, kernel, target, 1, [0, size // 3, size])
        count += 1
        if (target != count).any():
            wrong.append(size)
runners = [threading.Thread(target=keep_running, args=(size,)) for size in (10, 1000, 300_000)]
for runner in runners:
    runner.start()
codes = [exit_code(child_of(use)) for _ in range(60)]
stop.set()
for runner in runners:
    runner.join(20)
print(set(codes), wrong, use(), any(runner.is_alive() for runner in runners))
"""
)


def test_fork_while_other_threads_run_kernels() -> None:
    assert run_script(FORK_DURING_RUNS) == "{0} [] True False\n"


FORK_WHILE_LOADING = (
    PRELUDE
    + """
from einloom.backends.cpu.board import object_code
from einloom.backends.cpu.threads import ThreadPool
loading, go_on = threading.Event(), threading.Event()
def code():
    if threading.current_thread() is loader:
        loading.set()
        go_on.wait(20)
    return object_code()
pool = ThreadPool(board_code=code)
loader = threading.Thread(target=pool._load)
loader.start()
loading.wait(20)
def load_and_use():
    pool._load()
    return use()
child = child_of(load_and_use)
print(exit_code(child))
go_on.set()
loader.join(20)
print(use())
"""
)


def test_fork_while_the_code_is_loaded() -> None:
    assert run_script(FORK_WHILE_LOADING) == "0\nTrue\n"


MULTIPROCESSING = """
import multiprocessing
import numpy as np
from einloom.backends.cpu.threads import shared_pool
from tests.backends.shared_kernels import add, adding
shared_pool()._load()
kernel = adding()
def task(size):
    target = np.zeros(size, np.int64)
    add(shared_pool(), kernel, target, 2, [0, size // 2, size])
    return int(target.sum())
if __name__ == "__main__":
    assert task(10) == 20
    with multiprocessing.get_context("fork").Pool(3) as processes:
        print(sum(processes.map(task, range(1, 200))) == 2 * sum(range(200)))
"""


def test_multiprocessing_by_fork() -> None:
    assert run_script(MULTIPROCESSING) == "True\n"


END = (
    PRELUDE
    + """
import ctypes
assert use()
how = @HOW@
if how == "sleeping":
    wait_until(lambda: all_asleep(pool))
if how == "computing":
    inside = threading.Semaphore(0)
    def body(begin, end, fault):
        inside.release()
        ctypes.CDLL(None).sleep(30)
        return 0
    threading.Thread(target=run, args=(pool, body, range(3)), daemon=True).start()
    inside.acquire(), inside.acquire()
print("leaving")
"""
)


@pytest.mark.parametrize("how", ["watching", "sleeping", "computing"])
def test_workers_do_not_keep_the_process(how: str) -> None:
    start = time.monotonic()
    for _ in range(1 if how == "computing" else 5):
        assert run_script(END.replace("@HOW@", repr(how))) == "leaving\n"
    assert time.monotonic() - start < 25
