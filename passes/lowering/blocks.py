"""Reductions that keep a block of accumulators: the inner loop runs over a result index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Local
from einloom.ir.loops import Allocate, For, If, Let, Load, LoopStatement, Store
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.passes.lowering.folds import Fold

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]
MakeCell = Callable[[Expression, str], list[LoopStatement]]

BLOCK, WIDE_BYTES = 512, 1 << 14
"""Accumulators of one row, at least, and the bytes that they take at most. The first is what stays
in the first cache beside other operands; more make longer runs of memory that is read in order."""
ENOUGH_BLOCKS = 16
"""Blocks of the inner index that a nest should have, for threads to share."""
TERMS = 4
"""Terms that are folded into an accumulator between its load and its store."""
ROWS, NARROW = 4, 256
"""Rows of a tile, and accumulators of each: what a tile reads of the other operands once, it
uses for all its rows."""


def blocked(nest: Nest) -> list[LoopStatement]:
    """Loops over the outer result indices around blocks of the inner one."""
    outer = list(nest.order.outer)
    if not is_tiled(nest):
        return nest.over(outer, {}, lambda variables: block_loop(nest, Rows(variables), wide(nest)))
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


def wide(nest: Nest) -> int:
    """The most accumulators of a single row."""
    (dtype,) = nest.folds()[-1].dtypes
    return max(BLOCK, WIDE_BYTES // numpy_dtype(dtype).itemsize)


def tile_loop(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """Tiles of rows; the rows that are left over are computed one by one."""
    index = nest.order.outer[-1]
    total = nest.extent(index)
    tile, first, name = (nest.builder.fresh(hint) for hint in ("tile", "first", index))
    tiled = Rows(variables, index, Local(first), ROWS)
    single = Rows({**variables, index: Local(name)})
    last = Apply("add", (Local(first), Literal(ROWS)))
    body: list[LoopStatement] = [
        Let(first, Apply("mul", (Local(tile), Literal(ROWS)))),
        If(
            Apply("le", (last, total)),
            tuple(block_loop(nest, tiled, NARROW, own_loop=True)),
            (
                For(
                    name,
                    Local(first),
                    total,
                    tuple(block_loop(nest, single, BLOCK, own_loop=True)),
                ),
            ),
        ),
    ]
    tiles = nest.builder.scalar(Apply("ceildiv", (nest.typing.extents[index], Literal(ROWS))))
    sliced = len(nest.order.outer) == 1 and nest.parallel_index() == index
    return [For(tile, Literal(0), tiles, tuple(body), "parallel" if sliced else "serial")]


@record
class Rows:
    """The rows that a block computes at once: one, or `count` from `first` along `index`."""

    variables: Variables
    index: str = ""
    first: Expression | None = None
    count: int = 1

    def at(self, row: Expression) -> Variables:
        """The outer variables of one row."""
        if self.first is None:
            return self.variables
        start = row == Literal(0)
        here = self.first if start else Apply("add", (self.first, row))
        return {**self.variables, self.index: here}


def block_loop(nest: Nest, rows: Rows, most: int, own_loop: bool = False) -> list[LoopStatement]:
    """Blocks of the inner result index, each with its accumulators on the stack.

    `most`: accumulators of a row. `own_loop`: there is a loop around this one, so that it is not
    the parallel one.
    """
    inner = nest.order.inner
    assert inner is not None
    extent = nest.typing.extents[inner]
    sliced = not own_loop and not nest.order.outer and nest.parallel_index() == inner
    width: Expression = Literal(most)
    if sliced and most > BLOCK:
        fair: Expression = Apply("ceildiv", (extent, Literal(ENOUGH_BLOCKS * BLOCK)))
        fair = apply("max", Apply("mul", (fair, Literal(BLOCK))), Literal(BLOCK))
        width = apply("min", fair, Literal(most))
    fold = nest.folds()[-1]
    (dtype,) = fold.dtypes
    hints = ("block", "start", "count", "row")
    block, start, count, row = (nest.builder.fresh(hint) for hint in hints)
    left = Apply("sub", (nest.extent(inner), Local(start)))

    def clear(at: Expression, lane: str) -> list[LoopStatement]:
        return [Store(row, (at, Local(lane)), fold.initial()[0])]

    def write(at: Expression, lane: str) -> list[LoopStatement]:
        here = {**rows.at(at), inner: Apply("add", (Local(start), Local(lane)))}
        stored: list[LoopStatement] = []
        values = nest.finished(here, (Load(row, (at, Local(lane))),), stored)
        nest.store(here, values, stored)
        return stored

    body: list[LoopStatement] = [
        Let(start, Apply("mul", (Local(block), nest.builder.scalar(width)))),
        Let(count, apply("min", left, nest.builder.scalar(width))),
        Allocate(row, dtype, (Literal(rows.count), Literal(most)), "stack"),
        each_cell(nest, rows, inner, count, clear),
        *accumulate(nest, row, start, count, fold, rows),
        each_cell(nest, rows, inner, count, write),
    ]
    blocks = nest.builder.scalar(Apply("ceildiv", (extent, width)))
    return [For(block, Literal(0), blocks, tuple(body), "parallel" if sliced else "serial")]


def each_cell(nest: Nest, rows: Rows, inner: str, count: str, make: MakeCell) -> LoopStatement:
    """A loop over the rows, if there are several, and over the lanes of each."""
    at = nest.builder.fresh("at") if rows.count > 1 else None
    lane = nest.builder.fresh(inner)
    lanes = row_loop(lane, count, make(Literal(0) if at is None else Local(at), lane))
    return lanes if at is None else For(at, Literal(0), Literal(rows.count), (lanes,))


def row_loop(lane: str, count: str, body: list[LoopStatement]) -> LoopStatement:
    simple = all(isinstance(s, Store) for s in body)
    return For(lane, Literal(0), Local(count), tuple(body), "vector" if simple else "serial")


def accumulate(
    nest: Nest, row: str, start: str, count: str, fold: Fold, rows: Rows
) -> list[LoopStatement]:
    """The loops of the reduction, with one step for every row inside.

    A single row folds several terms of the last loop before it stores its accumulators again;
    not the rows that tiles leave over, whose code would double for at most three of them.
    """
    inner = nest.order.inner
    assert inner is not None
    outside: Variables = {}
    names = []
    *others, last = nest.order.reduced
    for index in others:
        name, outside = nest.loop(index, outside)
        names.append((index, name))
    turns = nest.bounds(last)
    lower, upper = turns.lower, turns.upper

    def lanes(terms: Sequence[Expression]) -> LoopStatement:
        """The loop over the lanes: a step for each of some terms and each row."""
        lane = nest.builder.fresh(inner)
        position = Apply("add", (Local(start), Local(lane)))
        body: list[LoopStatement] = []
        for k in range(rows.count):
            cell = (Literal(k), Local(lane))
            stepped: Expression = Load(row, cell)
            for at in terms:
                here = {**rows.at(Literal(k)), **outside, last: at, inner: position}
                inside: list[LoopStatement] = []
                (stepped,) = fold.step((stepped,), nest.body(here, inside), inside)
                if len(terms) > 1:
                    body.extend(inside)
            if len(terms) > 1:
                body.append(Store(row, cell, stepped))
            else:
                inside.append(Store(row, cell, stepped))
                body.extend(nest.guarded(here, inside, []))
        return row_loop(lane, count, body)

    term = nest.builder.fresh(last)
    body: list[LoopStatement]
    if rows.count > 1 or nest.statement.condition is not None or is_tiled(nest):
        body = [For(term, lower, upper, (lanes([Local(term)]),))]
    else:
        several = [Local(term), *(Apply("add", (Local(term), Literal(k))) for k in range(1, TERMS))]
        body, whole = whole_turns(nest, lower, upper)
        body.append(For(term, lower, whole, (lanes(several),), "serial", TERMS))
        single = nest.builder.fresh(last)
        body.append(For(single, whole, upper, (lanes([Local(single)]),)))
    for index, name in reversed(names):
        turns = nest.bounds(index)
        body = [For(name, turns.lower, turns.upper, tuple(body))]
    return body


def whole_turns(
    nest: Nest, lower: Expression, upper: Expression
) -> tuple[list[LoopStatement], Expression]:
    """Where the last group of `TERMS` turns ends."""
    out: list[LoopStatement] = []
    left = Apply("mod", (Apply("sub", (upper, lower)), Literal(TERMS)))
    whole = nest.builder.bind(Apply("sub", (upper, left)), "whole", out)
    return out, whole
