"""The board of the thread pool: slots that are given on, and the machine code itself."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import board as layout
from einloom.backends.cpu import jit
from einloom.backends.cpu.board import Board, BoardCode, object_code
from einloom.backends.cpu.emit_board import emit_board
from einloom.backends.cpu.launcher import _PROTOTYPE
from einloom.backends.cpu.target import Target, baseline
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.errors import BackendError, UnsupportedError
from tests.backends.shared_kernels import (
    add,
    adding,
    all_asleep,
    cell,
    job_word,
    meeting,
    new_pool,
    run,
    wait_until,
    word,
)


@pytest.fixture(scope="module")
def kernel() -> Callable[..., int]:
    return adding()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    with new_pool() as pool:
        yield pool


# ---- slots that are given on --------------------------------------------------------------


def test_who_finds_a_gate_closed_touches_nothing(pool: ThreadPool) -> None:
    """What a late helper meets: the slot it saw open is closed, and perhaps half filled again."""
    calls: list[int] = []
    kept: list[Any] = []

    def body(begin: int, end: int, fault: Any) -> int:
        calls.append(begin)
        return 0

    def stale(bases: int, parameters: int, begin: int, end: int, fault: int) -> int:
        return body(begin, end, None)

    assert run(pool, meeting(3), range(4))[0] == 0
    board = pool._crew.board
    assert board is not None
    wait_until(lambda: all_asleep(pool))
    kept += [_PROTOTYPE(stale), (ctypes.c_int64 * 3)(0, 1, 2), (ctypes.c_int64 * 9)()]
    address = ctypes.cast(kept[0], ctypes.c_void_p).value
    for slot in range(1, layout.SLOTS):  # as a caller that owns them and has not opened them
        base = layout.slot_offset(slot)
        values = {
            "owned": 1, "kernel": address, "cuts": ctypes.addressof(kept[1]), "count": 2,
            "results": ctypes.addressof(kept[2]),
        }  # fmt: skip
        for name, value in values.items():
            cell(board, base + layout.JOB_WORDS + 8 * layout.JOB.index(name)).value = value
        cell(board, base + layout.NEXT).value = 0
    cell(board, layout.OPEN).value = (1 << layout.SLOTS) - 2
    for _ in range(20):
        assert run(pool, meeting(3), range(4))[0] == 0
    assert word(board, layout.OPEN) == (1 << layout.SLOTS) - 2
    cell(board, layout.OPEN).value = 0
    wait_until(lambda: all_asleep(pool))
    assert calls == []
    for slot in range(1, layout.SLOTS):
        assert word(board, layout.slot_offset(slot) + layout.NEXT) == 0
        assert word(board, layout.slot_offset(slot) + layout.GATE) == 0
        offset = layout.slot_offset(slot) + layout.JOB_WORDS
        cell(board, offset + 8 * layout.JOB.index("owned")).value = 0


def test_a_slot_is_closed_and_empty_before_it_is_given_on(pool: ThreadPool, kernel: Any) -> None:
    """While a helper is inside, the caller owns the slot, though no slice is left."""
    caller = threading.get_ident()
    found: list[tuple[int, int, int]] = []
    meet = meeting(2)

    def body(begin: int, end: int, fault: Any) -> int:
        meet(begin, end, fault)
        if threading.get_ident() != caller:
            board = pool._crew.board
            assert board is not None
            gate = layout.slot_offset(0) + layout.GATE
            wait_until(lambda: not word(board, gate) & layout.IS_OPEN)
            wait_until(lambda: bool(word(board, gate) & layout.WAITING))
            found.append((word(board, layout.OPEN), word(board, gate), job_word(board, 0, "owned")))
        return 0

    assert run(pool, body, range(3))[0] == 0
    assert found == [(0, layout.WAITING | 1, 1)]
    board = pool._crew.board
    assert board is not None
    assert job_word(board, 0, "owned") == 0


def test_threads_that_come_too_late_do_not_wake_a_caller_twice(pool: ThreadPool) -> None:
    """A bell that were rung once too often would let a later caller leave too soon."""
    caller = threading.get_ident()
    for repeat in range(100):
        ended: list[int] = []
        meet = meeting(3)

        def body(begin: int, end: int, fault: Any, meet: Any = meet, ended: Any = ended) -> int:
            meet(begin, end, fault)
            if threading.get_ident() != caller:
                time.sleep(2e-4 * begin)
                ended.append(begin)
            return 0

        assert run(pool, body, range(4))[0] == 0
        assert len(ended) == 2, repeat


# ---- machine code -------------------------------------------------------------------------


def test_the_code_is_made_once_and_for_kernels_only(kernel: Any) -> None:
    asked: list[int] = []

    def code() -> bytes:
        asked.append(1)
        return object_code()

    pool = ThreadPool(board_code=code)
    assert pool.run_slices(lambda begin, end: 0, 4, 2, 1) == 0
    assert asked == []
    target = np.zeros(8, np.int64)
    for _ in range(3):
        assert add(pool, kernel, target, 1, [0, 4, 8])[0] == 0
        pool.close()
    assert asked == [1]
    assert (target == 3).all()


def test_who_does_not_load_the_code_does_not_wait_for_it(kernel: Any) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def code() -> bytes:
        loading.set()
        assert go_on.wait(30)
        return object_code()

    pool = ThreadPool(board_code=code)
    targets = np.zeros((2, 8), np.int64)
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(add, pool, kernel, targets[0], 1, [0, 4, 8])
        assert loading.wait(30)
        assert add(pool, kernel, targets[1], 1, [0, 4, 8])[0] is None
        go_on.set()
        assert first.result()[0] == 0
    assert add(pool, kernel, targets[1], 1, [0, 4, 8])[0] == 0
    assert (targets == 1).all()
    pool.close()


@pytest.mark.parametrize("code", [b"", b"\x7fELF", None])
def test_without_code_nothing_is_done(kernel: Any, code: bytes | None) -> None:
    def no_code() -> bytes:
        if code is None:
            raise UnsupportedError("no")
        return code

    pool = ThreadPool(board_code=no_code)
    target = np.zeros(8, np.int64)
    for _ in range(2):
        assert add(pool, kernel, target, 1, [0, 4, 8]) == (None, (-7, -7))
    assert not target.any()
    assert pool.run_slices(lambda begin, end: 7, 8, 2, 1) == 7
    pool.close()


def test_a_python_without_locks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    code = object_code()
    monkeypatch.delattr(ctypes, "pythonapi")
    with pytest.raises(BackendError, match="has no function PyThread_allocate_lock"):
        BoardCode(code)


def test_code_for_other_machines() -> None:
    target = baseline("aarch64-unknown-linux-gnu")
    text = jit.assembly(emit_board(target), target)
    assert "yield" in text
    assert jit.compile_object(emit_board(target), target, optimize=False)
    with pytest.raises(UnsupportedError) as caught:
        emit_board(Target("riscv64-unknown-linux-gnu", frozenset()))
    assert str(caught.value) == "threads do not watch for kernels on riscv64"


def test_words_of_different_threads_are_on_different_lines() -> None:
    code = BoardCode(object_code())
    board = Board(code, 3, 2)
    assert board._base % layout.LINE == 0
    written = [layout.OPEN, layout.WATCHING, layout.HEAD_WORDS]
    for slot in range(layout.SLOTS):
        begin = layout.slot_offset(slot)
        written += [begin + offset for offset in (layout.GATE, layout.NEXT, layout.JOB_WORDS)]
    written += [layout.seat_offset(seat) for seat in range(3)]
    assert all(b - a >= layout.LINE for a, b in pairwise(written))
    seats = [board.seat() for _ in range(3)]
    assert len({seat._place for seat in seats}) == 3
    last = max(seat._place for seat in seats) + layout.SEAT_BYTES
    assert last <= board._memory.ctypes.data + board._memory.nbytes
    with pytest.raises(BackendError, match="more workers than seats"):
        board.seat()
