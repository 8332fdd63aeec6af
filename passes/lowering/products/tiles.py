"""Register tiles: a small block of the result whose cells are all kept in vector registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local
from einloom.ir.loops import (
    Carried,
    For,
    If,
    Let,
    Load,
    LoopStatement,
    Prefetch,
    Splat,
    Store,
    Vector,
)
from einloom.ir.ops import MONOIDS, apply
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.products.blocking import Blocking
from einloom.passes.lowering.products.factors import Product
from einloom.passes.lowering.products.panels import Side, Terms, Variables, block, spread
from einloom.passes.lowering.values import lower_value

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Site = Callable[[int, int, list[LoopStatement]], tuple[str, tuple[Expression, ...]]]
"""Where the vector of some row and number goes: a buffer and indices into it."""


ASKED_ROWS = 128
"""Rows of a block that are asked for before its first tile; later ones are when they come."""


@dataclass
class RegisterTiles:
    """The tiles of `rows` and `columns`, over one block of terms.

    `right`: the packed columns. `left`: the packed rows, None where the factor is read in place.
    `sums`: the accumulators of the whole block of the result, None where the result itself
    holds them. `is_first`: whether no block of terms came before.
    """

    nest: Nest
    product: Product
    blocking: Blocking
    batch: Variables
    rows: Side
    columns: Side
    terms: Terms
    right: str
    left: str | None
    sums: str | None
    is_first: Expression

    @cached_property
    def fold(self) -> Fold:
        return self.nest.folds()[0]

    def loops(self) -> list[LoopStatement]:
        """All tiles: panels of columns outside, so that a panel stays in a near cache."""
        panel, column = self.nest.builder.fresh("panel"), self.nest.builder.fresh("column")
        width = Literal(self.blocking.columns)
        body: list[LoopStatement] = [Let(column, Apply("mul", (Local(panel), width)))]
        body.extend(self.across(Local(panel), Local(column)))
        panels = Apply("ceildiv", (self.columns.count, width))
        return [*self.asked_rows(), For(panel, Literal(0), panels, tuple(body))]

    def across(self, panel: Expression, column: Expression) -> list[LoopStatement]:
        """The tiles of a panel, of fewer vectors where those hold all of its columns."""
        left = Apply("sub", (self.columns.count, column))
        found = self.down(panel, column)
        for vectors in reversed(range(1, self.blocking.vectors)):
            narrow = replace(self, blocking=replace(self.blocking, vectors=vectors))
            fits = Apply("le", (left, Literal(vectors * self.blocking.lanes)))
            found = [If(fits, tuple(narrow.down(panel, column)), tuple(found))]
        return found

    def down(self, panel: Expression, column: Expression) -> list[LoopStatement]:
        """The tiles of one panel, whose first column is that one of the block."""
        fresh = self.nest.builder.fresh
        group, row = fresh("group"), fresh("row")
        height, width = Literal(self.blocking.rows), Literal(self.blocking.columns)
        body: list[LoopStatement] = [Let(row, Apply("mul", (Local(group), height)))]
        start: list[LoopStatement] = []
        initial = self.initial(panel, start)
        self.ask_for_cells(Local(row), column, body)
        sums = self.accumulate(panel, Local(group), Local(row), initial, body)
        if self.sums is not None:
            self.store_all(sums, self.in_block(self.sums, Local(row), column), body)
        else:
            whole = apply(
                "and",
                Apply("le", (apply("add", Local(row), height), self.rows.count)),
                Apply("le", (apply("add", column, width), self.columns.count)),
            )
            inside: list[LoopStatement] = []
            self.store_all(sums, self.in_result(Local(row), column), inside)
            edge: list[LoopStatement] = []
            self.store_edge(sums, Local(row), column, edge)
            body.append(If(whole, tuple(inside), tuple(edge)))
        groups = Apply("ceildiv", (self.rows.count, height))
        return [*start, For(group, Literal(0), groups, tuple(body))]

    # -- the fold

    def initial(self, panel: Expression, out: list[LoopStatement]) -> list[Expression]:
        """What the accumulators of a panel begin with, by vector."""
        (identity,) = self.fold.initial()
        return [Splat(identity, self.blocking.lanes)] * self.blocking.vectors

    def steps(self) -> Expression:
        """Turns of the loop over the terms."""
        return self.terms.count

    def accumulate(
        self,
        panel: Expression,
        group: Expression,
        row: Expression,
        initial: list[Expression],
        out: list[LoopStatement],
    ) -> list[list[Expression]]:
        """The loop over the terms; the accumulators by row and vector."""
        blocking, fresh, dtype = self.blocking, self.nest.builder.fresh, self.product.dtype
        start = [self.row_variables(row, r, out) for r in range(blocking.rows)]
        vector = Vector(dtype, blocking.lanes)
        carried = [[Carried(fresh("acc"), vector, value) for value in initial] for _ in start]
        term = fresh("term")
        body: list[LoopStatement] = []
        rights = [self.right_vector(panel, Local(term), v, body) for v in range(blocking.vectors)]
        yields: list[Expression] = []
        for r, variables in enumerate(start):
            left = self.left_value(group, Local(term), r, variables, body)
            for accumulator, right in zip(carried[r], rights, strict=True):
                yields.append(self.updated(Local(accumulator.name), left, right))
        flat = tuple(item for row_items in carried for item in row_items)
        out.append(
            For(term, Literal(0), self.steps(), tuple(body), "serial", 1, flat, tuple(yields))
        )
        return [[Local(item.name) for item in row_items] for row_items in carried]

    # -- what is asked for in advance

    def asked_rows(self) -> list[LoopStatement]:
        """Prefetches of the first rows that are read in place: one after the other, as memory
        likes it, while the tiles go from row to row with every term."""
        if self.left is not None:
            return []
        nest, fresh, lanes = self.nest, self.nest.builder.fresh, Literal(self.blocking.lanes)
        row, line = fresh("row"), fresh("line")
        inside: list[LoopStatement] = []
        position = apply("add", self.rows.first, Local(row))
        variables = spread(nest, self.rows.runs, position, inside)
        term = Apply("mul", (Local(line), lanes))
        here = {**self.batch, **variables, **self.terms.at(nest, term, inside)}
        place = nest.inner_place(here)
        (value,) = lower_value(nest.builder, self.product.left.value, place, inside)
        assert isinstance(value, Load)
        inside.append(Prefetch(value.buffer, value.indices))
        lines = Apply("ceildiv", (self.terms.count, lanes))
        along = For(line, Literal(0), lines, tuple(inside))
        return [For(row, Literal(0), apply("min", self.rows.count, Literal(ASKED_ROWS)), (along,))]

    def ask_for_cells(self, row: Expression, column: Expression, out: list[LoopStatement]) -> None:
        """Prefetches of the cells that a tile is added to, which it needs after its last term."""
        if self.sums is not None:
            return
        for r in range(self.blocking.rows):
            at = self.nest.builder.bind(self.rows.cell(shifted(row, r)), "at", out)
            for v in range(self.blocking.vectors):
                across = self.columns.cell(shifted(column, v * self.blocking.lanes))
                buffer, indices = self.cell(at, across, out)
                out.append(Prefetch(buffer, indices, "out"))

    # -- the fold, term by term

    def updated(self, sums: Expression, left: Expression, right: Expression) -> Expression:
        return self.folded(sums, self.product.combined(left, right))

    def folded(self, sums: Expression, value: Expression) -> Expression:
        return Apply(MONOIDS[self.fold.name].op, (sums, value))

    def right_vector(
        self, panel: Expression, term: Expression, vector: int, out: list[LoopStatement]
    ) -> Expression:
        lanes = self.blocking.lanes * self.blocking.terms
        value = Load(self.right, (panel, term, Literal(vector * lanes)), lanes)
        return self.nest.builder.bind(value, "right", out)

    def left_value(
        self,
        group: Expression,
        term: Expression,
        row: int,
        variables: Variables,
        out: list[LoopStatement],
    ) -> Expression:
        if self.left is not None:
            value: Expression = Load(self.left, (group, term, Literal(row)))
        else:
            here = {**self.batch, **variables, **self.terms.at(self.nest, term, out)}
            place = self.nest.inner_place(here)
            (value,) = lower_value(self.nest.builder, self.product.left.value, place, out)
        value = Splat(value, self.blocking.lanes)
        return self.nest.builder.bind(value, "left", out)

    def row_variables(self, row: Expression, offset: int, out: list[LoopStatement]) -> Variables:
        """The variables of one row of a tile; those beyond the end repeat the last row."""
        if self.left is not None:
            return {}
        position = self.rows.cell(shifted(row, offset))
        return spread(self.nest, self.rows.runs, self.nest.builder.bind(position, "at", out), out)

    # -- the result

    def store_all(self, sums: list[list[Expression]], site: Site, out: list[LoopStatement]) -> None:
        """Every vector of a tile: written by the first block of terms, folded in by the others."""
        first: list[LoopStatement] = []
        later: list[LoopStatement] = []
        for r, vectors in enumerate(sums):
            for v, value in enumerate(vectors):
                buffer, indices = site(r, v, out)
                before = Load(buffer, indices, self.blocking.lanes)
                first.append(Store(buffer, indices, value))
                later.append(Store(buffer, indices, self.folded(before, value)))
        out.append(If(self.is_first, tuple(first), tuple(later)))

    def in_block(self, name: str, row: Expression, column: Expression) -> Site:
        def site(r: int, v: int, _: list[LoopStatement]) -> tuple[str, tuple[Expression, ...]]:
            return name, (shifted(row, r), shifted(column, v * self.blocking.lanes))

        return site

    def in_result(self, row: Expression, column: Expression) -> Site:
        def site(r: int, v: int, out: list[LoopStatement]) -> tuple[str, tuple[Expression, ...]]:
            across = shifted(apply("add", self.columns.first, column), v * self.blocking.lanes)
            return self.cell(shifted(apply("add", self.rows.first, row), r), across, out)

        return site

    def cell(
        self, row: Expression, column: Expression, out: list[LoopStatement]
    ) -> tuple[str, tuple[Expression, ...]]:
        """The buffer and indices of a cell of the result at positions along both sides."""
        nest = self.nest
        variables = {
            **self.batch,
            **spread(nest, self.rows.runs, row, out),
            **spread(nest, self.columns.runs, column, out),
        }
        buffers, cells = nest.cells(nest.inner_place(variables), out)
        return buffers[0], cells[0]

    def store_edge(
        self,
        sums: list[list[Expression]],
        row: Expression,
        column: Expression,
        out: list[LoopStatement],
    ) -> None:
        """A tile that sticks out over the end: through a copy of it, cell by cell."""
        nest, blocking = self.nest, self.blocking
        copy = nest.builder.fresh("edge")
        out.append(block(copy, self.product.dtype, blocking.rows, blocking.columns))
        site = self.in_block(copy, Literal(0), Literal(0))
        for k, vectors in enumerate(sums):
            for v, value in enumerate(vectors):
                buffer, indices = site(k, v, out)
                out.append(Store(buffer, indices, value))

        def copied(is_first: bool) -> LoopStatement:
            r, c = nest.builder.fresh("row"), nest.builder.fresh("column")
            inside: list[LoopStatement] = []
            at_row = apply("add", self.rows.first, row, Local(r))
            at_column = apply("add", self.columns.first, column, Local(c))
            buffer, indices = self.cell(at_row, at_column, inside)
            value: Expression = Load(copy, (Local(r), Local(c)))
            if not is_first:
                value = self.folded(Load(buffer, indices), value)
            inside.append(Store(buffer, indices, Cast(self.product.dtype, value)))
            rows, columns = (
                apply("min", Apply("sub", (side.count, start)), Literal(size))
                for side, start, size in (
                    (self.rows, row, blocking.rows),
                    (self.columns, column, blocking.columns),
                )
            )
            across = For(c, Literal(0), columns, tuple(inside), "vector")
            return For(r, Literal(0), rows, (across,))

        out.append(If(self.is_first, (copied(True),), (copied(False),)))


def shifted(position: Expression, by: int) -> Expression:
    """A position some cells further on."""
    if isinstance(position, Literal):
        return Literal(int(position.value.real) + by)
    return apply("add", position, Literal(by)) if by else position
