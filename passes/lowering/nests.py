"""Loop nests of einsum statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Local
from einloom.ir.infer import EinsumTyping
from einloom.ir.loops import Carried, For, If, LoopStatement, Store
from einloom.ir.ops import MONOIDS, apply
from einloom.ir.program import Einsum, Reduction
from einloom.ir.promotion import Typing
from einloom.ir.ranges import conjuncts
from einloom.ir.types import DType, bool_
from einloom.ir.typing import Lookup, body_typings
from einloom.passes.lowering.blocks import blocked
from einloom.passes.lowering.deferral import deferral_of
from einloom.passes.lowering.fold_loops import FoldLoops, Turns
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.function import FunctionBuilder, Place
from einloom.passes.lowering.order import choose_order, is_exchangeable, plain_indices
from einloom.passes.lowering.regions import fill, inside, is_single, needs_fill, unproved
from einloom.passes.lowering.scatters import scatter
from einloom.passes.lowering.values import (
    Values,
    checked_index,
    compared,
    lower_index,
    lower_scalar,
    lower_value,
    substituted,
)

if TYPE_CHECKING:
    from einloom.passes.lowering.products.blocking import Cut

Variables = dict[str, Expression]
Make = Callable[[Variables], list[LoopStatement]]


@dataclass
class Nest:
    """The lowering of one einsum inside one function.

    `place` holds the variables and extents of the enclosing scans. `sliced`: the outermost
    loop may be the parallel one of its function. `window`: of the reduced index that it names,
    only these turns are folded.
    """

    builder: FunctionBuilder
    statement: Einsum
    typing: EinsumTyping
    place: Place
    sliced: bool = True
    window: Turns | None = None

    def __post_init__(self) -> None:
        context = self.builder.context
        lookup = Lookup(context.inference.tensors, set(), context.functions, context.monoids)
        self.typings = body_typings(self.statement, lookup)
        self.scatters = not self.covers()
        self.fills = needs_fill(self)
        self.sliced = self.sliced and not self.fills
        self.deferral = (
            None if self.scatters
            else deferral_of(self.statement, self.typing, self.typings, context)
        )  # fmt: skip
        self.order = choose_order(self.statement, self.typing, context, may_block=self.may_block())

    # -- properties

    def covers(self) -> bool:
        """Whether each cell is written by exactly one iteration of the result's indices."""
        varying = [e for k, e in enumerate(self.statement.indices) if not is_single(self, k)]
        return all(isinstance(e, Index) for e in varying) and len(set(varying)) == len(varying)

    def may_block(self) -> bool:
        reductions = self.statement.reductions
        if not reductions or self.scatters:
            return False
        if len(reductions) > 1 and not is_exchangeable(self.statement, self.builder.context):
            return False
        if self.statement.condition is not None and unproved(self):
            return False
        name = reductions[0].monoid
        return name in MONOIDS and not MONOIDS[name].paired

    def parallel_index(self) -> str | None:
        """The index whose loop may be cut into slices: the outermost one of a covering nest."""
        if self.scatters or not self.sliced:
            return None
        if self.order.outer:
            return self.order.outer[0]
        if self.order.inner in plain_indices(self.statement, self.typing):
            return self.order.inner
        return None

    def extent(self, index: str) -> Expression:
        return self.builder.scalar(self.typing.extents[index])

    def bounds(self, index: str) -> Turns:
        """The loop over a reduced index."""
        if self.window is not None and self.window.hint == index:
            return self.window
        return Turns(index, Literal(0), self.extent(index), self.typing.extents[index])

    # -- pieces

    def inner_place(self, variables: Variables) -> Place:
        return replace(
            self.place,
            variables={**self.place.variables, **variables},
            extents=self.typing.extents,
            condition=self.statement.condition,
            scans=self.typing.scans,
        )

    def loop(self, index: str, variables: Variables) -> tuple[str, Variables]:
        name = self.builder.fresh(index)
        return name, {**variables, index: Local(name)}

    def guarded(self, variables: Variables, inside: list[LoopStatement],
                otherwise: list[LoopStatement]) -> list[LoopStatement]:  # fmt: skip
        """`inside` where the statement's condition holds, `otherwise` elsewhere."""
        if self.statement.condition is None:
            return inside
        out: list[LoopStatement] = []
        condition = self.condition(self.statement.condition, variables, out)
        out.append(If(condition, tuple(inside), tuple(otherwise)))
        return out

    def condition(
        self, condition: Expression, variables: Variables, out: list[LoopStatement]
    ) -> Expression:
        """Whether a condition holds; what may fail is evaluated where the parts before it hold."""
        place = replace(self.inner_place(variables), condition=None)
        found: Expression | None = None
        for part in conjuncts(inline(condition, self.builder.context.functions)):
            needed: list[LoopStatement] = []
            value = as_condition(lower_scalar(self.builder, part, place, needed))
            if found is None:
                out.extend(needed)
                found = value
            elif not needed:
                found = apply("and", found, value)
            else:
                holds = Carried(self.builder.fresh("holds"), bool_, Literal(False))
                out.append(If(found, tuple(needed), (), (holds,), (value,)))
                found = Local(holds.name)
        assert found is not None
        return found

    @property
    def terms(self) -> Expression:
        """What is folded or mapped: the body, less what is done after the fold."""
        return self.statement.body if self.deferral is None else self.deferral.terms

    def body(self, variables: Variables, out: list[LoopStatement]) -> Values:
        return lower_value(self.builder, self.terms, self.inner_place(variables), out)

    def finished(
        self, variables: Variables, values: Values, out: list[LoopStatement],
        known: Mapping[str, Expression] | None = None,
    ) -> Values:  # fmt: skip
        """The results of a fold after what was left for its end; `known`: cells at hand."""
        if self.deferral is None:
            return values
        found = self.deferral
        operand = substituted(compared(found.operand, self.builder.context), known or {})
        (operand,) = lower_value(self.builder, operand, self.inner_place(variables), out)
        (dtype,) = self.folds()[0].dtypes
        value: Expression = Cast(dtype, Apply(found.op, (values[0], operand)))
        if found.may_be_empty():
            none = Apply("eq", (self.builder.scalar(found.turns), Literal(0)))
            value = Apply("select", (none, values[0], value))
        return (value,)

    def store(self, variables: Variables, values: Values, out: list[LoopStatement]) -> None:
        """Write the components of all targets at the left side's cell."""
        place = self.inner_place(variables)
        for buffer, indices, dtype, value in zip(
            *self.cells(place, out), self.component_dtypes(), values, strict=True
        ):
            out.append(Store(buffer, indices, Cast(dtype, value)))

    def component_dtypes(self) -> list[DType]:
        context = self.builder.context
        return [d for t in self.statement.targets for d in context.components(t.name)]

    def cells(
        self, place: Place, out: list[LoopStatement]
    ) -> tuple[list[str], list[tuple[Expression, ...]]]:
        """Buffers and lowered indices of everything the statement writes, in order."""
        buffers: list[str] = []
        cells: list[tuple[Expression, ...]] = []
        context = self.builder.context
        checked = self.checked_indices(place, out)
        for target in self.statement.targets:
            indices = self.builder.storage_indices(target.name, list(checked))
            for component in range(len(context.components(target.name))):
                buffers.append(self.builder.buffer(target.name, component, write=True))
                cells.append(tuple(indices))
        return buffers, cells

    def checked_indices(self, place: Place, out: list[LoopStatement]) -> list[Expression]:
        """The lowered left side, with checks that it lies inside all targets."""
        context = self.builder.context
        indices = [lower_index(self.builder, e, place, out) for e in self.statement.indices]
        for target in self.statement.targets:
            limits = context.type_of(target.name).extents
            access = Access(target.name, self.statement.indices, location=self.statement.location)
            for position, limit in enumerate(limits):
                indices[position] = checked_index(
                    self.builder, access, position, indices[position], limit, place, out
                )
        return indices

    def folds(self) -> list[Fold]:
        """One fold per reduction, outermost first."""
        typings: list[Typing] = self.typings
        found: list[Fold] = []
        for reduction in reversed(self.statement.reductions):
            fold = Fold(self.builder, reduction, typings)
            typings = fold.typings
            found.append(fold)
        return found[::-1]

    def fill_values(self) -> Values:
        """What a cell holds that no iteration reaches."""
        if self.statement.reductions:
            fold = self.folds()[0]
            return fold.results(fold.initial())
        values: list[Expression] = []
        for target in self.statement.targets:
            type_ = self.builder.context.type_of(target.name)
            fill = type_.fill if type_.fill is not None else Literal(0)
            values.extend(fill for _ in self.builder.context.components(target.name))
        return tuple(values)

    # -- whole nests

    def build(self) -> list[LoopStatement]:
        if self.scatters:
            return scatter(self)
        blocking = self.builder.context.blockings.get(self.statement.targets[0].name)
        cut = None if blocking is None else self.cut(blocking)
        if cut is not None:
            return cut
        filled = fill(self) if self.fills else []
        if self.order.blocked:
            return filled + blocked(self)
        return filled + self.over(list(self.order.outer), {}, self.point)

    def cut(self, blocking: Cut) -> list[LoopStatement] | None:
        """The loops of a contraction or of a transposition in blocks."""
        from einloom.passes.lowering.products.blocking import Blocking, Tiling

        if isinstance(blocking, Tiling):
            from einloom.passes.lowering.transposes import transposing_loops, transposition_of

            transposition = transposition_of(self)
            if transposition is None:
                return None
            return transposing_loops(self, transposition, blocking)
        if not isinstance(blocking, Blocking):
            return None
        from einloom.passes.lowering.products.factors import product_of
        from einloom.passes.lowering.products.loops import product_loops

        product = product_of(self)
        return None if product is None else product_loops(self, product, blocking)

    def over(self, indices: list[str], variables: Variables, make: Make) -> list[LoopStatement]:
        """Loops over `indices` around `make(variables)`; the first may be the parallel one."""
        names: list[tuple[str, str]] = []
        for index in indices:
            name, variables = self.loop(index, variables)
            names.append((index, name))
        body = make(variables)
        for position, (index, name) in reversed(list(enumerate(names))):
            sliced = position == 0 and index == self.parallel_index()
            kind = "parallel" if sliced else "serial"
            body = [For(name, Literal(0), self.extent(index), tuple(body), kind)]
        return body

    def point(self, variables: Variables) -> list[LoopStatement]:
        """One cell: the inner map loop, or the folds of a reduction and their store."""
        if not self.statement.reductions:
            return self.map_loop(variables)
        out: list[LoopStatement] = []
        indices = self.reduction_order()
        values = self.reduce(self.folds(), indices, variables, out)
        values = self.finished(variables, values, out)
        if self.statement.condition is None or not unproved(self):
            self.store(variables, values, out)
            return out
        inside: list[LoopStatement] = []
        self.store(variables, values, inside)
        reached = self.reached(indices, variables, out)
        outside = self.unreached_store(variables, values)
        out.append(If(as_condition(reached), tuple(inside), tuple(outside)))
        return out

    def unreached_store(self, variables: Variables, values: Values) -> list[LoopStatement]:
        """A store where the condition does not hold, which then proves nothing of the cell."""
        out: list[LoopStatement] = []
        test = inside(self, unproved(self), variables, out)
        stored: list[LoopStatement] = []
        self.store(variables, values, stored)
        return stored if test is None else [*out, If(test, tuple(stored))]

    def map_loop(self, variables: Variables) -> list[LoopStatement]:
        inner = self.order.inner

        def cell(variables: Variables) -> list[LoopStatement]:
            inside: list[LoopStatement] = []
            self.store(variables, self.body(variables, inside), inside)
            outside: list[LoopStatement] = []
            if self.statement.condition is not None:
                outside = self.unreached_store(variables, self.fill_values())
            return self.guarded(variables, inside, outside)

        if inner is None:
            return cell(variables)
        name, variables = self.loop(inner, variables)
        body = cell(variables)
        sliced = not self.order.outer and self.parallel_index() == inner
        kind = "parallel" if sliced else "vector"
        return [For(name, Literal(0), self.extent(inner), tuple(body), kind)]

    def reduction_order(self) -> list[tuple[str, ...]]:
        """The indices of each reduction; exchangeable ones in the chosen order, in one."""
        reductions = [r.indices for r in self.statement.reductions]
        if len(reductions) == 1 or is_exchangeable(self.statement, self.builder.context):
            return [self.order.reduced] + [()] * (len(reductions) - 1)
        return reductions

    def reduce(
        self,
        folds: list[Fold],
        indices: list[tuple[str, ...]],
        variables: Variables,
        out: list[LoopStatement],
    ) -> Values:
        """Statements that leave the folded value of the given nested reductions."""
        if not folds or all(not names for names in indices):
            return self.body(variables, out)
        fold, names = folds[0], indices[0]

        def step(
            here: list[Expression], accumulators: list[Values], body: list[LoopStatement]
        ) -> list[Values]:
            inner = {**variables, **dict(zip(names, here, strict=True))}
            return [self.fold_step(fold, folds, indices, accumulators[0], inner, body)]

        turns = [self.bounds(name) for name in names]
        (values,) = FoldLoops(self.builder, turns, [fold], step).run(out)
        return fold.results(values)

    def fold_step(
        self,
        fold: Fold,
        folds: list[Fold],
        indices: list[tuple[str, ...]],
        current: Values,
        variables: Variables,
        body: list[LoopStatement],
    ) -> Values:
        rest = [(f, n) for f, n in zip(folds[1:], indices[1:], strict=True) if n]
        inside: list[LoopStatement] = []
        values = self.reduce([f for f, _ in rest], [n for _, n in rest], variables, inside)
        stepped = fold.step(current, values, inside)
        if self.statement.condition is None:
            body.extend(inside)
            return stepped
        condition = self.reached([n for _, n in rest], variables, body)
        kept = [
            Carried(self.builder.fresh("acc"), dtype, value)
            for dtype, value in zip(fold.dtypes, current, strict=True)
        ]
        body.append(If(as_condition(condition), tuple(inside), (), tuple(kept), stepped))
        return tuple(Local(c.name) for c in kept)

    def reached(
        self, inner: list[tuple[str, ...]], variables: Variables, out: list[LoopStatement]
    ) -> Expression:
        """Whether the condition holds here, or at some point of inner reductions.

        Reductions over indices that it does not test do not matter, empty ones included.
        """
        assert self.statement.condition is not None
        tested = set(ext.indices_in(self.statement.condition))
        names = [name for indices in inner for name in indices if name in tested]
        if not names:
            return self.condition(self.statement.condition, variables, out)
        probe = replace(
            self.statement,
            body=Literal(True),
            reductions=(Reduction("any", tuple(names)),),
        )
        nest = Nest(self.builder, probe, self.typing, self.place, sliced=False)
        (found,) = nest.reduce(nest.folds(), [tuple(names)], variables, out)
        return found

    def where_reached(
        self, inner: list[tuple[str, ...]], variables: Variables, inside: list[LoopStatement]
    ) -> list[LoopStatement]:
        """`inside` where the condition holds, or does at some point of inner reductions."""
        if self.statement.condition is None:
            return inside
        out: list[LoopStatement] = []
        condition = self.reached(inner, variables, out)
        out.append(If(as_condition(condition), tuple(inside)))
        return out


def as_condition(value: Expression) -> Expression:
    return Cast(bool_, value)
