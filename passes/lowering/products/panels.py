"""Packing: a block of one factor copied into panels that the register tiles read in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Local
from einloom.ir.loops import Allocate, For, If, Let, Load, LoopStatement, Prefetch, Store
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import Scalar
from einloom.passes.lowering.copies import MOST_LANES, Copy, copy_of, transposed
from einloom.passes.lowering.order import moves_by_one
from einloom.passes.lowering.products.factors import Factor, Run
from einloom.passes.lowering.values import lower_value

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]

Position = Callable[[Expression], Expression]
"""The position of a cell of a side, from its offset in the tile."""

LINE_BYTES = 64
MOST_STACK = 16 << 10
"""Bytes of a block that is kept on the stack of a thread, which may be as small as 128 KiB."""


@record
class Side:
    """The part of one side's rank that a tile covers.

    `first`: its first cell. `count`: how many cells of the tile exist. `last`: the rank's last
    cell, which stands in for those that do not.
    """

    runs: tuple[Run, ...]
    first: Expression
    count: Expression
    last: Expression

    def cell(self, offset: Expression) -> Expression:
        """The position of a cell that may lie beyond the end."""
        return apply("min", apply("add", self.first, offset), self.last)


@record
class Terms:
    """The terms of the fold that a block covers: `count` from `first` on, along `runs`; `outer`
    are the variables of the runs that loops outside go through."""

    runs: tuple[Run, ...]
    first: Expression
    count: Expression
    outer: Variables

    def at(self, nest: Nest, offset: Expression, out: list[LoopStatement]) -> Variables:
        position = apply("add", self.first, offset)
        return {**self.outer, **spread(nest, self.runs, position, out)}


def spread(
    nest: Nest, runs: tuple[Run, ...], position: Expression, out: list[LoopStatement]
) -> Variables:
    """The variables of the indices of runs at a position in all their cells.

    Within a run only the last index moves, which is as good since its cells lie side by side.
    """
    variables: Variables = {}
    for run in reversed(runs[1:]):
        size = run_extent(nest, run)
        inner = nest.builder.bind(Apply("mod", (position, size)), run[-1], out)
        position = nest.builder.bind(Apply("floordiv", (position, size)), "rest", out)
        variables.update(_run_variables(run, inner))
    if runs:
        position = nest.builder.bind(position, runs[0][-1], out) if len(runs) > 1 else position
        variables.update(_run_variables(runs[0], position))
    return variables


def _run_variables(run: Run, position: Expression) -> Variables:
    return {**dict.fromkeys(run[:-1], Literal(0)), run[-1]: position}


def run_extent(nest: Nest, *runs: Run) -> Expression:
    """The number of cells of runs together, as a literal or a scalar of the function."""
    extents = [nest.typing.extents[name] for run in runs for name in run]
    return nest.builder.scalar(apply("mul", *extents) if extents else Literal(1))


def block(name: str, dtype: Scalar, *extents: int) -> Allocate:
    """A buffer of constant extents, on the stack where it is small enough."""
    total = numpy_dtype(dtype).itemsize
    for extent in extents:
        total *= extent
    storage = "stack" if total <= MOST_STACK else "workspace"
    return Allocate(name, dtype, tuple(Literal(extent) for extent in extents), storage)


def pack(
    nest: Nest,
    factor: Factor,
    side: Side,
    terms: Terms,
    batch: Variables,
    name: str,
    width: int,
    lanes: int,
) -> LoopStatement:
    """Panels `name[panel, term, cell]` of `width` cells; a last panel repeats the last cell, or
    leaves what does not exist as it was where cells lie side by side.

    `lanes`: of the vectors that a factor goes through whose terms lie side by side.
    """
    panel, start = nest.builder.fresh("panel"), nest.builder.fresh("start")

    def copied(position: Position, cells_inside: bool, cells: Expression) -> LoopStatement:
        """Loops over the cells of a panel and over the terms, which copy one element."""
        cell, term = nest.builder.fresh("cell"), nest.builder.fresh("term")
        out: list[LoopStatement] = []
        at = position(apply("add", Local(start), Local(cell)))
        here = spread(nest, side.runs, at, out)
        variables = {**batch, **here, **terms.at(nest, Local(term), out)}
        (value,) = lower_value(nest.builder, factor.value, nest.inner_place(variables), out)
        out.append(Store(name, (Local(panel), Local(term), Local(cell)), Cast(factor.dtype, value)))
        loops = [(cell, cells), (term, terms.count)]
        (inner, count), (outer, total) = loops if cells_inside else loops[::-1]
        # One by one: gathers of a vector take longer.
        kind = "vector" if in_order or not cells_inside else "unroll"
        return For(outer, Literal(0), total, (For(inner, Literal(0), count, tuple(out), kind),))

    body: list[LoopStatement] = [Let(start, Apply("mul", (Local(panel), Literal(width))))]
    in_order = is_in_order(nest, factor)
    if in_order or goes_along_cells(factor):
        whole = Apply("le", (apply("add", Local(start), Literal(width)), side.count))
        rest = Apply("sub", (side.count, Local(start)))
        full = copied(lambda offset: apply("add", side.first, offset), True, Literal(width))
        if in_order:
            partial = copied(lambda offset: apply("add", side.first, offset), True, rest)
        else:
            partial = copied(side.cell, True, Literal(width))
        body.append(If(whole, (full,), (partial,)))
    else:
        one_by_one = copied(side.cell, False, Literal(width))
        copy = copy_of(factor.value, nest.builder.context)
        square = min(lanes & -lanes, width & -width, MOST_LANES)
        side_by_side = len(terms.runs) == 1 and is_unit(nest, factor.value, terms.runs[0][-1])
        if copy is None or square < 2 or not side_by_side:
            body.append(one_by_one)
        else:
            squares = _Squares(nest, factor, copy, side, terms, batch, name, square)
            enough = Apply("ge", (terms.count, Literal(square)))
            packed = squares.loops(Local(panel), Local(start), width)
            body.append(If(enough, tuple(packed), (one_by_one,)))
    panels = Apply("ceildiv", (side.count, Literal(width)))
    return For(panel, Literal(0), panels, tuple(body))


def asked(
    nest: Nest, factor: Factor, side: Side, terms: Terms, batch: Variables
) -> list[LoopStatement]:
    """Prefetches of what `pack` will read, term by term: panels of columns go through all terms
    for a few cells each, which memory serves one line at a time."""
    term, part = nest.builder.fresh("term"), nest.builder.fresh("part")
    step = LINE_BYTES // numpy_dtype(factor.dtype).itemsize
    if not is_in_order(nest, factor):
        step //= 2
    out: list[LoopStatement] = []
    position = side.cell(Apply("mul", (Local(part), Literal(step))))
    here = {**batch, **terms.at(nest, Local(term), out)}
    inside: list[LoopStatement] = []
    here.update(spread(nest, side.runs, position, inside))
    (value,) = lower_value(nest.builder, factor.value, nest.inner_place(here), inside)
    if not isinstance(value, Load):
        return []
    inside.append(Prefetch(value.buffer, value.indices))
    parts = Apply("ceildiv", (side.count, Literal(step)))
    out.append(For(part, Literal(0), parts, tuple(inside)))
    return [For(term, Literal(0), terms.count, tuple(out))]


@dataclass
class _Squares:
    """Packing of a factor whose terms lie side by side: squares of vectors, transposed.

    A last square of terms that sticks out is moved back: it packs some terms a second time.
    """

    nest: Nest
    factor: Factor
    copy: Copy
    side: Side
    terms: Terms
    batch: Variables
    name: str
    lanes: int

    def loops(self, panel: Expression, start: Expression, width: int) -> list[LoopStatement]:
        nest, lanes = self.nest, Literal(self.lanes)
        fresh = nest.builder.fresh
        group, step, term = fresh("group"), fresh("step"), fresh("term")
        out: list[LoopStatement] = []
        cell = nest.builder.bind(Apply("mul", (Local(group), lanes)), "cell", out)
        rows: list[Variables] = []
        for k in range(self.lanes):
            position = self.side.cell(apply("add", start, cell, Literal(k)))
            position = nest.builder.bind(position, "at", out)
            rows.append({**self.batch, **spread(nest, self.side.runs, position, out)})
        moved = Apply("sub", (self.terms.count, lanes))
        first = apply("min", Apply("mul", (Local(step), lanes)), moved)
        inside: list[LoopStatement] = [Let(term, first)]
        here = self.terms.at(nest, Local(term), inside)
        columns = transposed(
            nest.builder, self.copy, [{**row, **here} for row in rows], self.factor.dtype, inside
        )
        for k, value in enumerate(columns):
            at = apply("add", Local(term), Literal(k))
            inside.append(Store(self.name, (panel, at, cell), value))
        steps = Apply("ceildiv", (self.terms.count, lanes))
        out.append(For(step, Literal(0), steps, tuple(inside)))
        return [For(group, Literal(0), Literal(width // self.lanes), tuple(out))]


def is_in_order(nest: Nest, factor: Factor) -> bool:
    """Whether the cells of a factor lie side by side."""
    return len(factor.runs) == 1 and is_unit(nest, factor.value, factor.runs[0][-1])


def goes_along_cells(factor: Factor) -> bool:
    """Whether the cells of a factor are what its tensors' last ranks go through: they lie nearer
    to one another than terms do, whatever the strides."""
    reads = [part for part in postorder(factor.value) if isinstance(part, Access)]
    return len(factor.runs) == 1 and all(
        bool(read.indices) and read.indices[-1] == Index(factor.runs[0][-1]) for read in reads
    )


def columns_in_place(nest: Nest, factor: Factor) -> bool:
    """Whether vectors of columns can be read where they lie."""
    return is_in_order(nest, factor) and read_in_place(nest, factor, factor.runs[0][-1])


def is_unit(nest: Nest, value: Expression, index: str) -> bool:
    """Whether everything that a value reads with an index moves by one element with it."""
    reads = [part for part in postorder(value) if isinstance(part, Access)]
    moving = [read for read in reads if index in ext.indices_in(read)]
    return all(
        not read.view and moves_by_one(read.tensor, read.indices, index, nest.builder.context)
        for read in moving
    )


def read_in_place(nest: Nest, factor: Factor, index: str) -> bool:
    """Whether a factor need not be packed: plain reads of its dtype, dense along an index."""
    value, context = factor.value, nest.builder.context
    return (
        isinstance(value, Access)
        and not value.view
        and value.padding is None
        and all(isinstance(e, Index) for e in value.indices)
        and context.components(value.tensor) == (factor.dtype,)
        and is_unit(nest, value, index)
    )
