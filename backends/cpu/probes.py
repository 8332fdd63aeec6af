"""Kernels that measure a machine: multiply-adds in registers, reads, copies and writes of memory.

They are loop programs, compiled as all others are. Each repeats its work so often that starting
it costs nothing beside.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.backends.cpu.compile import compile_payload, from_payload
from einloom.backends.cpu.launcher import Kernels
from einloom.backends.cpu.target import data_caches, host, machine
from einloom.backends.cpu.threads import ThreadPool
from einloom.backends.measurements import TILE_DTYPES, Level, Rate
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.text.loops_parser import parse_loops
from einloom.ir.types import Scalar

Array = np.ndarray[Any, Any]

TERMS = 128
"""Terms of the register tile: both operands stay in the first cache."""
WIDE_REGISTERS = 32
"""With this many vector registers a tile has eight rows, with fewer four."""
VECTORS = 3
RUN_SECONDS = 1e-3
"""What one run of a probe takes at least."""
PROBE_SECONDS = 0.04
"""How long the runs of one probe go on."""
LEAST_RUNS = 5
MOST_TURNS = 1 << 20
MOST_MEMORY = 512 << 20
"""Bytes of all operands of a probe together, at most."""
SHARED_CELLS, SLICE_SECONDS = 1024, 20e-6
"""Cells that each slice of a shared kernel reads, and how long that takes at least."""
PAGES = 64 << 20
"""Bytes of an array that lies in no cache, at least."""

MEMORY_PROBES = """\
kernel read(in X: f32[4], out R: f32[4]; size, turns) {
  for turn in 0 .. turns carry (total: f32 = f32(0)) {
    for vector i in 0 .. size carry (part: f32 = f32(0)) {
      yield part + X[i]
    }
    yield total + part
  }
  R[0] = total
}

kernel copy(in X: f32[4], out R: f32[4]; size, turns) {
  for turn in 0 .. turns {
    for vector i in 0 .. size {
      R[i] = X[i] + f32(turn)
    }
  }
}

kernel write(out R: f32[4]; size, turns) {
  for turn in 0 .. turns {
    for vector i in 0 .. size {
      R[i] = f32(turn)
    }
  }
}

launch read(size, turns) work size
launch copy(size, turns) work size
launch write(size, turns) work size
"""


@record
class Probes:
    """The compiled probes, and the threads that run them."""

    kernels: Kernels
    pool: ThreadPool
    threads: int
    rows: int

    def tile(self, dtype: str) -> Rate:
        """Operations per second of the inner loop of a product, a multiply-add being two."""
        stored = numpy_dtype(Scalar(dtype))
        width = _width(dtype)
        left = np.ones((self.rows, TERMS), stored)
        right = np.ones((TERMS, width), stored)

        def operands() -> list[Array]:
            return [left, right, np.zeros((self.rows, width), stored)]

        operations = 2.0 * self.rows * width * TERMS
        return self.rate(f"tile_{dtype}", operands, (), operations)

    def level(self, name: str, size: int | None, shared: int) -> Level:
        """The speed of a level of memory of `size` bytes that each `shared` threads share."""
        whole = PAGES * 2 if size is None else size // 2
        whole = max(4096, min(whole, MOST_MEMORY // 2) // shared)
        cells = whole // 4
        half = cells // 2

        def reading() -> list[Array]:
            return [np.ones(cells, np.float32), np.zeros(1, np.float32)]

        def copying() -> list[Array]:
            return [np.ones(half, np.float32), np.ones(half, np.float32)]

        read = self.rate("read", reading, (cells,), 4.0 * cells)
        copy = self.rate("copy", copying, (half,), 8.0 * half)
        return Level(name, size, read, copy, self.fresh(cells))

    def fresh(self, cells: int) -> Rate:
        """Bytes per second written to arrays of so many cells, each allocated just before."""

        def write() -> None:
            array = np.empty(cells, np.float32)
            self.prepared("write", [array], (cells,))(1)

        return Rate(*(4.0 * cells / seconds * count for seconds, count in self.both(write)))

    def rate(
        self,
        name: str,
        operands: Callable[[], list[Array]],
        scalars: tuple[int, ...],
        work: float,
    ) -> Rate:
        """Work per second of a probe, of which one turn does `work`, on one thread and on all."""
        workers = [self.prepared(name, operands(), scalars) for _ in range(self.threads)]
        turns = 1
        while turns < MOST_TURNS and timed(partial(workers[0], turns)) < RUN_SECONDS:
            turns *= 2
        one = typical(partial(workers[0], turns))
        together = self.together([partial(worker, turns) for worker in workers])
        return Rate(work * turns / one, work * turns * self.threads / together)

    def both(self, work: Callable[[], None]) -> list[tuple[float, int]]:
        """Seconds of some work on one thread and at once on all, with the number of threads."""
        return [(typical(work), 1), (self.together([work] * self.threads), self.threads)]

    def together(self, works: Sequence[Callable[[], None]]) -> float:
        """Seconds of the slowest of some works that run at once, each on a thread of its own."""
        seconds = [0.0] * len(works)

        def part(begin: int, end: int) -> int:
            for k in range(begin, end):
                seconds[k] = timed(works[k])
            return 0

        def run() -> float:
            self.pool.run_slices(part, len(works), len(works), 1)
            return max(seconds)

        return typical(run, run)

    def sharing(self) -> float:
        """Seconds from the start of a shared kernel to its end beyond what its slices take.

        All slices read the same few cells, and each takes `SLICE_SECONDS`. The threads ran another
        kernel just before, as they did in a program that has more than one.
        """
        cells = np.ones(SHARED_CELLS, np.float32)
        total = np.zeros(1, np.float32)
        read = self.kernels.functions["read"]
        bases = (ctypes.c_void_p * 2)(address_of(cells), address_of(total))
        fault = (ctypes.c_int64 * 2)()
        cuts = (ctypes.c_int64 * (self.threads + 1))(*range(self.threads + 1))

        def part(begin: int, end: int) -> int:
            return int(read(bases, parameters, begin, end, fault))

        def all_parts() -> None:
            if self.pool.run_kernel(read, bases, parameters, cuts, fault) is None:
                self.pool.run_slices(part, self.threads, self.threads, 1)

        turns = 1
        while True:
            parameters = (ctypes.c_int64 * 4)(SHARED_CELLS, turns, cells.itemsize, total.itemsize)
            one = typical(lambda: part(0, 1), partial(elapsed, partial(part, 0, 1)))
            if one > SLICE_SECONDS or turns >= MOST_TURNS:
                break
            turns *= 2
        return max(1e-9, typical(all_parts, partial(elapsed, all_parts)) - one)

    def prepared(
        self, name: str, operands: list[Array], scalars: tuple[int, ...]
    ) -> Callable[[int], None]:
        """A probe with its operands: call it with the number of turns."""
        function = self.kernels.functions[name]
        bases = (ctypes.c_void_p * len(operands))(*map(address_of, operands))
        strides = [stride for array in operands for stride in array.strides]
        fault = (ctypes.c_int64 * 2)()

        def run(turns: int) -> None:
            numbers = [*scalars, turns, *strides]
            parameters = (ctypes.c_int64 * len(numbers))(*numbers)
            function(bases, parameters, 0, 1, fault)
            assert operands  # which keeps them alive

        return run


def new_probes(pool: ThreadPool, threads: int) -> Probes:
    """The probes compiled for this machine. Raises BackendError where llvmlite is missing."""
    registers = machine(host()).vector_registers
    rows = 8 if registers >= WIDE_REGISTERS else 4
    text = "\n".join([*(_tile(dtype, rows) for dtype in TILE_DTYPES), MEMORY_PROBES])
    kernels = from_payload(compile_payload(parse_loops(text)))
    assert kernels is not None
    return Probes(kernels, pool, threads, rows)


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a processor spends in some work of this thread.

    What other processes do meanwhile does not count, so a busy machine measures as an idle one
    does, but for the memory that they share.
    """
    started = time.thread_time()
    work()
    return time.thread_time() - started


