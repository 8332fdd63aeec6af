"""Products of narrow dtypes by dot instructions: which ones, and how their factors are packed.

A dot instruction multiplies a few neighbouring terms at once and adds them to 32-bit sums. So
the panels keep as many terms of a cell side by side: `[panel, group of terms, cell, term]`. The
last group of a block is filled up with zeros. A third kind of instruction, which multiplies whole
tiles (AMX), would take the same panels; it has no node yet.

The instruction for bytes wants one factor unsigned and the other signed. Where the program has
both of one kind, the left one is moved by 128 as it is packed, which is to flip its first bit,
and the sums begin with what that adds, negated: exact, since they wrap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local
from einloom.ir.loops import (
    Carried,
    Dot,
    For,
    If,
    Let,
    Load,
    LoopStatement,
    Splat,
    Store,
    Transpose,
    Vector,
)
from einloom.ir.ops import apply
from einloom.ir.record import record
from einloom.ir.types import FLOAT, SIGNED, DType, Scalar, bf16, f32, i8, i32, u8
from einloom.ir.typing import Lookup, typing_of
from einloom.passes.lowering.copies import MOST_LANES, Copy, cell_of, copy_of
from einloom.passes.lowering.products.factors import Factor, Product
from einloom.passes.lowering.products.panels import (
    Side,
    Terms,
    Variables,
    is_unit,
    spread,
)
from einloom.passes.lowering.products.tiles import RegisterTiles
from einloom.passes.lowering.values import lower_value

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

BYTES, BFLOATS = 4, 2
"""Terms of one dot product of bytes, and of bf16 numbers."""


@record
class Dots:
    """A product whose factors have the dtypes in which they are packed, `terms` side by side.

    `product` has the dtype of the 32-bit sums. `moved`: the left factor is packed as its values
    and 128, in the other dtype of bytes.
    """

    product: Product
    terms: int
    moved: bool = False


def dots_of(nest: Nest, product: Product, rounding: bool = False) -> Dots | None:
    """How dot instructions compute a product; None where they do not.

    With `rounding` factors of f32 are rounded to bf16.
    """
    (fold,) = nest.folds()[:1]
    if product.op != "mul" or fold.name != "sum" or not fold.is_simple:
        return None
    context = nest.builder.context
    lookup = Lookup(context.inference.tensors, set(), context.functions, context.monoids)
    left, right = (_narrow(factor.value, lookup) for factor in (product.left, product.right))
    if product.dtype == f32:
        wanted = (f32, bf16) if rounding else (bf16,)
        if left.dtype not in wanted or right.dtype not in wanted:
            return None
        factors = [
            replace(factor, value=side.value, dtype=bf16)
            for factor, side in ((product.left, left), (product.right, right))
        ]
        return Dots(replace(product, left=factors[0], right=factors[1]), BFLOATS)
    body = typing_of(product.combined(product.left.value, product.right.value), lookup)
    whole = product.dtype.is_integer and product.dtype.bits <= 32 and body.dtype == product.dtype
    if not whole or left.dtype not in (i8, u8) or right.dtype not in (i8, u8):
        return None
    assert isinstance(right.dtype, Scalar)
    moved = left.dtype == right.dtype
    other = u8 if right.dtype == i8 else i8
    made = replace(
        product,
        left=replace(product.left, value=left.value, dtype=other),
        right=replace(product.right, value=right.value, dtype=right.dtype),
        dtype=i32,
    )
    return Dots(made, BYTES, moved)


@record
class _Narrow:
    value: Expression
    dtype: DType


def _narrow(value: Expression, lookup: Lookup) -> _Narrow:
    """What a value is converted from by conversions that keep every number as it is."""
    dtype = typing_of(value, lookup).dtype
    while isinstance(value, Cast):
        inner = typing_of(value.value, lookup).dtype
        if not _holds(dtype, inner):
            break
        value, dtype = value.value, inner
    return _Narrow(value, dtype)


def _holds(dtype: DType, inner: DType) -> bool:
    """Whether a dtype has all the numbers of another one that dot instructions take."""
    if dtype == inner:
        return True
    if not isinstance(dtype, Scalar) or not isinstance(inner, Scalar):
        return False
    if inner == bf16:
        return dtype == f32
    if not (dtype.is_integer and inner.is_integer) or dtype.bits <= inner.bits:
        return False
    return dtype.kind == SIGNED or dtype.kind == inner.kind


# ---- packing ------------------------------------------------------------------------------


@dataclass
class GroupedPacking:
    """Panels `name[panel, group, terms*cell + term]` of `width` cells.

    Terms beyond the end are zero. Cells beyond the end are anything: nothing that is kept is made
    of them.
    """

    nest: Nest
    factor: Factor
    moved: bool
    side: Side
    terms: Terms
    batch: Variables
    name: str
    width: int
    together: int

    def loops(self) -> list[LoopStatement]:
        fresh = self.nest.builder.fresh
        panel, start = fresh("panel"), fresh("start")
        out: list[LoopStatement] = []
        whole = self.nest.builder.bind(
            Apply("floordiv", (self.terms.count, Literal(self.together))), "whole", out
        )
        body: list[LoopStatement] = [Let(start, Apply("mul", (Local(panel), Literal(self.width))))]
        copy = copy_of(self.factor.value, self.nest.builder.context)
        runs = self.terms.runs
        in_order = len(runs) == 1 and is_unit(self.nest, self.factor.value, runs[0][-1])
        if copy is not None and in_order:
            body.append(self.side_by_side(copy, Local(panel), Local(start), whole))
        else:
            end = apply("add", Local(start), Literal(self.width))
            left = Apply("sub", (self.side.count, Local(start)))
            inside = self.cell_by_cell(Local(panel), Local(start), whole, Literal(self.width))
            edge = self.cell_by_cell(Local(panel), Local(start), whole, left)
            body.append(If(Apply("le", (end, self.side.count)), (inside,), (edge,)))
        body.append(self.rest(Local(panel), Local(start), whole))
        panels = Apply("ceildiv", (self.side.count, Literal(self.width)))
        return [*out, For(panel, Literal(0), panels, tuple(body))]

    def side_by_side(
        self, copy: Copy, panel: Expression, start: Expression, whole: Expression
    ) -> LoopStatement:
        """The terms lie side by side: squares of groups, transposed, where there are so many."""
        square = min(self.width & -self.width, MOST_LANES)
        squares = self.squares(copy, panel, start, whole, square)
        enough = Apply("ge", (whole, Literal(square)))
        return If(enough, squares, (self.one_by_one(copy, panel, start, whole),))

    def squares(
        self, copy: Copy, panel: Expression, start: Expression, whole: Expression, square: int
    ) -> tuple[LoopStatement, ...]:
        """A last square that sticks out is moved back: it packs some groups a second time."""
        nest, together, fresh = self.nest, self.together, self.nest.builder.fresh
        band, step, group = fresh("band"), fresh("step"), fresh("group")
        out: list[LoopStatement] = []
        cell = nest.builder.bind(Apply("mul", (Local(band), Literal(square))), "cell", out)
        rows = [
            {**self.batch, **self.cell(start, apply("add", cell, Literal(k)), True, out)}
            for k in range(square)
        ]
        moved = Apply("sub", (whole, Literal(square)))
        first = apply("min", Apply("mul", (Local(step), Literal(square))), moved)
        inside: list[LoopStatement] = [Let(group, first)]
        term = Apply("mul", (Local(group), Literal(together)))
        here = self.terms.at(nest, term, inside)
        names = tuple(fresh("lane") for _ in rows)
        lanes = square * together
        values = tuple(self.short(copy, {**row, **here}, lanes) for row in rows)
        inside.append(Transpose(names, values))
        at = Apply("mul", (cell, Literal(together)))
        for k, name in enumerate(names):
            place = (panel, apply("add", Local(group), Literal(k)), at)
            inside.append(Store(self.name, place, Local(name)))
        steps = Apply("ceildiv", (whole, Literal(square)))
        out.append(For(step, Literal(0), steps, tuple(inside)))
        return (For(band, Literal(0), Literal(self.width // square), tuple(out)),)

    def one_by_one(
        self, copy: Copy, panel: Expression, start: Expression, whole: Expression
    ) -> LoopStatement:
        """Every group is one short vector."""
        cell, group = self.nest.builder.fresh("cell"), self.nest.builder.fresh("group")
        out: list[LoopStatement] = []
        row = {**self.batch, **self.cell(start, Local(cell), True, out)}
        term = Apply("mul", (Local(group), Literal(self.together)))
        here = {**row, **self.terms.at(self.nest, term, out)}
        value = self.short(copy, here, self.together)
        store = Store(self.name, self.at(panel, Local(group), cell), value)
        inner = For(group, Literal(0), whole, (store,))
        return For(cell, Literal(0), Literal(self.width), (*out, inner))

    def short(self, copy: Copy, variables: Variables, lanes: int) -> Expression:
        """Neighbouring terms of one cell, as they are stored."""
        buffer = self.nest.builder.buffer(copy.access.tensor)
        value: Expression = Load(buffer, cell_of(copy.access.indices, variables), lanes)
        for cast in copy.casts:
            value = Cast(Vector(cast, lanes), value)
        return self.stored(value, lanes)

    def cell_by_cell(
        self, panel: Expression, start: Expression, whole: Expression, cells: Expression
    ) -> LoopStatement:
        """One element at a time, all terms of a group: LLVM interleaves the vectors of cells."""
        nest, together = self.nest, self.together
        group, cell = nest.builder.fresh("group"), nest.builder.fresh("cell")
        out: list[LoopStatement] = []
        row = {**self.batch, **self.cell(start, Local(cell), False, out)}
        for k in range(together):
            term = apply("add", Apply("mul", (Local(group), Literal(together))), Literal(k))
            value = self.value({**row, **self.terms.at(nest, term, out)}, out)
            out.append(Store(self.name, self.at(panel, Local(group), cell, Literal(k)), value))
        inner = For(cell, Literal(0), cells, tuple(out), "vector")
        return For(group, Literal(0), whole, (inner,))

    def rest(self, panel: Expression, start: Expression, whole: Expression) -> LoopStatement:
        """The last group, which the terms do not fill."""
        nest, together = self.nest, self.together
        fresh = nest.builder.fresh
        first, cell, every, term = fresh("first"), fresh("cell"), fresh("every"), fresh("term")
        zero = Cast(self.factor.dtype, Literal(0))
        cleared = Store(self.name, (panel, whole, Local(every)), zero)
        clear = For(every, Literal(0), Literal(self.width * together), (cleared,), "vector")
        out: list[LoopStatement] = []
        row = {**self.batch, **self.cell(start, Local(cell), True, out)}
        value = self.value({**row, **self.terms.at(nest, Local(term), out)}, out)
        k = Apply("sub", (Local(term), Local(first)))
        out.append(Store(self.name, self.at(panel, whole, cell, k), value))
        cells = For(cell, Literal(0), Literal(self.width), tuple(out))
        copied = For(term, Local(first), self.terms.count, (cells,))
        start_of_rest = Let(first, Apply("mul", (whole, Literal(together))))
        remains = Apply("gt", (Apply("mod", (self.terms.count, Literal(together))), Literal(0)))
        return If(remains, (start_of_rest, clear, copied))

    def cell(
        self, start: Expression, cell: Expression, clamped: bool, out: list[LoopStatement]
    ) -> Variables:
        offset = apply("add", start, cell)
        at = self.side.cell(offset) if clamped else apply("add", self.side.first, offset)
        position = self.nest.builder.bind(at, "at", out)
        return spread(self.nest, self.side.runs, position, out)

    def at(
        self, panel: Expression, group: Expression, cell: str, term: Expression | None = None
    ) -> tuple[Expression, ...]:
        position: Expression = Apply("mul", (Local(cell), Literal(self.together)))
        return panel, group, position if term is None else apply("add", position, term)

    def value(self, variables: Variables, out: list[LoopStatement]) -> Expression:
        place = self.nest.inner_place(variables)
        (value,) = lower_value(self.nest.builder, self.factor.value, place, out)
        return self.stored(value, 1)

    def stored(self, value: Expression, lanes: int) -> Expression:
        def cast(dtype: Scalar, value: Expression) -> Expression:
            return Cast(dtype if lanes == 1 else Vector(dtype, lanes), value)

        if self.moved:
            value = Apply("bitxor", (cast(u8, value), Literal(128)))
        return cast(self.factor.dtype, value)


# ---- register tiles -----------------------------------------------------------------------


@dataclass
class DotTiles(RegisterTiles):
    """Register tiles whose sums take a group of terms at a time."""

    moved: bool = False

    def initial(self, panel: Expression, out: list[LoopStatement]) -> list[Expression]:
        """What a moved left factor adds too much to every sum of a panel, negated."""
        zero = self.zero()
        if not self.moved:
            return [zero] * self.blocking.vectors
        fresh, lanes = self.nest.builder.fresh, self.blocking.lanes
        group = fresh("group")
        vector = Vector(self.product.dtype, lanes)
        carried = [Carried(fresh("excess"), vector, zero) for _ in range(self.blocking.vectors)]
        moved = Splat(Cast(self.product.left.dtype, Literal(128)), self.blocking.terms)
        body: list[LoopStatement] = []
        yields = tuple(
            Dot(
                self.blocking.terms,
                Local(item.name),
                moved,
                self.right_vector(panel, Local(group), v, body),
            )
            for v, item in enumerate(carried)
        )
        out.append(
            For(group, Literal(0), self.steps(), tuple(body), carried=tuple(carried), yields=yields)
        )
        return [
            self.nest.builder.bind(Apply("sub", (zero, Local(item.name))), "start", out)
            for item in carried
        ]

    def zero(self) -> Expression:
        nothing = Literal(0.0) if self.product.dtype.kind == FLOAT else Literal(0)
        return Splat(Cast(self.product.dtype, nothing), self.blocking.lanes)

    def steps(self) -> Expression:
        return Apply("ceildiv", (self.terms.count, Literal(self.blocking.terms)))

    def left_value(
        self,
        group: Expression,
        term: Expression,
        row: int,
        variables: Variables,
        out: list[LoopStatement],
    ) -> Expression:
        assert self.left is not None
        together = self.blocking.terms
        value = Load(self.left, (group, term, Literal(row * together)), together)
        return self.nest.builder.bind(value, "left", out)

    def updated(self, sums: Expression, left: Expression, right: Expression) -> Expression:
        return Dot(self.blocking.terms, sums, left, right)
