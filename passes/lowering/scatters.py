"""Writes that do not cover the result one by one: fill first, then scatter.

A fold whose indices stand on the left side runs in cells. Where the result has the dtype that
it folds in, they are the result's own; otherwise they are kept beside it and rounded at the
end. Folds outside the innermost such one combine whole arrays of cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.expressions import Expression, Index, Literal, Local
from einloom.ir.loops import Allocate, If, Load, LoopStatement, Store
from einloom.ir.record import record
from einloom.ir.types import DType, bool_
from einloom.passes.lowering.order import plain_indices
from einloom.passes.lowering.regions import (
    fill,
    guarded_region,
    is_fixed,
    needs_fill,
    over_region,
    store_cell,
    target_limits,
    wrapped,
)
from einloom.passes.lowering.values import Values

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]


def scatter(nest: Nest) -> list[LoopStatement]:
    """Every iteration writes, or combines into, the cell that its left side names."""
    reduced = {name for r in nest.statement.reductions for name in r.indices}
    mapped = [n for n in nest.typing.own_indices() if n not in reduced]
    filled = fill(nest) if needs_fill(nest) else []
    level = cell_level(nest)
    if level < 0:
        return filled + nest.over(mapped, {}, partial(scattered_point, nest))
    if level == 0 and in_place(nest):
        return filled + nest.over(
            [*mapped, *nest.reduction_order()[0]], {}, partial(fold_in_place, nest)
        )
    return _Folding(nest, level, mapped).build()


def cell_level(nest: Nest) -> int:
    """The innermost reduction with an index on the left side; -1 where no reduction has one."""
    named = {name for e in nest.statement.indices for name in ext.indices_in(e)}
    levels = enumerate(nest.reduction_order() if nest.statement.reductions else [])
    return max((k for k, indices in levels if named & set(indices)), default=-1)


def in_place(nest: Nest) -> bool:
    """Whether the result's cells can hold what the outermost fold carries."""
    return nest.folds()[0].dtypes == nest.component_dtypes()


