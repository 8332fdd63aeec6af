"""The thread pool in processes that fork, and in a process that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import einloom

ROOT = Path(einloom.__file__).resolve().parent.parent


def run_script(script: str) -> str:
    """What a script prints in a fresh process; fails after a minute."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import ctypes, os, sys, threading, time
from einloom.backends.cpu.threads import ThreadPool, shared_pool
from einloom.ir.errors import BackendError
pool = shared_pool()
def use(pool):
    "Two threads at once, which only a pool with live workers can give."
    together, seen = threading.Barrier(2), set()
    def function(begin, end):
        together.wait(20)
        seen.add(threading.get_ident())
        return 0
    return pool.run_slices(function, 2, 2, 1) == 0 and len(seen) == 2
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
assert use(pool)
codes = [exit_code(child_of(lambda: use(pool) and use(pool))) for _ in range(20)]
grandchild = child_of(lambda: use(pool) and exit_code(child_of(lambda: use(pool))) == 0)
print(set(codes), exit_code(grandchild), use(pool))
"""
)


def test_fork_after_use() -> None:
    assert run_script(FORK_AFTER_USE) == "{0} 0 True\n"


FORK_DURING_RUNS = (
    PRELUDE
    + """
sleep = ctypes.CDLL(None).usleep
stop = threading.Event()
wrong = []
def keep_running(microseconds):
    while not stop.is_set():
        def function(begin, end):
            sleep(microseconds)
            return 0
        if pool.run_slices(function, 4, 2, 1) != 0:
            wrong.append(microseconds)
runners = [threading.Thread(target=keep_running, args=(m,)) for m in (0, 1, 500)]
for runner in runners:
    runner.start()
codes = []
for attempt in range(60):
    codes.append(exit_code(child_of(lambda: use(pool))))
stop.set()
for runner in runners:
    runner.join(20)
print(set(codes), wrong, use(pool), any(runner.is_alive() for runner in runners))
"""
)


def test_fork_while_other_threads_are_inside_runs() -> None:
    assert run_script(FORK_DURING_RUNS) == "{0} [] True False\n"


FORK_WITH_THE_LOCK_HELD = (
    PRELUDE
    + """
assert use(pool)
held, done = threading.Event(), threading.Event()
def hold():
    with pool._crew.lock:
        held.set()
        done.wait(20)
holder = threading.Thread(target=hold)
holder.start()
held.wait(20)
child = child_of(lambda: use(pool))
print(exit_code(child))
done.set()
holder.join(20)
print(use(pool))
"""
)


def test_fork_while_another_thread_holds_the_lock() -> None:
    assert run_script(FORK_WITH_THE_LOCK_HELD) == "0\nTrue\n"


FORK_INSIDE_A_SLICE = (
    PRELUDE
    + """
together, forked = threading.Barrier(2), threading.Event()
caller, children = threading.get_ident(), []
def function(begin, end):
    together.wait(20)
    if threading.get_ident() == caller:
        children.append(os.fork())
        forked.set()
    forked.wait(20)
    return 0
try:
    status = pool.run_slices(function, 2, 2, 1)
except BackendError as error:
    print(error, use(pool), flush=True)
    os._exit(0)
print(status, exit_code(children[0]), use(pool))
"""
)


def test_fork_inside_a_slice_while_a_worker_computes() -> None:
    assert run_script(FORK_INSIDE_A_SLICE) == (
        "the process was forked from inside a parallel kernel, and the threads that were computing "
        "parts of it do not exist in the child True\n"
        "0 0 True\n"
    )


MULTIPROCESSING = """
import multiprocessing
from einloom.backends.cpu.threads import shared_pool
def task(extent):
    parts = []
    def function(begin, end):
        parts.append(end - begin)
        return 0
    shared_pool().run_slices(function, extent, 2, 1)
    return sum(parts)
if __name__ == "__main__":
    assert task(10) == 10
    with multiprocessing.get_context("fork").Pool(3) as processes:
        print(sum(processes.map(task, range(200))) == sum(range(200)))
"""


def test_multiprocessing_by_fork() -> None:
    assert run_script(MULTIPROCESSING) == "True\n"


EXIT_DURING_A_RUN = (
    PRELUDE
    + """
inside = threading.Semaphore(0)
def function(begin, end):
    inside.release()
    ctypes.CDLL(None).sleep(30)
    return 0
threading.Thread(target=pool.run_slices, args=(function, 2, 2, 1), daemon=True).start()
inside.acquire(), inside.acquire()
print("leaving")
"""
)


def test_workers_do_not_keep_the_process() -> None:
    start = time.monotonic()
    assert run_script(EXIT_DURING_A_RUN) == "leaving\n"
    assert time.monotonic() - start < 25
