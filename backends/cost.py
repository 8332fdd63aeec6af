"""What statements cost on a machine: operations, bytes, and time by a roofline with overheads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from einloom.ir import extents as ext
from einloom.ir.definitions import functions_of, inline, monoids_of
from einloom.ir.errors import ShapeError
from einloom.ir.expressions import Access, Apply, Expression
from einloom.ir.infer import infer
from einloom.ir.names import own_names
from einloom.ir.node import child_nodes, postorder
from einloom.ir.ops import MONOIDS, OPS, is_flat
from einloom.ir.program import Call, Einsum, Kernel, Module, Reduction, Scan, Statement
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, FLOAT, DType, Modular, Quantized, Scalar, Tuple

DEFINED_OP_COST = 10.0
"""Operations assumed for a monoid that a program defines, where its text is not counted."""


@record
class Cache:
    """A level of memory: bytes that fit, and bytes per second that one thread moves."""

    size: int
    bandwidth: float


@record
class MachineModel:
    """A machine as a roofline: peaks per kind of dtype, memory levels, fixed costs.

    Peaks are operations per second on one thread, a multiply-add being two; memory speeds are
    bytes per second. The defaults are those of one core of a recent x86-64 server under compiled
    code without tiling; they serve to compare alternatives, not to predict.

    `launch_seconds`: starting a kernel. `fresh_bandwidth`: first writes to memory just
    allocated, which the system has to map. `parallel_operations`: below this much work a kernel
    runs on one thread.
    """

    threads: int = 2
    f32_peak: float = 2.4e10
    f64_peak: float = 1.2e10
    small_integer_peak: float = 2.4e10
    i64_peak: float = 8e9
    modular_peak: float = 5e8
    caches: tuple[Cache, ...] = (
        Cache(48 << 10, 1e11),
        Cache(2 << 20, 5e10),
        Cache(32 << 20, 2.5e10),
    )
    memory_bandwidth: float = 1.2e10
    fresh_bandwidth: float = 4e9
    launch_seconds: float = 2e-6
    parallel_operations: float = 2e5

    def peak(self, dtype: DType) -> float:
        """Operations per second of one thread on a dtype. f16 and bf16 are computed in f32."""
        if isinstance(dtype, Modular):
            return self.modular_peak
        if isinstance(dtype, Quantized):
            return self.f32_peak
        if isinstance(dtype, Tuple):
            return min(self.peak(item) for item in dtype.items)
        assert isinstance(dtype, Scalar)
        if dtype.kind == FLOAT:
            return self.f64_peak if dtype.bits == 64 else self.f32_peak
        if dtype.kind == COMPLEX:  # a complex multiply-add is eight operations, not two
            return (self.f64_peak if dtype.bits == 128 else self.f32_peak) / 4
        return self.i64_peak if dtype.bits == 64 else self.small_integer_peak

    def bandwidth(self, footprint: float) -> float:
        """Bytes per second where `footprint` bytes are touched."""
        for cache in self.caches:
            if footprint <= cache.size:
                return cache.bandwidth
        return self.memory_bandwidth

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
    ) -> float:
        """The larger of computing and moving, with the fixed costs added.

        `operations`: on `dtype`, in units of an addition. `bytes_moved`: read and written.
        `footprint`: bytes touched. `fresh_bytes`: written to memory just allocated. `serial`: it
        runs on one thread whatever its size.
        """
        threads = 1 if serial or operations < self.parallel_operations else self.threads
        computing = operations / (self.peak(dtype) * threads)
        moving = bytes_moved / self.bandwidth(footprint)
        small = self.caches[-1].size if self.caches else 0
        mapping = max(0.0, fresh_bytes - small) / self.fresh_bandwidth
        return max(computing, moving) + mapping + launches * self.launch_seconds


@record
class StatementCost:
    """What one statement costs in a whole run of the program.

    `flops`: scalar operations of any dtype: each operation of the body and each fold counts one.
    Bytes are compulsory traffic: every element that is used is read or written once per
    execution. `times`: how often the statement runs, because of the scans around it; all other
    numbers include it. `seconds`: the machine model's estimate.
    """

    name: str
    flops: int
    bytes_read: float
    bytes_written: float
    seconds: float
    times: int = 1

    @property
    def intensity(self) -> float:
        """Operations per byte; 0 where nothing moves."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else 0.0


