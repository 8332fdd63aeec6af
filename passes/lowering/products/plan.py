"""Which statements of a module are worth cutting into blocks, and how each is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from einloom.ir import extents as ext
from einloom.ir.infer import Inference, infer
from einloom.ir.machine import SMALLEST, SMALLEST_COPY, Machine
from einloom.ir.program import Einsum, Kernel, Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Scalar
from einloom.passes.lowering.context import context_of
from einloom.passes.lowering.function import FunctionBuilder, OperandLayout, Place
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.parts import parts_for
from einloom.passes.lowering.products.blocking import (
    Blocking,
    Cut,
    Running,
    Streaming,
    Tiling,
    blocking_for,
    unfit,
)
from einloom.passes.lowering.products.factors import (
    Product,
    Run,
    element_bytes,
    product_or_reason,
)

SUM_BYTES = 4
"""Of a sum of dot products."""
MOST_INTERMEDIATE_CELLS = 1 << 23
"""Cells of a kernel's intermediates, together, up to which its contractions are packed: 64 MB of
f64. A kernel with more computes row by row, which keeps one row of each."""

LEAST_ROW = 2048
"""Bytes of a row from which on it is written past the caches: of short ones few lines are whole."""
LONG_BYTES, LAST_CACHE = 4, 16
"""Bytes that a turn of a fold takes, counted low, and second caches that the last cache of a core
holds: beyond it, a fold that runs along with another (`running`) is faster, below it is not."""


def blockings_of(
    module: Module,
    layouts: Mapping[str, OperandLayout],
    sizes: Mapping[str, int],
    machine: Machine,
    rounding: bool = False,
) -> dict[str, Cut]:
    """By tensor, how the contraction, transposition or reduction that defines it is cut; few are.

    `sizes`: the extents that symbols are likely to have. `rounding`: factors of f32 may be rounded
    to bf16, where the machine multiplies that faster.
    """
    inference = infer(module)
    large = set(_larger_than_caches(module, inference, layouts, sizes, machine))
    found: dict[str, Cut] = {name: Streaming() for name in large}
    for statement in candidates_of(module, inference, sizes):
        smallest = SMALLEST if statement.reductions else SMALLEST_COPY
        if work_of(statement, inference, sizes) >= smallest:
            context = context_of(module, inference, layouts)
            name = statement.targets[0].name
            builder = FunctionBuilder(name, context)
            nest = Nest(builder, statement, inference.einsums[statement], Place({}, {}))
            blocking = cut_of(nest, sizes, machine, rounding)
            if isinstance(blocking, Blocking) and name in large:
                blocking = replace(blocking, streamed=True)
            if not isinstance(blocking, str):
                found[name] = blocking
            elif (parts := parts_for(nest, sizes)) is not None:
                found[name] = parts
    for statement in _long_folds(module, inference, sizes, machine):
        name = statement.targets[0].name
        if not isinstance(found.get(name), Blocking):
            found[name] = Running()
    return found


def _larger_than_caches(
    module: Module,
    inference: Inference,
    layouts: Mapping[str, OperandLayout],
    sizes: Mapping[str, int],
    machine: Machine,
) -> Iterator[str]:
    """Tensors stored whole, in long rows of cells side by side, that the last cache cannot hold."""
    stored: list[str] = []
    for statement in module.body:
        if isinstance(statement, Kernel):
            stored.extend(statement.outputs)
        elif isinstance(statement, Einsum):
            stored.extend(target.name for target in statement.targets)
    for name in stored:
        type_ = inference.tensors[name]
        if not isinstance(type_.dtype, Scalar) or not type_.extents:
            continue
        item = numpy_dtype(type_.dtype).itemsize
        whole = item * prod(ext.evaluate(extent, sizes) for extent in type_.extents)
        dense = name not in layouts or layouts[name].strides[-1] == item
        row = item * ext.evaluate(type_.extents[-1], sizes)
        if dense and row >= LEAST_ROW and whole >= LAST_CACHE * machine.second_cache:
            yield name


def _long_folds(
    module: Module, inference: Inference, sizes: Mapping[str, int], machine: Machine
) -> Iterator[Einsum]:
    """Reductions of kernels, but the first, over more terms than the cache holds."""
    for kernel in (s for s in module.body if isinstance(s, Kernel)):
        folds = [s for s in kernel.body if isinstance(s, Einsum) and s.reductions]
        for statement in folds[1:]:
            extents = inference.einsums[statement].extents
            indices = [name for r in statement.reductions for name in r.indices]
            turns = prod(ext.evaluate(extents[name], sizes) for name in indices)
            if len(indices) == 1 and turns * LONG_BYTES >= LAST_CACHE * machine.second_cache:
                yield statement


def cut_of(
    nest: Nest, sizes: Mapping[str, int], machine: Machine, rounding: bool = False
) -> Blocking | Tiling | str:
    """How a statement is cut, or why it is not."""
    if not nest.statement.reductions:
        from einloom.passes.lowering.transposes import tiling_for

        return tiling_for(nest, sizes, machine) or "it reads as it writes, or too little"
    product = product_or_reason(nest)
    if isinstance(product, str):
        return product
    shape = shape_of(nest, product, sizes)
    together = dotted(nest, product, sizes, machine, rounding)
    if together > 1:
        cut = blocking_for(machine, SUM_BYTES, *shape, together)
        if cut is not None:
            return cut
    element = element_bytes((product.dtype, product.left.dtype, product.right.dtype))
    return blocking_for(machine, element, *shape) or str(unfit(machine, element, *shape))


def dotted(
    nest: Nest,
    product: Product,
    sizes: Mapping[str, int],
    machine: Machine,
    rounding: bool = False,
) -> int:
    """Terms that one instruction of the machine multiplies of a product; 1 where it has none."""
    if not (machine.byte_dots or machine.bfloat_dots):
        return 1
    from einloom.passes.lowering.products.dots import BYTES, dots_of

    dots = dots_of(nest, product, rounding)
    if dots is None or not (machine.byte_dots if dots.terms == BYTES else machine.bfloat_dots):
        return 1
    extents = nest.typing.extents
    last = prod(ext.evaluate(extents[name], sizes) for name in product.reduced[-1])
    return dots.terms if last >= dots.terms else 1


def shape_of(nest: Nest, product: Product, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """Rows, columns and terms of a product."""

    def size(runs: tuple[Run, ...]) -> int:
        extents = nest.typing.extents
        return prod(ext.evaluate(extents[name], sizes) for run in runs for name in run)

    return size(product.rows), size(product.columns), size(product.reduced)


def candidates_of(
    module: Module, inference: Inference, sizes: Mapping[str, int]
) -> Iterator[Einsum]:
    """Einsums outside scans; of kernels, those whose intermediates may be kept whole."""
    for statement in module.body:
        if isinstance(statement, Einsum):
            yield statement
        elif isinstance(statement, Kernel):
            inner = [s for s in statement.body if isinstance(s, Einsum)]
            kept = [t.name for s in inner for t in s.targets if t.name not in statement.outputs]
            cells = sum(
                prod(ext.evaluate(e, sizes) for e in inference.tensors[name].extents)
                for name in kept
            )
            if cells <= MOST_INTERMEDIATE_CELLS:
                yield from (s for s in inner if s.reductions)


def work_of(statement: Einsum, inference: Inference, sizes: Mapping[str, int]) -> int:
    """Points of the iteration space of a statement."""
    return prod(ext.evaluate(e, sizes) for e in inference.einsums[statement].extents.values())
