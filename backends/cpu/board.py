"""The board on which callers post kernels for waiting workers: its memory, its code, its seats.

What the code does is written in `emit_board`. It runs without Python's lock, so posting a kernel
to workers that watch takes about a microsecond, and waking one that sleeps takes no Python code.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.ir.errors import BackendError

LINE = 128
"""Bytes between words that different threads write: two lines of x86, one of some Arm."""
SLOTS = 8
"""Kernels that are shared out at the same time; callers beyond them compute alone."""

OPEN, WATCHING, HEAD_WORDS = 0, LINE, 2 * LINE
HEAD = ("acquire", "release", "seats", "turns")
"""Functions of the bells, seats that are taken, and how often a worker looks before it sleeps."""
HEAD_BYTES = 3 * LINE

GATE, NEXT, JOB_WORDS = 0, LINE, 2 * LINE
JOB = ("owned", "kernel", "bases", "parameters", "cuts", "count", "results", "bell")
SLOT_BYTES = 3 * LINE

SEAT = ("state", "summoned", "bell")
SEAT_BYTES = LINE
AWAKE, ASLEEP = 0, 1

WAITING, IS_OPEN = 1 << 32, 1 << 33
"""Bits of a gate above the count: the caller sleeps on the slot's bell; helpers may enter."""

RESULT = ("status", "value", "limit")
"""What a slice gave, and the two words of its fault."""

WATCH_SECONDS = 75e-6
"""How long a worker looks for more before it sleeps, and a caller for its helpers to end: about
what it takes to wake a sleeping thread, so that one who sleeps in vain loses as much again."""
MOST_TURNS = 1 << 14
CALIBRATION_TURNS, CALIBRATION_RUNS = 256, 3
WORD = 8

_address, _integer = ctypes.c_void_p, ctypes.c_int64
_Run = ctypes.CFUNCTYPE(
    ctypes.c_int32, _address, _address, _address, _address, _address, _integer, _integer, _address
)
_Seated = ctypes.CFUNCTYPE(None, _address, _address)
_Pause = ctypes.CFUNCTYPE(None, _address, _integer)
_NewBell = ctypes.PYFUNCTYPE(_address)
_Acquire = ctypes.PYFUNCTYPE(ctypes.c_int, _address, ctypes.c_int)
_Free = ctypes.PYFUNCTYPE(None, _address)


def slot_offset(slot: int) -> int:
    """Where a slot begins on the board, in bytes."""
    return HEAD_BYTES + slot * SLOT_BYTES


def seat_offset(seat: int) -> int:
    return slot_offset(SLOTS) + seat * SEAT_BYTES


def object_code() -> bytes:
    """The machine code of the board for this machine. Raises EinloomError where there is none."""
    from einloom.backends.cpu import jit
    from einloom.backends.cpu.emit_board import emit_board
    from einloom.backends.cpu.target import host

    # LLVM's passes would take four times as long and gain nothing that could be measured.
    return jit.compile_object(emit_board(host()), optimize=False)


class BoardCode:
    """The functions of a board, loaded, and those of Python that bells are made of.

    Raises BackendError where code cannot be loaded, or where Python lacks a function.
    """

    def __init__(self, code: bytes) -> None:
        from einloom.backends.cpu import jit

        self.library = jit.load_object(code)
        self.run = _Run(self.library.entry("run"))
        self.serve = _Seated(self.library.entry("serve"))
        self.summon = _Seated(self.library.entry("summon"))
        # Python's own locks: they exist wherever it runs, and need no lock of its own.
        self.new_bell = _NewBell(_python_function("PyThread_allocate_lock"))
        self.free_bell = _Free(_python_function("PyThread_free_lock"))
        self.acquire_address = _python_function("PyThread_acquire_lock")
        self.release_address = _python_function("PyThread_release_lock")
        self.acquire = _Acquire(self.acquire_address)
        self.turns = _turns(_Pause(self.library.entry("pause")))


