"""Reductions that keep a block of accumulators: the inner loop runs over a result index."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from einloom.ir.expressions import Apply, Expression, Literal, Local
from einloom.ir.loops import Allocate, For, Let, Load, LoopStatement, Store
from einloom.ir.ops import apply
from einloom.passes.lowering.folds import Fold

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]

BLOCK = 512  # accumulators: 4 KiB of f64, which stays in the first cache


def blocked(nest: Nest) -> list[LoopStatement]:
    return nest.over(list(nest.order.outer), {}, partial(block_loop, nest))


def block_loop(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """Blocks of the inner result index, each with its accumulators on the stack."""
    inner = nest.order.inner
    assert inner is not None
    fold = nest.folds()[-1]
    (dtype,) = fold.dtypes
    block = nest.builder.fresh("block")
    start = nest.builder.fresh("start")
    count = nest.builder.fresh("count")
    total = nest.extent(inner)
    row = nest.builder.fresh("row")
    left = Apply("sub", (total, Local(start)))
    body: list[LoopStatement] = [
        Let(start, Apply("mul", (Local(block), Literal(BLOCK)))),
        Let(count, apply("min", left, Literal(BLOCK))),
        Allocate(row, dtype, (Literal(BLOCK),), "stack"),
    ]
    lane = nest.builder.fresh(inner)
    body.append(row_loop(nest, lane, count, [Store(row, (Local(lane),), fold.initial()[0])]))
    body.extend(accumulate(nest, row, start, count, fold, variables))
    lane = nest.builder.fresh(inner)
    here = {**variables, inner: Apply("add", (Local(start), Local(lane)))}
    stored: list[LoopStatement] = []
    nest.store(here, (Load(row, (Local(lane),)),), stored)
    body.append(row_loop(nest, lane, count, stored))
    blocks = nest.builder.scalar(Apply("ceildiv", (nest.typing.extents[inner], Literal(BLOCK))))
    sliced = not nest.order.outer and nest.parallel_index() == inner
    return [For(block, Literal(0), blocks, tuple(body), "parallel" if sliced else "serial")]


def row_loop(nest: Nest, lane: str, count: str, body: list[LoopStatement]) -> LoopStatement:
    simple = all(isinstance(s, Store) for s in body)
    return For(lane, Literal(0), Local(count), tuple(body), "vector" if simple else "serial")


def accumulate(
    nest: Nest, row: str, start: str, count: str, fold: Fold, variables: Variables
) -> list[LoopStatement]:
    names = []
    for index in nest.order.reduced:
        name, variables = nest.loop(index, variables)
        names.append((index, name))
    assert nest.order.inner is not None
    lane = nest.builder.fresh(nest.order.inner)
    variables = {**variables, nest.order.inner: Apply("add", (Local(start), Local(lane)))}
    inside: list[LoopStatement] = []
    values = nest.body(variables, inside)
    (stepped,) = fold.step((Load(row, (Local(lane),)),), values, inside)
    inside.append(Store(row, (Local(lane),), stepped))
    body = [row_loop(nest, lane, count, nest.guarded(variables, inside, []))]
    for index, name in reversed(names):
        body = [For(name, Literal(0), nest.extent(index), tuple(body))]
    return body
