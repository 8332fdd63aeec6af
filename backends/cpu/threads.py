"""A small pool of threads that share out the outer loop of a kernel."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

from einloom.backends.cpu.board import Board, BoardCode, object_code
from einloom.ir.errors import BackendError, EinloomError

SliceFunction = Callable[[int, int], int]

MOST_THREADS = 1024


def available_threads() -> int:
    """Number of CPUs that this process may run on; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan_slices(extent: int, threads: int, grain: int) -> list[tuple[int, int]]:
    """Cut `[0, extent)` into at most `threads` contiguous, nearly equal slices.

    Every boundary but the last is a multiple of `grain`, and no slice but the last is shorter:
    with the vector width as a factor of the grain, the same elements are computed by vector code
    and by the remainder loop whatever the number of slices is.

    >>> plan_slices(10, threads=2, grain=4)
    [(0, 4), (4, 10)]
    """
    grains = -(-extent // grain)
    count = max(1, min(threads, grains))
    cuts = [grains * i // count * grain for i in range(count)] + [extent]
    return list(pairwise(cuts))


class _Run:
    """One call of `run_slices`: slices that nobody has taken yet, and what the others gave."""

    __slots__ = ("_function", "_untaken", "all_left", "closed", "errors", "helpers", "statuses")

    def __init__(self, function: SliceFunction, slices: list[tuple[int, int]]) -> None:
        self._function = function
        # pop() and clear() are atomic, so no slice is taken twice.
        self._untaken = [(i, *slices[i]) for i in reversed(range(len(slices)))]
        self.statuses: dict[int, int] = {}
        self.errors: dict[int, BaseException] = {}
        # The next three change under the lock of the crew. Counting helpers rather than slices
        # keeps the count right when an interrupt hits the caller between two statements.
        self.helpers = 0
        self.closed = False
        self.all_left = threading.Lock()
        self.all_left.acquire()

    def wants_help(self) -> bool:
        return bool(self._untaken)

    def drop_untaken(self) -> None:
        self._untaken.clear()

    def work(self) -> None:
        """Take slices, lowest first, until none is left."""
        while self._untaken:
            try:
                index, begin, end = self._untaken.pop()
            except IndexError:
                return
            try:
                status = self._function(begin, end)
            except BaseException as error:
                self.errors[index] = error
            else:
                if status == 0:
                    continue
                self.statuses[index] = status
            # What is left lies above the failure, and the lowest failure is the one reported.
            self.drop_untaken()

    def result(self) -> int:
        """The lowest slice's failure: raised if it is an exception, else its status, else 0."""
        if self.errors:
            error = self.errors[min(self.errors)]
            self.errors = {}
            try:
                raise error
            finally:
                del error  # it holds this frame, and with it the operands
        return self.statuses[min(self.statuses)] if self.statuses else 0


class Bell(Protocol):
    """What a worker without a run waits for. Whoever rings before the wait is heard, too."""

    def wait(self) -> None: ...

    def ring(self) -> None: ...


class _PlainBell:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def ring(self) -> None:
        self._lock.release()


class _Crew:
    """Worker threads and the runs they may help with. A worker waits for a bell of its own.

    With a board the bell is a seat there, and workers help with kernels while they wait.
    """

    def __init__(self, board: Board | None = None) -> None:
        self.lock = threading.Lock()
        self.board = board
        self.workers = 0
        self._runs: list[_Run] = []
        self._waiting: list[Bell] = []
        self._retired = False

    def offer(self, run: _Run, helpers: int) -> None:
        """Wake waiting workers for a run, and start new ones up to `helpers` in all."""
        with self.lock:
            self._runs.append(run)
            woken = [self._waiting.pop() for _ in range(min(helpers, len(self._waiting)))]
        for bell in woken:
            bell.ring()
        if len(woken) < helpers:
            self.hire(helpers)

    def hire(self, workers: int) -> None:
        """Start workers until there are so many."""
        with self.lock:
            starting = max(0, workers - self.workers)
            self.workers += starting
        try:
            while starting:
                threading.Thread(target=self._serve, name="einloom-worker", daemon=True).start()
                starting -= 1
        except RuntimeError:  # no more threads to be had: those at hand do the work
            pass
        finally:
            if starting:
                with self.lock:
                    self.workers -= starting

    def close(self, run: _Run) -> None:
        """Wait until no worker is inside a run; an interrupt is raised only after that."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self.lock:
                    run.drop_untaken()
                    run.closed = True
                    if run.helpers <= 0:
                        if run in self._runs:
                            self._runs.remove(run)
                        break
                run.all_left.acquire()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def retire(self) -> None:
        """Let the workers end once they have finished what they are doing."""
        with self.lock:
            self._retired = True
            woken, self._waiting = self._waiting, []
        for bell in woken:
            bell.ring()

    def abandon(self) -> None:
        """In the child of a fork: forget the workers, who are not there."""
        self.lock = threading.Lock()
        self._retired = True
        self._waiting = []
        if self.board is not None:
            self.board.abandon()
        for run in self._runs:
            if run.helpers > 0:
                run.helpers = 0
                run.drop_untaken()
                run.errors[-1] = BackendError(
                    "the process was forked from inside a parallel kernel, and the threads that "
                    "were computing parts of it do not exist in the child"
                )

    def _serve(self) -> None:
        with self.lock:
            bell: Bell = _PlainBell() if self.board is None else self.board.seat()
        while True:
            with self.lock:
                if self._retired:
                    return
                run = next((run for run in self._runs if run.wants_help()), None)
                if run is not None:
                    run.helpers += 1
                else:
                    self._waiting.append(bell)
            if run is None:
                bell.wait()
                continue
            run.work()
            with self.lock:
                run.helpers -= 1
                if run.closed and run.helpers == 0:
                    run.all_left.release()


class ThreadPool:
    """Threads that run slices of kernels; they start on first use and then wait for more.

    The calling thread always works, too, and takes whatever slices no worker has taken. So a call
    never waits for a free worker, only for slices that are being computed: calls may be nested and
    may come from any number of threads. Workers are daemons. After a fork the child starts its own.

    `default_threads` decides the number of threads where `set_num_threads` has not. `board_code`
    gives the machine code by which kernels are shared out, when the first is; it may come from a
    cache.
    """

    def __init__(
        self,
        default_threads: Callable[[], int] = available_threads,
        board_code: Callable[[], bytes] = object_code,
    ) -> None:
        self.default_threads = default_threads
        self.board_code = board_code
        self._chosen: int | None = None
        self._crew = _Crew()
        self._code: BoardCode | None = None
        self._settled = False
        self._loading = threading.Lock()
        reference = weakref.ref(self)

        def after_fork() -> None:
            pool = reference()
            if pool is not None:
                pool._loading = threading.Lock()
                crew, pool._crew = pool._crew, pool._new_crew()
                crew.abandon()

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=after_fork)

    def _new_crew(self) -> _Crew:
        if self._code is None:
            return _Crew()
        return _Crew(Board(self._code, MOST_THREADS, available_threads()))

    def _load(self) -> None:
        """Give workers a board. Where there can be none, kernels are shared out by Python code."""
        # A thread that finds the lock taken goes on without.
        if self._settled or not self._loading.acquire(blocking=False):
            return
        try:
            if self._settled:
                return
            try:
                self._code = BoardCode(self.board_code())
                self.close()
            except EinloomError:
                self._code = None
            self._settled = True
        finally:
            self._loading.release()

    @property
    def num_threads(self) -> int:
        """Number of threads that a run should be given, its caller included."""
        return self._chosen or self.default_threads()

    def set_num_threads(self, threads: int | None) -> None:
        """Choose the number of threads for runs to come; `None` goes back to the default."""
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise EinloomError(
                f"the number of threads is {threads}; it must be from 1 to {MOST_THREADS}"
            )
        self._chosen = threads

    def run_slices(self, function: SliceFunction, extent: int, threads: int, grain: int) -> int:
        """Call `function(begin, end)` on slices of `[0, extent)`, on up to `threads` threads.

        `function` returns 0 or an error's number, and should release the GIL. Slices are those of
        `plan_slices`. Returns when all slices have ended: with 0, or the status of the lowest slice
        that gave another. After a failure, slices that have not started are left out. If slices
        raise, the exception of the lowest of them is raised here.
        """
        if extent <= 0:
            return 0
        if threads <= 1 or extent <= grain:
            return function(0, extent)
        slices = plan_slices(extent, min(threads, MOST_THREADS), grain)
        run = _Run(function, slices)
        crew = self._crew
        try:
            crew.offer(run, len(slices) - 1)
            run.work()
        finally:
            crew.close(run)
        return run.result()

    def run_kernel(
        self, kernel: Any, bases: Any, parameters: Any, cuts: Any, fault: Any
    ) -> int | None:
        """Run a compiled kernel on slices between `cuts`, an array of int64, a thread for each.

        The kernel, its bases and parameters are pointers, or what ctypes takes for one. Returns
        when all slices have ended: with 0, or the status of the lowest slice that gave another,
        whose fault is in the two words of `fault`. After a failure, slices that have not started
        are left out. None, and nothing was done, where there is no machine code for sharing it
        out, or not yet: `run_slices` does it then.
        """
        if self._crew.board is None:
            self._load()
        crew = self._crew
        if crew.board is None:
            return None
        if crew.workers < len(cuts) - 2:
            crew.hire(len(cuts) - 2)
        return crew.board.run(kernel, bases, parameters, cuts, fault)

    def close(self) -> None:
        """End the workers once they are idle. A later run starts new ones."""
        crew, self._crew = self._crew, self._new_crew()
        crew.retire()


_shared = ThreadPool()


def shared_pool() -> ThreadPool:
    """The pool of this process. Kernels share it, so that they do not crowd the CPUs."""
    return _shared