def cost_of(
    module: Module, symbols: Mapping[str, int], model: MachineModel | None = None
) -> list[StatementCost]:
    """The cost of every statement of a module, in the order of the text.

    `symbols` binds all extents that are known at run time only. Statements in a scan count once
    per iteration, with `until` as if it never stopped. Constants cost nothing. Of a call only the
    bytes are known. What passes between the statements of one kernel stays in registers or cache
    and is not counted. Tensors with a sparse format count as if all their elements were stored.
    Raises ShapeError where a symbol has no size.
    """
    missing = [name for name in infer(module).symbols if name not in symbols]
    if missing:
        raise ShapeError(
            f"no size is given for {', '.join(missing)}",
            suggestion=f"give one, for example {missing[0]}=64",
        )
    return list(_Costing(module, symbols, model or MachineModel()).statements(module.body))


class _Costing:
    def __init__(self, module: Module, symbols: Mapping[str, int], model: MachineModel) -> None:
        self.inference = infer(module)
        self.functions = functions_of(module)
        self.monoids = monoids_of(module)
        self.symbols = symbols
        self.model = model

    def statements(self, body: Iterable[Statement]) -> Iterator[StatementCost]:
        """Costs of statements and of what they contain, without recursion."""
        stack: list[tuple[Statement, int, int, frozenset[str]]] = []  # and times, launches, inside
        stack += [(s, 1, 1, frozenset()) for s in reversed(list(body))]
        while stack:
            statement, times, launches, inside = stack.pop()
            match statement:
                case Einsum():
                    yield self.einsum(statement, times, launches, inside)
                case Call():
                    yield self.call(statement, times)
                case Kernel():
                    own = {n for s in statement.body for n in own_names(s)} - set(statement.outputs)
                    parts = list(enumerate(statement.body))
                    stack += [
                        (s, times, launches if k == 0 else 0, inside | own)
                        for k, s in reversed(parts)
                    ]
                case Scan():
                    # One kernel runs all iterations, so only its first statement is launched.
                    repeated = times * self.extent(statement.extent)
                    stack += [(s, repeated, 0, inside) for s in reversed(statement.body)]
                    parts = list(enumerate(statement.initial))
                    stack += [
                        (s, times, launches if k == 0 else 0, inside) for k, s in reversed(parts)
                    ]

    def einsum(
        self, statement: Einsum, times: int, launches: int, inside: frozenset[str]
    ) -> StatementCost:
        typing = self.inference.einsums[statement]
        sizes = {name: self.extent(typing.extents[name]) for name in typing.own_indices()}
        flops, weighted = self.operations(statement, sizes)
        read = self.bytes_read(statement, sizes, inside)
        written = 0.0
        for target, dtype in zip(statement.targets, typing.dtypes, strict=True):
            if target.name not in inside:
                left = {n for e in statement.indices for n in ext.indices_in(e) if n in sizes}
                written += math.prod(sizes[name] for name in left) * element_bits(dtype) / 8
        seconds = times * self.model.seconds(
            operations=weighted,
            bytes_moved=read + written,
            footprint=read + written,
            fresh_bytes=0.0,
            dtype=typing.dtypes[0],
            launches=0,
            serial=times > 1 or not launches,
        )
        name = ", ".join(target.name for target in statement.targets)
        return StatementCost(
            name,
            times * flops,
            times * read,
            times * written,
            seconds + launches * self.model.launch_seconds,
            times,
        )

    def call(self, statement: Call, times: int) -> StatementCost:
        def size(name: str) -> float:
            found = self.inference.tensors[name]
            elements = math.prod(self.extent(extent) for extent in found.extents)
            return elements * element_bits(found.dtype) / 8

        read = sum(size(access.tensor) for access in statement.arguments)
        written = sum(size(target.name) for target in statement.targets)
        name = ", ".join(target.name for target in statement.targets)
        seconds = (read + written) / self.model.memory_bandwidth + self.model.launch_seconds
        return StatementCost(name, 0, times * read, times * written, times * seconds, times)

    def operations(self, statement: Einsum, sizes: Mapping[str, int]) -> tuple[int, float]:
        """Scalar operations, counted, and weighted by what each costs."""
        points = math.prod(sizes.values())
        count, weight = self.per_point(statement.body)
        if statement.condition is not None:
            more, heavier = self.per_point(statement.condition)
            count, weight = count + more, weight + heavier
        flops, weighted = points * count, points * weight
        for reduction in reversed(statement.reductions):
            flops += points
            weighted += points * self.fold_weight(reduction)
            for name in reduction.indices:
                points = points // sizes[name] if sizes[name] else 0
        return flops, weighted

    def fold_weight(self, reduction: Reduction) -> float:
        if reduction.monoid in MONOIDS:
            return OPS[MONOIDS[reduction.monoid].op].cost
        definition = self.monoids.get(reduction.monoid)
        return DEFINED_OP_COST if definition is None else self.per_point(definition.combine)[1]

    def per_point(self, expression: Expression) -> tuple[int, float]:
        """Operations of an expression at one point; those that find addresses are not counted."""
        count, weight = 0, 0.0
        root = inline(expression, self.functions)
        stack, seen = [root], {id(root)}
        while stack:
            current = stack.pop()
            if isinstance(current, Apply):
                times = len(current.arguments) - 1 if is_flat(current.op) else 1
                count += times
                weight += times * OPS[current.op].cost
            if isinstance(current, Access):
                continue
            for child in child_nodes(current):
                if isinstance(child, Expression) and id(child) not in seen:
                    seen.add(id(child))
                    stack.append(child)
        return count, weight

    def bytes_read(
        self, statement: Einsum, sizes: Mapping[str, int], inside: frozenset[str]
    ) -> float:
        """Bytes of the elements that a statement uses, each tensor being counted once at most."""
        elements: dict[str, float] = {}
        seen: set[Access] = set()
        roots = [statement.body, *statement.indices]
        if statement.condition is not None:
            roots.append(statement.condition)
        for root in roots:
            for part in postorder(root):
                if isinstance(part, Access) and part not in seen and part.tensor not in inside:
                    seen.add(part)
                    used = {n for e in part.indices for n in ext.indices_in(e) if n in sizes}
                    cells = math.prod(sizes[name] for name in used)
                    elements[part.tensor] = elements.get(part.tensor, 0.0) + cells
        total = 0.0
        for name, count in elements.items():
            found = self.inference.tensors[name]
            whole = math.prod(self.extent(extent) for extent in found.extents)
            total += min(count, whole) * element_bits(found.dtype) / 8
        return total

    def extent(self, extent: Expression) -> int:
        return max(0, ext.evaluate(extent, self.symbols))


def element_bits(dtype: DType) -> float:
    """Bits of storage per element; for a quantized dtype with its share of the scales."""
    if not isinstance(dtype, Quantized):
        return 8.0 * numpy_dtype(dtype).itemsize
    bits = max(_code_bits(code, dtype) for code in dtype.codes)
    for scale in dtype.scales:
        elements = math.prod(scale.block)
        if scale.block and elements:  # other scales cover whole ranks: next to nothing
            bits += scale.dtype.bits / elements
    return bits


def _code_bits(code: str, dtype: Quantized) -> float:
    if found := re.fullmatch(r"[iu](\d+)", code):
        return float(found.group(1))
    if found := re.fullmatch(r"e(\d+)m(\d+)", code):
        return 1.0 + float(found.group(1)) + float(found.group(2))
    return float(max(1, math.ceil(math.log2(max(2, len(dtype.table))))))


__all__ = ["Cache", "MachineModel", "StatementCost", "cost_of", "element_bits"]
