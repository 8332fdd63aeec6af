"""Races of the board at the speed of machine code: going to sleep while being called."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import board as layout
from einloom.backends.cpu import jit
from einloom.backends.cpu.board import Board, BoardCode, object_code
from einloom.backends.cpu.launcher import _PROTOTYPE
from tests.backends.shared_kernels import cell, wait_until, word, words

ROUNDS = 20_000
PATIENCE = 1 << 31
"""How often one looks at a word until one gives up: some seconds."""

TEXT = """
define i64 @waited(ptr %word, i64 %least) nounwind {
entry:
  br label %look
look:
  %n = phi i64 [ 0, %entry ], [ %n.next, %again ]
  %found = load atomic i64, ptr %word acquire, align 8
  %enough = icmp sge i64 %found, %least
  br i1 %enough, label %well, label %again
again:
  %n.next = add i64 %n, 1
  %on = icmp slt i64 %n.next, @PATIENCE@
  br i1 %on, label %look, label %lost
well:
  ret i64 0
lost:
  ret i64 1
}

define i32 @kernel.meeting(ptr %bases, ptr %parameters, i64 %begin, i64 %end, ptr %fault) nounwind {
entry:
  %here = load ptr, ptr %bases
  %all = load i64, ptr %parameters
  %before = atomicrmw add ptr %here, i64 1 acq_rel
  %lost = call i64 @waited(ptr %here, i64 %all)
  %status = trunc i64 %lost to i32
  ret i32 %status
}

define void @kernel.answer(ptr %serve, ptr %board, ptr %seat, ptr %answers, i64 %rounds) nounwind {
entry:
  br label %round
round:
  %n = phi i64 [ 0, %entry ], [ %n.next, %round ]
  call void %serve(ptr %board, ptr %seat)
  %n.next = add i64 %n, 1
  store atomic i64 %n.next, ptr %answers release, align 8
  %on = icmp slt i64 %n.next, %rounds
  br i1 %on, label %round, label %done
done:
  ret void
}

define i64 @kernel.ask(ptr %summon, ptr %board, ptr %seat, ptr %answers, i64 %rounds) nounwind {
entry:
  %clock = alloca i64
  br label %round
round:
  %n = phi i64 [ 0, %entry ], [ %n.next, %answered ]
  %delay = urem i64 %n, 97
  br label %tick
tick:
  %t = phi i64 [ 0, %round ], [ %t.next, %tick ]
  store volatile i64 %t, ptr %clock
  %t.next = add i64 %t, 1
  %early = icmp slt i64 %t.next, %delay
  br i1 %early, label %tick, label %call
call:
  call void %summon(ptr %board, ptr %seat)
  %n.next = add i64 %n, 1
  %lost = call i64 @waited(ptr %answers, i64 %n.next)
  %well = icmp eq i64 %lost, 0
  br i1 %well, label %answered, label %done
answered:
  %on = icmp slt i64 %n.next, %rounds
  br i1 %on, label %round, label %done
done:
  %count = load atomic i64, ptr %answers acquire, align 8
  ret i64 %count
}
"""
"""`meeting` gives 1 where fewer threads come than its parameter says. `answer` serves again and
again, each time until it is summoned; `ask` summons it as often, a little later each time."""

_Calls = ctypes.CFUNCTYPE(
    ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64
)  # also for what returns nothing


@pytest.fixture(scope="module")
def native() -> Callable[[str], int]:
    text = TEXT.replace("@PATIENCE@", str(PATIENCE))
    library = jit.load_object(jit.compile_object(text, optimize=False))
    return library.entry


@pytest.fixture
def code() -> BoardCode:
    return BoardCode(object_code())


def turns_of(board: Board) -> Any:
    return cell(board, layout.HEAD_WORDS + 8 * layout.HEAD.index("turns"))


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_summons_is_heard_whenever_it_comes(
    native: Callable[[str], int], code: BoardCode, turns: int
) -> None:
    board = Board(code, 1, 64)
    turns_of(board).value = turns
    seat = board.seat()
    answers = words(0)
    serve, summon = (ctypes.cast(f, ctypes.c_void_p).value for f in (code.serve, code.summon))
    arguments = (board._base, seat._place, answers, ROUNDS)
    worker = threading.Thread(target=_Calls(native("answer")), args=(serve, *arguments))
    worker.daemon = True
    worker.start()
    assert _Calls(native("ask"))(summon, *arguments) == ROUNDS
    worker.join()
    assert word(board, layout.WATCHING) == 0
    assert word(board, layout.seat_offset(0)) == layout.AWAKE
    assert code.acquire(board._bells[-1], 0) == 0, "the bell was rung once too often"


@pytest.mark.parametrize("turns", [0, 1, 20])
def test_whoever_goes_to_sleep_sees_a_kernel_that_is_posted(
    native: Callable[[str], int], code: BoardCode, turns: int
) -> None:
    """A worker's way to bed takes about as long as it is until the next kernel is posted."""
    board = Board(code, 1, 64)
    code.turns = turns
    turns_of(board).value = turns
    seat = board.seat()
    worker = threading.Thread(target=seat.wait, daemon=True)
    worker.start()
    kernel = _PROTOTYPE(native("meeting"))
    here = np.zeros(1, np.int64)
    bases, parameters = (ctypes.c_void_p * 1)(here.ctypes.data), words(2)
    cuts, fault = words(0, 1, 2), words(0, 0)
    for number in range(ROUNDS // 10):
        here[0] = 0
        assert board.run(kernel, bases, parameters, cuts, fault) == 0, number
        for _ in range(number % 50):
            pass
    seat.ring()
    worker.join()
    wait_until(lambda: word(board, layout.WATCHING) == 0)
    assert code.acquire(board._bells[-1], 0) == 0, "the bell was rung once too often"
    bells = board._bells[: layout.SLOTS]
    assert [code.acquire(bell, 0) for bell in bells] == [0] * layout.SLOTS
