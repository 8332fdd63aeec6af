"""The loops of a contraction: blocks of the result in parallel, each over blocks of terms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Cast, Expression, Literal, Local
from einloom.ir.loops import For, Let, Load, LoopStatement
from einloom.ir.ops import apply
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.products.blocking import Blocking
from einloom.passes.lowering.products.epilogues import epilogue_typing
from einloom.passes.lowering.products.factors import Factor, Product, Run
from einloom.passes.lowering.products.panels import (
    Side,
    Terms,
    Variables,
    asked,
    block,
    columns_in_place,
    is_in_order,
    is_unit,
    pack,
    read_in_place,
    run_extent,
    spread,
)
from einloom.passes.lowering.products.tiles import RegisterTiles
from einloom.passes.lowering.values import lower_value, substituted

if TYPE_CHECKING:
    from einloom.passes.lowering.products.dots import Dots


def product_loops(
    nest: Nest, product: Product, blocking: Blocking, stored: Collection[str] | None = None
) -> list[LoopStatement]:
    """One parallel loop over the blocks of the result.

    `stored`: which results of the product and its epilogues are written to memory; None: all.
    """
    if blocking.terms == 1:
        return _Blocks(nest, product, blocking, stored).loops()
    from einloom.passes.lowering.products.dots import dots_of

    dots = dots_of(nest, product, rounding=True)
    assert dots is not None and dots.terms == blocking.terms
    return _Blocks(nest, dots.product, blocking, stored, dots).loops()


LEAST_ROWS = 64
"""Rows of a block, at least, where there are as many."""
ENOUGH_BLOCKS = 8
"""Blocks of the result that a product should have, for threads to share."""
MOST_COPIED_ROWS = 256


@dataclass
class _Blocks:
    nest: Nest
    product: Product
    blocking: Blocking
    stored: Collection[str] | None = None
    dots: Dots | None = None

    def loops(self) -> list[LoopStatement]:
        nest, product, blocking = self.nest, self.product, self.blocking
        builder = nest.builder
        unit = builder.fresh("block")
        width = Literal(blocking.block_columns)
        height = builder.scalar(self.height())
        across = Apply("ceildiv", (self.size(product.columns), width))
        down = Apply("ceildiv", (self.size(product.rows), self.height()))
        total = builder.scalar(apply("mul", self.size(product.batch), down, across))
        body: list[LoopStatement] = []
        rest = builder.bind(Apply("floordiv", (Local(unit), builder.scalar(across))), "rest", body)
        column = Apply("mod", (Local(unit), builder.scalar(across)))
        row = Apply("mod", (rest, builder.scalar(down)))
        columns = self.side(product.columns, column, width, body)
        rows = self.side(product.rows, row, height, body)
        batch: Variables = {}
        if product.batch:
            position = builder.bind(Apply("floordiv", (rest, builder.scalar(down))), "batch", body)
            batch = spread(nest, product.batch, position, body)
        self.block(batch, rows, columns, body)
        return [For(unit, Literal(0), total, tuple(body), "parallel")]

    # -- extents

    def size(self, runs: tuple[Run, ...]) -> Expression:
        extents = [self.nest.typing.extents[name] for run in runs for name in run]
        return apply("mul", *extents) if extents else Literal(1)

    def height(self) -> Expression:
        """Rows of a block of the result: few enough for some blocks to share out, but so many
        that packing the columns for each is little beside the arithmetic. Blocks are even."""
        product, blocking = self.product, self.blocking
        rows, tile = self.size(product.rows), Literal(blocking.rows)
        across = Apply("ceildiv", (self.size(product.columns), Literal(blocking.block_columns)))
        others = apply("max", apply("mul", self.size(product.batch), across), Literal(1))
        wanted = Apply("ceildiv", (Literal(ENOUGH_BLOCKS), others))
        most = apply("max", Apply("floordiv", (rows, Literal(LEAST_ROWS))), Literal(1))
        least = apply("max", Apply("ceildiv", (rows, Literal(self.most_rows))), Literal(1))
        down = apply("max", apply("min", wanted, most), least)
        tiles = Apply("ceildiv", (Apply("ceildiv", (rows, down)), tile))
        return apply("mul", apply("max", tiles, Literal(1)), tile)

    @cached_property
    def packs_left(self) -> bool:
        terms = self.inner_terms
        several = len(terms) > 1 or self.dots is not None
        return several or not read_in_place(self.nest, self.product.left, terms[0][-1])

    @cached_property
    def inner_terms(self) -> tuple[Run, ...]:
        """The runs of terms that a block is cut from; loops outside go through the others.

        All runs are where both factors are packed cell by cell next to each other, since finding
        a term's place then costs little: a block is full however short the last run is.
        """
        factors = (self.product.left, self.product.right)
        if all(is_in_order(self.nest, f) for f in factors):
            return self.product.reduced
        return self.product.reduced[-1:]

    @property
    def outer_terms(self) -> tuple[Run, ...]:
        return self.product.reduced[: -len(self.inner_terms)]

    @cached_property
    def most_rows(self) -> int:
        """At most this many rows in a block, fewer where a buffer holds something for each."""
        copied = self.packs_left or not self.in_place
        return (
            min(self.blocking.block_rows, MOST_COPIED_ROWS) if copied else self.blocking.block_rows
        )

    def side(
        self, runs: tuple[Run, ...], number: Expression, width: Expression, out: list[LoopStatement]
    ) -> Side:
        """The part of a side's rank that a block covers."""
        builder = self.nest.builder
        total = run_extent(self.nest, *runs)
        first = builder.bind(Apply("mul", (number, width)), "first", out)
        left = Apply("sub", (total, first))
        count = builder.bind(apply("min", left, width), "count", out)
        last = builder.bind(Apply("sub", (total, Literal(1))), "last", out)
        return Side(runs, first, count, last)

    @property
    def reads_right(self) -> bool:
        """Whether tiles read whole panels of columns where they lie."""
        return self.blocking.thin and columns_in_place(self.nest, self.product.right)

    # -- one block of the result

    def block(self, batch: Variables, rows: Side, columns: Side, out: list[LoopStatement]) -> None:
        nest, product, blocking = self.nest, self.product, self.blocking
        fresh = nest.builder.fresh
        height, width, depth = blocking.rows, blocking.columns, blocking.depth
        down, across = self.most_rows // height, blocking.block_columns // width
        together = blocking.terms
        groups = depth // together
        right = fresh("right")
        across = 1 if self.reads_right else across
        out.append(block(right, product.right.dtype, across, groups, width * together))
        left = None
        if self.packs_left:
            left = fresh("left")
            out.append(block(left, product.left.dtype, down, groups, height * together))
        sums = None
        if not self.in_place:
            sums = fresh("sums")
            out.append(block(sums, product.dtype, self.most_rows, blocking.block_columns))

        # Even where there are no terms, one block of none writes the identity.
        steps = self.nest.builder.scalar(
            apply("max", Apply("ceildiv", (self.terms(), Literal(depth))), Literal(1))
        )
        total = self.nest.builder.scalar(self.terms())
        names = {name: fresh(name) for outer in self.outer_terms for name in (outer[-1],)}
        variables: Variables = {}
        for outer in self.outer_terms:
            variables.update(dict.fromkeys(outer[:-1], Literal(0)))
            variables[outer[-1]] = Local(names[outer[-1]])
        step, first = fresh("step"), fresh("first")
        body: list[LoopStatement] = [Let(first, Apply("mul", (Local(step), Literal(depth))))]
        count = nest.builder.bind(
            apply("min", Apply("sub", (total, Local(first))), Literal(depth)), "count", body
        )
        terms = Terms(self.inner_terms, Local(first), count, variables)
        is_first = apply(
            "and", *(Apply("eq", (Local(n), Literal(0))) for n in (*names.values(), step))
        )
        if not self.reads_right:
            body.extend(self.packed(product.right, columns, terms, batch, right, width))
        if left is not None:
            body.extend(self.packed(product.left, rows, terms, batch, left, height))
        tiles = (
            nest, product, blocking, batch, rows, columns, terms, right, left, sums, is_first
        )  # fmt: skip
        if self.reads_right:
            from einloom.passes.lowering.products.thin import ThinTiles

            body.extend(ThinTiles(*tiles).loops())
        elif self.dots is None:
            body.extend(RegisterTiles(*tiles).loops())
        else:
            from einloom.passes.lowering.products.dots import DotTiles

            body.extend(DotTiles(*tiles, self.dots.moved).loops())
        loop: LoopStatement = For(step, Literal(0), steps, tuple(body))
        for outer in reversed(self.outer_terms):
            upper = apply("max", self.size((outer,)), Literal(1))
            loop = For(names[outer[-1]], Literal(0), nest.builder.scalar(upper), (loop,))
        out.append(loop)
        if sums is not None:
            self.write(sums, batch, rows, columns, out)

    def packed(
        self, factor: Factor, side: Side, terms: Terms, batch: Variables, name: str, width: int
    ) -> list[LoopStatement]:
        """The panels of one factor, `width` cells each."""
        nest, dots = self.nest, self.dots
        if dots is None:
            packing = pack(nest, factor, side, terms, batch, name, width, self.blocking.lanes)
            far = bool(self.outer_terms)
            return [*(asked(nest, factor, side, terms, batch) if far else ()), packing]
        from einloom.passes.lowering.products.dots import GroupedPacking

        moved = dots.moved and factor is self.product.left
        panels = (nest, factor, moved, side, terms, batch, name, width, dots.terms)
        return GroupedPacking(*panels).loops()

    def terms(self) -> Expression:
        """Terms along the inner runs; none where another run is empty."""
        inner = self.size(self.inner_terms)
        if not self.outer_terms:
            return inner
        return apply("min", inner, self.size(self.product.reduced))

    @cached_property
    def in_place(self) -> bool:
        """Whether the result can hold the accumulators, whole vectors of them side by side."""
        nest, columns = self.nest, self.product.columns
        (target,) = nest.statement.targets
        written = Access(target.name, nest.statement.indices)
        same = nest.builder.context.components(target.name) == (self.product.dtype,)
        simple = same and len(columns) == 1 and not self.product.epilogues
        simple = simple and not self.blocking.streamed
        return simple and is_unit(nest, written, columns[0][-1])

    def write(
        self, sums: str, batch: Variables, rows: Side, columns: Side, out: list[LoopStatement]
    ) -> None:
        """The finished block, converted and put where it belongs."""
        nest = self.nest
        r, c = nest.builder.fresh("row"), nest.builder.fresh("column")
        inside: list[LoopStatement] = []
        here = spread(nest, columns.runs, apply("add", columns.first, Local(c)), inside)
        variables = {
            **batch,
            **spread(nest, rows.runs, apply("add", rows.first, Local(r)), inside),
            **here,
        }
        self.finish(variables, Load(sums, (Local(r), Local(c))), inside)
        loop = For(c, Literal(0), columns.count, tuple(inside), "vector")
        out.append(For(r, Literal(0), rows.count, (loop,)))

    def finish(self, variables: Variables, value: Expression, out: list[LoopStatement]) -> None:
        """One cell of the product and of its epilogues: computed, and stored where needed."""
        builder, context = self.nest.builder, self.nest.builder.context
        nests = [self.nest]
        for epilogue in self.product.epilogues:
            typing = epilogue_typing(epilogue, self.nest.typing, context)
            nests.append(Nest(builder, epilogue, typing, self.nest.place))
        values: dict[str, Expression] = {}
        for nest in nests:
            (target,) = nest.statement.targets
            if values:
                body = substituted(inline(nest.statement.body, context.functions), values)
                (value,) = lower_value(builder, body, nest.inner_place(variables), out)
            (dtype,) = context.components(target.name)
            if len(nests) > 1:
                value = builder.bind(Cast(dtype, value), target.name, out)
            values[target.name] = value
            if self.stored is None or target.name in self.stored:
                nest.store(variables, (value,), out)
