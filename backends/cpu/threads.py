"""A small pool of threads that share out the outer loop of a kernel."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise

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


class _Crew:
    """Worker threads and the runs they may help with. A worker sleeps on a bell of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._runs: list[_Run] = []
        self._sleeping: list[threading.Lock] = []
        self._workers = 0
        self._retired = False

    def offer(self, run: _Run, helpers: int) -> None:
        """Wake sleeping workers for a run, and start new ones up to `helpers` in all."""
        with self.lock:
            self._runs.append(run)
            woken = [self._sleeping.pop() for _ in range(min(helpers, len(self._sleeping)))]
            starting = max(0, min(helpers - len(woken), helpers - self._workers))
            self._workers += starting
        for bell in woken:
            bell.release()
        for started in range(starting):
            worker = threading.Thread(target=self._serve, name="einloom-worker", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # no more threads to be had: those at hand do the work
                with self.lock:
                    self._workers -= starting - started
                return

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
            woken, self._sleeping = self._sleeping, []
        for bell in woken:
            bell.release()

    def abandon(self) -> None:
        """In the child of a fork: forget the workers, who are not there."""
        self.lock = threading.Lock()
        self._retired = True
        self._sleeping = []
        for run in self._runs:
            if run.helpers > 0:
                run.helpers = 0
                run.drop_untaken()
                run.errors[-1] = BackendError(
                    "the process was forked from inside a parallel kernel, and the threads that "
                    "were computing parts of it do not exist in the child"
                )

    def _serve(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while True:
            with self.lock:
                if self._retired:
                    return
                run = next((run for run in self._runs if run.wants_help()), None)
                if run is not None:
                    run.helpers += 1
                else:
                    self._sleeping.append(bell)
            if run is None:
                bell.acquire()
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

    `default_threads` decides the number of threads where `set_num_threads` has not.
    """

    def __init__(self, default_threads: Callable[[], int] = available_threads) -> None:
        self.default_threads = default_threads
        self._chosen: int | None = None
        self._crew = _Crew()
        reference = weakref.ref(self)

        def after_fork() -> None:
            pool = reference()
            if pool is not None:
                crew, pool._crew = pool._crew, _Crew()
                crew.abandon()

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=after_fork)

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

    def close(self) -> None:
        """End the workers once they are idle. A later run starts new ones."""
        crew, self._crew = self._crew, _Crew()
        crew.retire()


_shared = ThreadPool()


def shared_pool() -> ThreadPool:
    """The pool of this process. Kernels share it, so that they do not crowd the CPUs."""
    return _shared
