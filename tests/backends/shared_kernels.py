"""Kernels that tests share out to threads, and a look at the words of a board."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from einloom.backends.cpu import board as layout
from einloom.backends.cpu import jit
from einloom.backends.cpu.board import Board
from einloom.backends.cpu.launcher import _PROTOTYPE
from einloom.backends.cpu.threads import ThreadPool

Array = np.ndarray[Any, Any]
Body = Callable[[int, int, Any], int]

ADDING = """
define i32 @kernel.adding(ptr %bases, ptr %parameters, i64 %begin, i64 %end, ptr %fault) nounwind {
entry:
  %target = load ptr, ptr %bases
  %number = load i64, ptr %parameters
  %limit.place = getelementptr i64, ptr %parameters, i64 1
  %limit = load i64, ptr %limit.place
  br label %head
head:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %place = getelementptr i64, ptr %target, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, %number
  store i64 %new, ptr %place
  %i.next = add i64 %i, 1
  br label %head
done:
  %fails = icmp sge i64 %begin, %limit
  br i1 %fails, label %failed, label %well
failed:
  store i64 %begin, ptr %fault
  %second = getelementptr i64, ptr %fault, i64 1
  store i64 %end, ptr %second
  %status = trunc i64 %end to i32
  ret i32 %status
well:
  ret i32 0
}
"""
"""Adds a number to its cells. A slice that begins at the limit or above fails: its end is the
status, its bounds are the fault."""


def adding() -> Callable[..., int]:
    """The kernel above, compiled; its code lives as long as the function."""
    library = jit.load_object(jit.compile_object(ADDING))
    function = _PROTOTYPE(library.entry("adding"))
    setattr(function, "library", library)  # noqa: B010 - what ctypes makes takes any attribute
    return function


def words(*numbers: int) -> Any:
    return (ctypes.c_int64 * max(1, len(numbers)))(*numbers)


def pointers(*arrays: Array) -> Any:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))


def add(
    pool: ThreadPool,
    kernel: Any,
    target: Array,
    number: int,
    cuts: Sequence[int],
    limit: int = 1 << 40,
) -> tuple[int | None, tuple[int, int]]:
    """Share `adding` out: the status and the fault."""
    fault = words(-7, -7)
    status = pool.run_kernel(kernel, pointers(target), words(number, limit), words(*cuts), fault)
    return status, (fault[0], fault[1])


def run(pool: ThreadPool, body: Body, cuts: Sequence[int]) -> tuple[int | None, tuple[int, int]]:
    """Share a Python function out as if it were compiled: it gets the words of its fault."""

    def call(bases: int, parameters: int, begin: int, end: int, fault: int) -> int:
        return body(begin, end, (ctypes.c_int64 * 2).from_address(fault))

    fault = words(-7, -7)
    kernel = _PROTOTYPE(call)
    status = pool.run_kernel(kernel, pointers(), words(), words(*cuts), fault)
    return status, (fault[0], fault[1])


def meeting(number: int) -> Body:
    """A body that ends only when `number` threads are inside it at once."""
    together = threading.Barrier(number)

    def body(begin: int, end: int, fault: Any) -> int:
        try:
            together.wait(20)
        except threading.BrokenBarrierError:
            return 99
        return 0

    return body


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "einloom-worker"}


@contextmanager
def new_pool() -> Iterator[ThreadPool]:
    """A pool that leaves nothing behind: no worker, and no word of the board out of place."""
    before = workers()
    pool = ThreadPool()
    pool._load()  # else threads that come while another loads would not find the board
    yield pool
    board = pool._crew.board
    if board is not None:
        wait_until(lambda: all_asleep(pool))
        assert word(board, layout.OPEN) == 0
        assert word(board, layout.WATCHING) == 0
        for slot in range(layout.SLOTS):
            assert word(board, layout.slot_offset(slot) + layout.GATE) == 0
            assert job_word(board, slot, "owned") == 0
    pool.close()
    wait_until(lambda: workers() <= before)


def cell(board: Board, offset: int) -> Any:
    """A word of a board, to be read or written."""
    return ctypes.c_int64.from_address(board._base + offset)


def word(board: Board, offset: int) -> int:
    return int(cell(board, offset).value)


def job_word(board: Board, slot: int, name: str) -> int:
    offset = layout.slot_offset(slot) + layout.JOB_WORDS
    return word(board, offset + 8 * layout.JOB.index(name))


def all_asleep(pool: ThreadPool) -> bool:
    """Whether all workers have gone from looking to sleeping."""
    board = pool._crew.board
    assert board is not None
    seats = board._taken.value
    states = [word(board, layout.seat_offset(seat)) for seat in range(seats)]
    # One whose start was interrupted may be there though it is not counted.
    return seats >= pool._crew.workers and all(state == layout.ASLEEP for state in states)