def elapsed(work: Callable[[], Any]) -> float:
    """Seconds that some work takes, by the clock on the wall."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def typical(work: Callable[[], Any], time_of: Callable[[], float] | None = None) -> float:
    """Seconds of some work: the lower quartile of several runs.

    The least would be the choice if clocks of threads did not now and then stand still.
    `time_of` runs the work and tells the time that counts, instead of `timed`.
    """
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < LEAST_RUNS or time.perf_counter() - begun < PROBE_SECONDS:
        found.append(timed(work) if time_of is None else time_of())
    return max(1e-9, sorted(found)[len(found) // 4])


def cache_sizes() -> list[int]:
    """Bytes of the data caches of this machine from the first on."""
    first, second = data_caches()
    found = [first, second]
    # What the third level holds is told by Linux alone.
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level = (folder / "level").read_text(encoding="ascii").strip()
            size = (folder / "size").read_text(encoding="ascii").strip()
            if level == "3" and size.endswith("K") and int(size[:-1]) << 10 > second:
                found.append(int(size[:-1]) << 10)
        except (OSError, ValueError):
            continue
    return found[:3]


def _width(dtype: str) -> int:
    item = int(numpy_dtype(Scalar(dtype)).itemsize)
    return VECTORS * machine(host()).lanes(item)


def _tile(dtype: str, rows: int) -> str:
    """The inner loop of a product, repeated; all accumulators are vectors in registers."""
    item = int(numpy_dtype(Scalar(dtype)).itemsize)
    lanes = machine(host()).lanes(item)
    vector = f"{dtype}x{lanes}"
    names = [(r, v, f"acc_{r}_{v}") for r in range(rows) for v in range(VECTORS)]
    carried = ", ".join(f"{n}: {vector} = splat<{lanes}>({dtype}(0))" for *_, n in names)
    lets = [f"let right_{v} = B<{lanes}>[term, {v * lanes}]" for v in range(VECTORS)]
    lets += [f"let left_{r} = splat<{lanes}>(A[{r}, term])" for r in range(rows)]
    sums = ", ".join(f"{name} + left_{r} * right_{v}" for r, v, name in names)
    stores = [f"R[{r}, {v * lanes}] = {name}" for r, v, name in names]
    return "\n".join(
        [
            f"kernel tile_{dtype}(in A: {dtype}[?, {item}], in B: {dtype}[?, {item}], "
            f"out R: {dtype}[?, {item}]; turns) {{",
            "  for turn in 0 .. turns {",
            f"    for term in 0 .. {TERMS} carry ({carried}) {{",
            *(f"      {line}" for line in lets),
            f"      yield {sums}",
            "    }",
            *(f"    {line}" for line in stores),
            "  }",
            "}",
            "",
            f"launch tile_{dtype}(turns) work turns",
        ]
    )
