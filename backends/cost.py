"""What statements cost on a machine: operations, bytes, and time by a roofline with overheads."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from einloom.backends.machine_model import Cache, MachineModel
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
from einloom.ir.types import FLOAT, DType, Quantized, Scalar

DEFINED_OP_COST = 10.0
"""Operations assumed for a monoid that a program defines, where its text is not counted."""


@record
class StatementCost:
    """What one statement costs in a whole run of the program.

    `flops`: scalar operations of any dtype: each operation of the body and each fold counts one.
    Bytes are compulsory traffic: every element that is used is read or written once per
    execution. `times`: how often the statement runs, because of the scans around it; all other
    numbers include it. `seconds`: the machine model's estimate. `computing`, `moving`: seconds
    that its operations and its bytes take at the peak of that machine: the roofline.
    """

    name: str
    flops: int
    bytes_read: float
    bytes_written: float
    seconds: float
    times: int = 1
    computing: float = 0.0
    moving: float = 0.0

    @property
    def intensity(self) -> float:
        """Operations per byte; 0 where nothing moves."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else 0.0


def cost_of(
    module: Module,
    symbols: Mapping[str, int],
    model: MachineModel | None = None,
    packed: Mapping[str, float] | None = None,
    transposed: Collection[str] = (),
) -> list[StatementCost]:
    """The cost of every statement of a module, in the order of the text.

    `symbols` binds all extents that are known at run time only. `packed`: by tensor, for those
    that a packed contraction defines, the share of what its register tiles compute that is
    wanted: tiles stick out at the edges. `transposed`: the tensors that transpositions define.

    Statements in a scan count once per iteration, with `until` as if it never stopped. Constants
    cost nothing. Of a call only the bytes are known. What passes between the statements of one
    kernel stays in registers or cache and is not counted. Tensors with a sparse format count as
    if all their elements were stored.
    Raises ShapeError where a symbol has no size.
    """
    missing = [name for name in infer(module).symbols if name not in symbols]
    if missing:
        raise ShapeError(
            f"no size is given for {', '.join(missing)}",
            suggestion=f"give one, for example {missing[0]}=64",
        )
    costing = _Costing(module, symbols, model or MachineModel(), packed or {}, transposed)
    return list(costing.statements(module.body))


@record
class _Place:
    """Where a statement stands: how often it runs, and whether it starts a kernel.

    `inside`: tensors that stay inside its kernel. `serial`: it runs on one thread.
    """

    times: int = 1
    launches: int = 1
    inside: frozenset[str] = frozenset()
    serial: bool = False


class _Costing:
    def __init__(
        self,
        module: Module,
        symbols: Mapping[str, int],
        model: MachineModel,
        packed: Mapping[str, float],
        transposed: Collection[str],
    ) -> None:
        self.inference = infer(module)
        self.functions = functions_of(module)
        self.monoids = monoids_of(module)
        self.symbols = symbols
        self.model = model
        self.packed = packed
        self.transposed = transposed

    def statements(self, body: Iterable[Statement]) -> Iterator[StatementCost]:
        """Costs of statements and of what they contain, without recursion."""
        stack: list[tuple[Statement, _Place]] = []
        stack += [(s, _Place()) for s in reversed(list(body))]
        while stack:
            statement, place = stack.pop()
            match statement:
                case Einsum():
                    yield self.einsum(statement, place)
                case Call():
                    yield self.call(statement, place.times)
                case Kernel():
                    own = {n for s in statement.body for n in own_names(s)} - set(statement.outputs)
                    first = replace(place, inside=place.inside | own)
                    following = replace(first, launches=0)
                    parts = list(enumerate(statement.body))
                    stack += [(s, following if k else first) for k, s in reversed(parts)]
                case Scan():
                    # One kernel on one thread runs all iterations: it is launched once.
                    times = place.times * self.extent(statement.extent)
                    first = replace(place, serial=True)
                    following = replace(first, launches=0)
                    repeated = replace(following, times=times)
                    stack += [(s, repeated) for s in reversed(statement.body)]
                    parts = list(enumerate(statement.initial))
                    stack += [(s, following if k else first) for k, s in reversed(parts)]

    def einsum(self, statement: Einsum, place: _Place) -> StatementCost:
        times, inside = place.times, place.inside
        typing = self.inference.einsums[statement]
        sizes = {name: self.extent(typing.extents[name]) for name in typing.own_indices()}
        flops, weighted = self.operations(statement, sizes)
        read = self.bytes_read(statement, sizes, inside)
        written = 0.0
        for target, dtype in zip(statement.targets, typing.dtypes, strict=True):
            if target.name not in inside:
                left = {n for e in statement.indices for n in ext.indices_in(e) if n in sizes}
                written += math.prod(sizes[name] for name in left) * element_bits(dtype) / 8
        packed = self.packed.get(statement.targets[0].name, 0.0)
        if packed:  # what a factor computes is done once for each of its cells, in packing it
            weighted = 2.0 * math.prod(sizes.values())
        moved, dtype = read + written, typing.dtypes[0]
        seconds = self.model.seconds(
            operations=weighted,
            bytes_moved=moved,
            footprint=moved,
            fresh_bytes=0.0,
            dtype=dtype,
            launches=place.launches,
            serial=place.serial,
            bytes_written=written,
            packed=packed * self.fused(statement, dtype),
            transposed=statement.targets[0].name in self.transposed,
        )
        computing, moving = self.model.bounds(
            operations=flops, bytes_moved=moved, footprint=moved, dtype=dtype, serial=place.serial
        )
        return StatementCost(
            ", ".join(target.name for target in statement.targets),
            times * flops,
            times * read,
            times * written,
            times * seconds,
            times,
            times * computing,
            times * moving,
        )

    def fused(self, statement: Einsum, dtype: DType) -> float:
        """Half where the operation and the fold of a contraction are not one instruction."""
        body = inline(statement.body, self.functions)
        product = isinstance(body, Apply) and body.op == "mul"
        sums = all(reduction.monoid == "sum" for reduction in statement.reductions)
        floating = isinstance(dtype, Scalar) and dtype.kind == FLOAT
        return 1.0 if (product and sums) or not floating else 0.5

    def call(self, statement: Call, times: int) -> StatementCost:
        def size(name: str) -> float:
            found = self.inference.tensors[name]
            elements = math.prod(self.extent(extent) for extent in found.extents)
            return elements * element_bits(found.dtype) / 8

        read = sum(size(access.tensor) for access in statement.arguments)
        written = sum(size(target.name) for target in statement.targets)
        name = ", ".join(target.name for target in statement.targets)
        moving = times * (read + written) / self.model.memory_bandwidth
        seconds = moving + times * self.model.launch_seconds
        return StatementCost(name, 0, times * read, times * written, seconds, times, 0.0, moving)

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