def scattered_point(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """A write of one cell, after all folds, where the condition reached it."""
    inside: list[LoopStatement] = []
    indices = nest.reduction_order() if nest.statement.reductions else []
    values = nest.reduce(nest.folds(), indices, variables, inside)
    nest.store(variables, values, inside)
    return nest.where_reached(indices, variables, inside)


def fold_in_place(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """The outermost fold runs in the result's cells, the others inside."""
    fold, *folds = nest.folds()
    indices = nest.reduction_order()[1:]
    inside: list[LoopStatement] = []
    values = nest.reduce(folds, indices, variables, inside)
    buffers, cells = nest.cells(nest.inner_place(variables), inside)
    current = tuple(Load(b, c) for b, c in zip(buffers, cells, strict=True))
    stepped = fold.step(current, values, inside)
    named = [nest.builder.bind(value, "new", inside) for value in stepped]
    for buffer, cell, value in zip(buffers, cells, named, strict=True):
        inside.append(Store(buffer, cell, value))
    return nest.where_reached(indices, variables, inside)


@record
class _Cells:
    """What one fold carries, per cell of the region; `touched`: whether anything was folded."""

    buffers: tuple[str, ...]
    dtypes: tuple[DType, ...]
    touched: str | None

    def current(self, cell: tuple[Expression, ...]) -> Values:
        return tuple(Load(buffer, cell) for buffer in self.buffers)


class _Folding:
    """Folds that run in cells beside the result.

    With several folds in cells, the result's plain mapped indices run outermost, and the arrays
    of cells hold what one iteration of them defines.
    """

    def __init__(self, nest: Nest, level: int, mapped: list[str]) -> None:
        self.nest, self.level = nest, level
        self.folds, self.indices = nest.folds(), nest.reduction_order()
        self.outer = [n for n in mapped if n in self.unshared()] if level else []
        self.inner = [n for n in mapped if n not in self.outer]
        self.positions = [
            k
            for k, e in enumerate(nest.statement.indices)
            if not is_fixed(nest, k) and not (isinstance(e, Index) and e.name in self.outer)
        ]
        self.cells: list[_Cells] = []

    def unshared(self) -> list[str]:
        """Plain indices of the left side that stand nowhere else in it."""
        nest = self.nest
        names = [n for e in nest.statement.indices for n in ext.indices_in(e)]
        return [n for n in plain_indices(nest.statement, nest.typing) if names.count(n) == 1]

    def build(self) -> list[LoopStatement]:
        allocations = [s for k in range(self.level + 1) for s in self.allocate(k)]
        return [*allocations, *self.nest.over(self.outer, {}, self.region)]

    def allocate(self, level: int) -> list[LoopStatement]:
        builder, fold = self.nest.builder, self.folds[level]
        limits = target_limits(self.nest)
        extents = tuple(builder.scalar(limits[k]) for k in self.positions)
        buffers = tuple(builder.fresh("cells") for _ in fold.dtypes)
        touched = builder.fresh("touched") if level else None
        self.cells.append(_Cells(buffers, tuple(fold.dtypes), touched))
        names = [*zip(buffers, fold.dtypes, strict=True)]
        if touched is not None:
            names.append((touched, bool_))
        return [Allocate(name, dtype, extents, "workspace") for name, dtype in names]

    def region(self, variables: Variables) -> list[LoopStatement]:
        """All that one iteration of the outer indices defines."""
        out = [*self.reset(0), *self.loops(0, variables)]
        statement = self.nest.statement
        known = {
            k: variables[e.name]
            for k, e in enumerate(statement.indices)
            if isinstance(e, Index) and e.name in self.outer
        }
        indices, loops, before = over_region(self.nest, variables, known)
        cell = tuple(indices[k] for k in self.positions)
        values = self.folds[0].results(self.cells[0].current(cell))
        stores = wrapped(loops, store_cell(self.nest, indices, values))
        return [*out, *guarded_region(self.nest, variables, before, stores)]

    def every_cell(self) -> tuple[tuple[Expression, ...], list[tuple[str, Expression]]]:
        builder, limits = self.nest.builder, target_limits(self.nest)
        loops = [(builder.fresh("cell"), builder.scalar(limits[k])) for k in self.positions]
        return tuple(Local(name) for name, _ in loops), loops

    def reset(self, level: int) -> list[LoopStatement]:
        cell, loops = self.every_cell()
        cells = self.cells[level]
        initial = self.folds[level].initial()
        body: list[LoopStatement] = [
            Store(buffer, cell, value) for buffer, value in zip(cells.buffers, initial, strict=True)
        ]
        if cells.touched is not None:
            body.append(Store(cells.touched, cell, Literal(False)))
        return wrapped(loops, body)

    def loops(self, level: int, variables: Variables) -> list[LoopStatement]:
        """The loops of one level around those of the next, or around the points."""
        around = [*self.inner, *self.indices[0]] if level == 0 else list(self.indices[level])

        def make(variables: Variables) -> list[LoopStatement]:
            if level == self.level:
                return self.point(variables)
            inner = level + 1
            return [*self.reset(inner), *self.loops(inner, variables), *self.absorb(level)]

        return self.nest.over(around, variables, make)

    def point(self, variables: Variables) -> list[LoopStatement]:
        """The folds inside the cells' one, and a step of it."""
        nest, inner = self.nest, self.indices[self.level + 1 :]
        inside: list[LoopStatement] = []
        values = nest.reduce(self.folds[self.level + 1 :], inner, variables, inside)
        indices = nest.checked_indices(nest.inner_place(variables), inside)
        self.step(self.level, tuple(indices[k] for k in self.positions), values, inside)
        return nest.where_reached(inner, variables, inside)

    def absorb(self, level: int) -> list[LoopStatement]:
        """Fold the finished cells of the next level into this one's."""
        cell, loops = self.every_cell()
        finished = self.cells[level + 1]
        assert finished.touched is not None
        inside: list[LoopStatement] = []
        values = self.folds[level + 1].results(finished.current(cell))
        self.step(level, cell, values, inside)
        return wrapped(loops, [If(Load(finished.touched, cell), tuple(inside))])

    def step(
        self, level: int, cell: tuple[Expression, ...], values: Values, out: list[LoopStatement]
    ) -> None:
        cells, fold, builder = self.cells[level], self.folds[level], self.nest.builder
        stepped = fold.step(cells.current(cell), values, out)
        named = [builder.bind(value, "new", out) for value in stepped]
        for buffer, value in zip(cells.buffers, named, strict=True):
            out.append(Store(buffer, cell, value))
        if cells.touched is not None:
            out.append(Store(cells.touched, cell, Literal(True)))
