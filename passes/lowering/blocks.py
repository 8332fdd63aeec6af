"""Reductions that keep a block of accumulators: the inner loop runs over a result index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Local
from einloom.ir.loops import Allocate, For, If, Let, Load, LoopStatement, Store
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.passes.lowering.folds import Fold

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]

BLOCK = 512
"""Accumulators of one row: 4 KiB of f64, which stays in the first cache."""
ROWS, NARROW = 8, 128
"""Rows of a tile, and accumulators of each: what a tile reads of the other operands once, it
uses for all its rows."""


def blocked(nest: Nest) -> list[LoopStatement]:
    """Loops over the outer result indices around blocks of the inner one."""
    outer = list(nest.order.outer)
    if not is_tiled(nest):
        return nest.over(outer, {}, lambda variables: block_loop(nest, [variables], BLOCK))
    return nest.over(outer[:-1], {}, partial(tile_loop, nest))


def is_tiled(nest: Nest) -> bool:
    """Whether several rows are worth computing at once: a plain product that reads something
    which does not move with the row."""
    if not nest.order.outer or nest.statement.condition is not None:
        return False
    row, inner = nest.order.outer[-1], nest.order.inner
    extent = nest.extent(row)
    if isinstance(extent, Literal) and int(extent.value.real) < ROWS:
        return False
    body = inline(nest.statement.body, nest.builder.context.functions)
    reads = [part for part in postorder(body) if isinstance(part, Access)]
    plain = all(
        not read.padding and not read.view and all(isinstance(e, Index) for e in read.indices)
        for read in reads
    )
    reused = any(
        Index(row) not in read.indices and inner is not None and Index(inner) in read.indices
        for read in reads
    )
    return plain and reused and not nest.place.inside


def tile_loop(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """Tiles of rows; the rows that are left over are computed one by one."""
    index = nest.order.outer[-1]
    total = nest.extent(index)
    tile, first, name = (nest.builder.fresh(hint) for hint in ("tile", "first", index))
    rows = [{**variables, index: Apply("add", (Local(first), Literal(k)))} for k in range(ROWS)]
    last = Apply("add", (Local(first), Literal(ROWS)))
    single = block_loop(nest, [{**variables, index: Local(name)}], BLOCK, own_loop=True)
    body: list[LoopStatement] = [
        Let(first, Apply("mul", (Local(tile), Literal(ROWS)))),
        If(
            Apply("le", (last, total)),
            tuple(block_loop(nest, rows, NARROW, own_loop=True)),
            (For(name, Local(first), total, tuple(single)),),
        ),
    ]
    tiles = nest.builder.scalar(Apply("ceildiv", (nest.typing.extents[index], Literal(ROWS))))
    sliced = len(nest.order.outer) == 1 and nest.parallel_index() == index
    return [For(tile, Literal(0), tiles, tuple(body), "parallel" if sliced else "serial")]


def block_loop(
    nest: Nest, rows: Sequence[Variables], width: int, own_loop: bool = False
) -> list[LoopStatement]:
    """Blocks of the inner result index, each with its accumulators on the stack.

    `rows` are the cells' outer indices, one or several at once. `own_loop`: there is a loop
    around this one, so that it is not the parallel one.
    """
    inner = nest.order.inner
    assert inner is not None
    fold = nest.folds()[-1]
    (dtype,) = fold.dtypes
    hints = ("block", "start", "count", "row")
    block, start, count, row = (nest.builder.fresh(hint) for hint in hints)
    left = Apply("sub", (nest.extent(inner), Local(start)))
    body: list[LoopStatement] = [
        Let(start, Apply("mul", (Local(block), Literal(width)))),
        Let(count, apply("min", left, Literal(width))),
        Allocate(row, dtype, (Literal(len(rows)), Literal(width)), "stack"),
    ]
    for k in range(len(rows)):
        lane = nest.builder.fresh(inner)
        cleared = Store(row, (Literal(k), Local(lane)), fold.initial()[0])
        body.append(row_loop(lane, count, [cleared]))
    body.extend(accumulate(nest, row, start, count, fold, rows))
    for k, variables in enumerate(rows):
        lane = nest.builder.fresh(inner)
        here = {**variables, inner: Apply("add", (Local(start), Local(lane)))}
        stored: list[LoopStatement] = []
        nest.store(here, (Load(row, (Literal(k), Local(lane))),), stored)
        body.append(row_loop(lane, count, stored))
    blocks = nest.builder.scalar(Apply("ceildiv", (nest.typing.extents[inner], Literal(width))))
    sliced = not own_loop and not nest.order.outer and nest.parallel_index() == inner
    return [For(block, Literal(0), blocks, tuple(body), "parallel" if sliced else "serial")]


def row_loop(lane: str, count: str, body: list[LoopStatement]) -> LoopStatement:
    simple = all(isinstance(s, Store) for s in body)
    return For(lane, Literal(0), Local(count), tuple(body), "vector" if simple else "serial")


def accumulate(
    nest: Nest, row: str, start: str, count: str, fold: Fold, rows: Sequence[Variables]
) -> list[LoopStatement]:
    """The loops of the reduction, with one step for every row inside."""
    assert nest.order.inner is not None
    shared: Variables = {}
    names = []
    for index in nest.order.reduced:
        name, shared = nest.loop(index, shared)
        names.append((index, name))
    lane = nest.builder.fresh(nest.order.inner)
    shared[nest.order.inner] = Apply("add", (Local(start), Local(lane)))
    body: list[LoopStatement] = []
    for k, variables in enumerate(rows):
        here = {**variables, **shared}
        inside: list[LoopStatement] = []
        cell = (Literal(k), Local(lane))
        (stepped,) = fold.step((Load(row, cell),), nest.body(here, inside), inside)
        inside.append(Store(row, cell, stepped))
        body.extend(nest.guarded(here, inside, []))
    body = [row_loop(lane, count, body)]
    for index, name in reversed(names):
        body = [For(name, Literal(0), nest.extent(index), tuple(body))]
    return body
