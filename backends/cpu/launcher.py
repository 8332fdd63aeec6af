"""Running compiled kernels: buffers laid out once per signature, then a few native calls."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from einloom.backends.cpu.addresses import address_of, effective_strides
from einloom.backends.cpu.plan import Plan, evaluate, shape_of, storage_dtype
from einloom.backends.cpu.threads import MOST_THREADS, ThreadPool, plan_slices
from einloom.ir.errors import BackendError, EinloomError, RangeError
from einloom.ir.record import record

Array = np.ndarray[Any, Any]

SLICE_WORK = 1 << 17  # scalar operations below which a slice is not worth a thread

_PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
)


_Fault = ctypes.c_int64 * 2


class Library(Protocol):
    """Loaded machine code. The code lives as long as the object does."""

    def entry(self, name: str) -> int: ...


@record
class Storage:
    """A tensor that each run allocates."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class IndexFault(RangeError):
    """A kernel stopped at an index outside its tensor: which function, and which of its checks.

    The text is that of the program that was compiled first; a later one that is equal up to its
    locations shares the code.
    """

    def __init__(self, function: str, number: int, text: str, value: int, limit: int) -> None:
        self.function, self.number = function, number
        self.value, self.limit = value, limit
        super().__init__(self.filled(text))

    def filled(self, text: str) -> str:
        return text.replace("{value}", str(self.value)).replace("{limit}", str(self.limit))


class Kernels:
    """The native functions of one program."""

    def __init__(self, plan: Plan, library: Library) -> None:
        self.plan = plan
        self.library = library
        self.functions = {
            launch.function: _PROTOTYPE(library.entry(launch.function)) for launch in plan.launches
        }

    @property
    def can_fault(self) -> bool:
        """Whether a run may stop at an index that lies outside its tensor."""
        return any(launch.faults for launch in self.plan.launches)

    def prepare(self, arrays: Mapping[str, Array], symbols: Mapping[str, int]) -> Prepared:
        """Everything about a run that follows from the inputs' shapes, strides and symbols."""
        return Prepared(self, arrays, symbols)


class Prepared:
    """A program ready to run on arrays of one signature.

    `order` names the tensors as they are passed: inputs and constants, then storages.
    """

    def __init__(
        self, kernels: Kernels, arrays: Mapping[str, Array], symbols: Mapping[str, int]
    ) -> None:
        self.kernels = kernels
        self.inputs = tuple(arrays)
        self.storages = tuple(
            Storage(s.name, shape_of(s, symbols), storage_dtype(s.dtype))
            for s in kernels.plan.storages
        )
        position = {name: k for k, name in enumerate([*arrays, *(s.name for s in self.storages)])}
        shapes = {s.name: np.broadcast_to(np.empty((), s.dtype), s.shape) for s in self.storages}
        self.calls: list[_Call] = []
        for launch in kernels.plan.launches:
            parameters = [evaluate(code, symbols) for code in launch.scalars]
            offsets: list[tuple[int, int]] = []
            for buffer in launch.buffers:
                if buffer.tensor in arrays:
                    whole = arrays[buffer.tensor]
                    item = whole.dtype.itemsize
                    strides = effective_strides(whole.shape, whole.strides, item)
                else:
                    whole = shapes[buffer.tensor]
                    strides = _contiguous(whole)
                offset = 0
                if buffer.item is not None:
                    offset = whole.dtype.fields[f"f{buffer.item}"][1]
                offsets.append((position[buffer.tensor], offset))
                parameters.extend(strides)
            slices = 1 if launch.slices is None else evaluate(launch.slices, symbols)
            self.calls.append(
                _Call(
                    launch.function,
                    kernels.functions[launch.function],
                    tuple(offsets),
                    (ctypes.c_void_p * max(1, len(offsets))),
                    (ctypes.c_int64 * max(1, len(parameters)))(*parameters),
                    slices,
                    launch.slices is not None,
                    evaluate(launch.work, symbols),
                    launch.faults,
                    {},
                )
            )

    def run(self, arrays: Sequence[Array], pool: ThreadPool, threads: int) -> None:
        """Run on the tensors in order. Raises RangeError for an index outside its tensor."""
        self.run_at([address_of(array) for array in arrays], pool, threads)

    def run_at(self, addresses: Sequence[int], pool: ThreadPool, threads: int) -> None:
        """The same for tensors given by their addresses; the caller keeps them alive."""
        for call in self.calls:
            call.run(addresses, pool, threads)

    def allocate(self, given: Mapping[str, Array] | None = None) -> list[Array]:
        """Storages in order: those that are given, and new ones."""
        given = given or {}
        return [
            given[s.name] if s.name in given else np.empty(s.shape, s.dtype) for s in self.storages
        ]


@record
class _Call:
    name: str
    function: Any
    offsets: tuple[tuple[int, int], ...]
    pointers: Any
    parameters: Any
    slices: int
    sliced: bool
    work: int
    faults: tuple[str, ...]
    cuts: dict[int, Any]  # by number of threads: where the slices begin and end

    @property
    def is_wide(self) -> bool:
        """Whether there is enough to do for several threads."""
        return self.sliced and self.work > SLICE_WORK and self.slices > 1

    def run(self, bases: Sequence[int], pool: ThreadPool, threads: int) -> None:
        table = self.pointers(*[bases[k] + offset for k, offset in self.offsets])
        if threads > 1 and self.is_wide:
            self.share(table, pool, threads)
        else:
            self.slice(table, 0, self.slices)

    def share(self, table: Any, pool: ThreadPool, threads: int) -> None:
        """Run on several threads."""
        cuts = self.cuts.get(threads)
        if cuts is None:
            slices = plan_slices(self.slices, min(threads, MOST_THREADS), self.grain)
            bounds = [0, *(end for _, end in slices)]
            cuts = self.cuts[threads] = (ctypes.c_int64 * len(bounds))(*bounds)
        fault = _Fault()
        status = pool.run_kernel(self.function, table, self.parameters, cuts, fault)
        if status is None:

            def part(begin: int, end: int) -> int:
                self.slice(table, begin, end)
                return 0

            pool.run_slices(part, self.slices, threads, self.grain)
        elif status:
            raise self.failure(status, fault)

    @property
    def grain(self) -> int:
        """Iterations that are worth a thread."""
        return max(1, SLICE_WORK * self.slices // self.work)

    def slice(self, table: Any, begin: int, end: int) -> None:
        fault = _Fault()
        status = self.function(table, self.parameters, begin, end, fault)
        if status:
            raise self.failure(status, fault)

    def failure(self, status: int, fault: Any) -> EinloomError:
        """What a kernel's status says: negative for memory, else the number of a check."""
        if status < 0:
            return BackendError("out of memory for a kernel's workspace")
        return IndexFault(self.name, status, self.faults[status - 1], fault[0], fault[1])


def _contiguous(array: Array) -> tuple[int, ...]:
    """Strides in bytes of a C-contiguous array of this shape and dtype."""
    strides: list[int] = []
    step = array.dtype.itemsize
    for extent in reversed(array.shape):
        strides.append(step)
        step *= max(1, extent)
    return tuple(reversed(strides))