def _python_function(name: str) -> int:
    function = getattr(getattr(ctypes, "pythonapi", None), name, None)
    address = ctypes.cast(function, _address).value if function is not None else None
    if not address:
        raise BackendError(f"this Python has no function {name}")
    return address


def _turns(pause: Callable[[int | None, int], None]) -> int:
    """How often a worker looks in `WATCH_SECONDS`; processors pause for very different times."""
    word = ctypes.c_int64()
    seconds = []
    for _ in range(CALIBRATION_RUNS):
        started = time.perf_counter()
        pause(ctypes.addressof(word), CALIBRATION_TURNS)
        seconds.append(time.perf_counter() - started)
    return max(1, min(MOST_TURNS, int(WATCH_SECONDS * CALIBRATION_TURNS / max(min(seconds), 1e-9))))


class Board:
    """The memory that callers and workers of one crew share. It has a slot for each kernel that is
    being shared out and a seat for each worker.

    `processors`: how many threads can run at once. A kernel for more threads has none of them
    look for anything while others could run: they sleep at once.
    """

    def __init__(self, code: BoardCode, seats: int, processors: int) -> None:
        self._code = code
        self._processors = processors
        self._seats = seats
        size = seat_offset(seats) + LINE
        self._memory = np.zeros(size, np.uint8)
        self._base = -(-address_of(self._memory) // LINE) * LINE
        self._taken = self._word(HEAD_WORDS, HEAD, "seats")
        for name in ("acquire", "release"):
            word = self._word(HEAD_WORDS, HEAD, name)
            word.value = getattr(code, f"{name}_address")
        self._bells: list[int] = []
        # Not at exit: workers may be asleep then.
        self._finalizer = weakref.finalize(self, _free, code.free_bell, self._bells)
        self._finalizer.atexit = False
        for slot in range(SLOTS):
            words = slot_offset(slot) + JOB_WORDS
            self._word(words, JOB, "bell").value = self._new_bell()

    def _word(self, offset: int, fields: Sequence[str], name: str) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self._base + offset + WORD * fields.index(name))

    def _new_bell(self) -> int:
        """A lock that is taken: who waits for the bell waits for its release."""
        bell = self._code.new_bell()
        if not bell:
            raise BackendError("out of memory for a lock")
        self._bells.append(bell)
        self._code.acquire(bell, 1)
        return int(bell)

    def seat(self) -> Seat:
        """A seat for one more worker. Two threads must not ask at once."""
        number = self._taken.value
        if number >= self._seats:
            raise BackendError("internal: there are more workers than seats")
        offset = seat_offset(number)
        self._word(offset, SEAT, "bell").value = self._new_bell()
        self._taken.value = number + 1
        return Seat(self, self._code, self._base, self._base + offset)

    def run(self, kernel: Any, bases: Any, parameters: Any, cuts: Any, fault: Any) -> int:
        """Run a kernel on slices between cuts: its status, with the two words of its fault.

        All but the cuts are pointers, or what ctypes takes for one; `cuts` is an array of int64.
        """
        count = len(cuts) - 1
        turns = self._code.turns if count <= self._processors else 0
        status: int = self._code.run(
            self._base, kernel, bases, parameters, cuts, count, turns, fault
        )
        return status

    def abandon(self) -> None:
        """In the child of a fork: leave the bells alone, of which others may have been asleep."""
        self._finalizer.detach()


class Seat:
    """A worker's place at the board: a bell that kernels are helped with while one waits for it."""

    __slots__ = ("_base", "_board", "_code", "_place")

    def __init__(self, board: Board, code: BoardCode, base: int, place: int) -> None:
        self._board = board  # which keeps the memory
        self._code = code
        self._base = base
        self._place = place

    def wait(self) -> None:
        """Help with kernels until `ring` is called, or was since the last wait."""
        self._code.serve(self._base, self._place)

    def ring(self) -> None:
        self._code.summon(self._base, self._place)


def _free(free: Callable[[int], None], bells: list[int]) -> None:
    for bell in bells:
        free(bell)
