"""A machine as a roofline: what a kernel of some operations and bytes takes on it."""

from __future__ import annotations

from dataclasses import replace

from einloom.backends.measurements import Level, Measurements, Rate
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, FLOAT, DType, Modular, Quantized, Scalar, Tuple

BYTES_PER_OPERATION = 8
"""Bytes that count as much as an operation where the work of a kernel is compared with
`parallel_operations`: a copy has no operations, and is shared out all the same."""

FITS = 0.75
"""Share of a cache that a kernel's operands have for themselves: other data lies there, too."""


@record
class Cache:
    """A level of memory: bytes that fit, and bytes per second.

    `bandwidth`: read by one thread. `written`: written by one thread; None: as fast as reading.
    `scaling`: how much of its own speed each further thread adds, from 0 to 1.
    """

    size: int
    bandwidth: float
    written: float | None = None
    scaling: float = 1.0


@record
class MachineModel:
    """A machine as a roofline: peaks per kind of dtype, memory levels, fixed costs.

    Peaks are operations per second of one thread in a register tile, a multiply-add being two;
    memory speeds are bytes per second. The defaults are those of one core of a recent x86-64
    server with AVX-512. They serve to compare alternatives, not to predict: `einloom doctor
    --measure` measures a machine, and `from_measurements` makes its model.

    `f16_peak`, `bf16_peak`: None: as f32, which they are computed in. `packed`: share of the peak
    that packed contractions reach; where an operation and a fold are not one instruction they
    reach half of it. `untiled`: share of the peak that all other code reaches on operands in the
    first cache. `transposed`: share of the bandwidth that transpositions reach. `scaling`,
    `memory_scaling`: how much of its own speed each further thread adds to arithmetic, and to
    memory. `memory_written`: None: as fast as reading.
    `launch_seconds`: starting a kernel. `parallel_seconds`: sharing it out to threads.
    `fresh_bandwidth`: first writes to memory just allocated, which the system has to map.
    `parallel_operations`: below this much work a kernel runs on one thread.
    """

    threads: int = 2
    f32_peak: float = 1e11
    f64_peak: float = 5e10
    small_integer_peak: float = 6e10
    i64_peak: float = 2e10
    modular_peak: float = 5e8
    f16_peak: float | None = None
    bf16_peak: float | None = None
    packed: float = 0.85
    untiled: float = 0.25
    transposed: float = 0.4
    scaling: float = 0.95
    caches: tuple[Cache, ...] = (
        Cache(32 << 10, 1.5e11, 6e10),
        Cache(1 << 20, 7e10, 4e10),
        Cache(32 << 20, 4e10, 2e10, 0.9),
    )
    memory_bandwidth: float = 1.2e10
    memory_written: float | None = 8e9
    memory_scaling: float = 0.6
    fresh_bandwidth: float = 4e9
    launch_seconds: float = 2e-6
    parallel_seconds: float = 1e-5
    parallel_operations: float = 2e5

    @staticmethod
    def from_measurements(measured: Measurements) -> MachineModel:
        """The model of a machine that was measured."""
        count = measured.threads
        tiles = {name: rate.one for name, rate in measured.tiles.items()}
        f32 = tiles["f32"]
        reached = measured.products["f32"].one / f32
        *levels, memory = measured.levels
        return MachineModel(
            threads=count,
            f32_peak=f32,
            f64_peak=tiles["f64"],
            small_integer_peak=tiles["i32"],
            i64_peak=tiles["i64"],
            # These have no tile of their own: their products say what it would be.
            f16_peak=measured.products["f16"].one / reached,
            bf16_peak=measured.products["bf16"].one / reached,
            packed=min(1.0, reached),
            untiled=min(1.0, measured.untiled.one / f32),
            transposed=min(1.0, measured.transposed.one / memory.copy.one),
            scaling=_scaling(measured.products["f32"], count),
            caches=tuple(
                Cache(
                    level.size or 0,
                    level.read.one,
                    _written(level),
                    _scaling(level.copy, count),
                )
                for level in levels
            ),
            memory_bandwidth=memory.read.one,
            memory_written=_written(memory),
            memory_scaling=_scaling(memory.copy, count),
            fresh_bandwidth=memory.fresh.one,
            launch_seconds=measured.launch_seconds,
            parallel_seconds=measured.parallel_seconds,
        )

    def on(self, threads: int) -> MachineModel:
        """The same machine when kernels may use this many threads."""
        return self if threads == self.threads else replace(self, threads=threads)

    def peak(self, dtype: DType) -> float:
        """Operations per second of one thread on a dtype in a register tile."""
        if isinstance(dtype, Modular):
            return self.modular_peak
        if isinstance(dtype, Quantized):
            return self.f32_peak
        if isinstance(dtype, Tuple):
            return min(self.peak(item) for item in dtype.items)
        assert isinstance(dtype, Scalar)
        if dtype.kind == FLOAT:
            known = {"f16": self.f16_peak, "bf16": self.bf16_peak, "f64": self.f64_peak}
            return known.get(dtype.name) or self.f32_peak
        if dtype.kind == COMPLEX:  # a complex multiply-add is eight operations, not two
            return (self.f64_peak if dtype.bits == 128 else self.f32_peak) / 4
        return self.i64_peak if dtype.bits == 64 else self.small_integer_peak

    def bandwidth(self, footprint: float, threads: int = 1) -> float:
        """Bytes per second read where `footprint` bytes are touched."""
        return self._memory(footprint, threads)[0]

    def threads_for(self, operations: float, bytes_moved: float, serial: bool) -> int:
        """Threads that a kernel is shared out to."""
        work = max(operations, bytes_moved / BYTES_PER_OPERATION)
        return 1 if serial or work < self.parallel_operations else self.threads

    def seconds(
        self,
        *,
        operations: float,
        bytes_moved: float,
        footprint: float,
        fresh_bytes: float,
        dtype: DType,
        launches: int,
        serial: bool,
        bytes_written: float = 0.0,
        packed: float = 0.0,
        transposed: bool = False,
    ) -> float:
        """The larger of computing and moving, with the fixed costs added.

        `operations`: on `dtype`, in units of an addition. `bytes_moved`: read and written, of
        which `bytes_written` are written. `footprint`: bytes touched. `fresh_bytes`: written to
        memory just allocated. `serial`: it runs on one thread whatever its size. `packed`: for a
        packed contraction, the share of what its register tiles compute that is wanted; 0 for
        everything else. `transposed`: it reads one way and writes another.
        """
        threads = self.threads_for(operations, bytes_moved, serial)
        share = self.packed * packed if packed else self.untiled
        rate = self.peak(dtype) * share * self.speedup(threads)
        reading, writing = self._memory(footprint, threads)
        moving = (bytes_moved - bytes_written) / reading + bytes_written / writing
        if transposed:
            moving /= self.transposed
        mapping = max(0.0, fresh_bytes - self._mapped) / self.fresh_bandwidth
        sharing = self.parallel_seconds if threads > 1 and launches else 0.0
        return max(operations / rate, moving) + mapping + sharing + launches * self.launch_seconds

    def bounds(
        self, *, operations: float, bytes_moved: float, footprint: float, dtype: DType, serial: bool
    ) -> tuple[float, float]:
        """Seconds of computing and of moving that no code takes less than: the roofline."""
        threads = self.threads_for(operations, bytes_moved, serial)
        computing = operations / (self.peak(dtype) * self.speedup(threads))
        return computing, bytes_moved / self.bandwidth(footprint, threads)

    def speedup(self, threads: int) -> float:
        """How much more arithmetic some threads do than one."""
        return 1.0 + (threads - 1) * self.scaling

    @property
    def _mapped(self) -> int:
        return self.caches[-1].size if self.caches else 0

    def _memory(self, footprint: float, threads: int) -> tuple[float, float]:
        """Bytes per second read and written where `footprint` bytes are touched."""
        for position, cache in enumerate(self.caches):
            # All but the last level belong to one core each.
            shares = 1 if position == len(self.caches) - 1 else threads
            if footprint <= FITS * cache.size * shares:
                together = 1.0 + (threads - 1) * cache.scaling
                written = cache.bandwidth if cache.written is None else cache.written
                return cache.bandwidth * together, written * together
        together = 1.0 + (threads - 1) * self.memory_scaling
        written = self.memory_bandwidth if self.memory_written is None else self.memory_written
        return self.memory_bandwidth * together, written * together


def _scaling(rate: Rate, threads: int) -> float:
    """What each thread after the first adds, as a share of what the first does alone."""
    if threads == 1:
        return 1.0
    return min(1.0, max(0.0, (rate.together / rate.one - 1.0) / (threads - 1)))


def _written(level: Level) -> float:
    """Bytes per second written: what is left of a copy's time when its reads are taken out."""
    per_byte = 2.0 / level.copy.one - 1.0 / level.read.one
    # A copy that is faster than its reads alone would be is one that overlaps both.
    return 1.0 / max(per_byte, 1.0 / (2.0 * level.read.one))
