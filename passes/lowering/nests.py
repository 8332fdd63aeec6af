"""Loop nests of einsum statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Local
from einloom.ir.infer import EinsumTyping
from einloom.ir.loops import Carried, For, If, Let, LoopStatement, Store
from einloom.ir.ops import MONOIDS, apply
from einloom.ir.program import Einsum, Reduction
from einloom.ir.promotion import Typing
from einloom.ir.ranges import conjuncts
from einloom.ir.types import DType, bool_
from einloom.ir.typing import Lookup, body_typings
from einloom.passes.lowering.blocks import blocked
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.function import FunctionBuilder, Place
from einloom.passes.lowering.order import choose_order, is_exchangeable, plain_indices
from einloom.passes.lowering.regions import fill, inside, is_single, needs_fill, unproved
from einloom.passes.lowering.scatters import scatter
from einloom.passes.lowering.values import (
    Values,
    checked_index,
    lower_index,
    lower_scalar,
    lower_value,
)

Variables = dict[str, Expression]
Make = Callable[[Variables], list[LoopStatement]]

SUM_BLOCK = 4096  # terms of a floating sum that are added up before the rest


@dataclass
class Nest:
    """The lowering of one einsum inside one function.

    `place` holds the variables and extents of the enclosing scans. `sliced`: the outermost
    loop may be the parallel one of its function.
    """

    builder: FunctionBuilder
    statement: Einsum
    typing: EinsumTyping
    place: Place
    sliced: bool = True

    def __post_init__(self) -> None:
        context = self.builder.context
        lookup = Lookup(context.inference.tensors, set(), context.functions, context.monoids)
        self.typings = body_typings(self.statement, lookup)
        self.scatters = not self.covers()
        self.fills = needs_fill(self)
        self.sliced = self.sliced and not self.fills
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

    def body(self, variables: Variables, out: list[LoopStatement]) -> Values:
        return lower_value(self.builder, self.statement.body, self.inner_place(variables), out)

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
        filled = fill(self) if self.fills else []
        if self.order.blocked:
            return filled + blocked(self)
        return filled + self.over(list(self.order.outer), {}, self.point)

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
        accumulators = [
            Carried(self.builder.fresh("acc"), dtype, initial)
            for dtype, initial in zip(fold.dtypes, fold.initial(), strict=True)
        ]
        out.append(self.fold_loops(fold, folds, indices, list(names), accumulators, variables))
        return fold.results(tuple(Local(c.name) for c in accumulators))

    def fold_loops(
        self,
        fold: Fold,
        folds: list[Fold],
        indices: list[tuple[str, ...]],
        names: list[str],
        accumulators: list[Carried],
        variables: Variables,
    ) -> LoopStatement:
        """Loops over `names`, each carrying the accumulators, around one step of the fold.

        A sum that rounds is added up in parts, one for each iteration of an outer loop and for
        each block of the innermost, so that the error does not grow with the number of terms.
        """
        innermost = len(names) == 1
        in_parts = fold.rounds and not self.builder.context.strict
        current = tuple(Local(c.name) for c in accumulators)
        if innermost and in_parts and self.is_long(names[0]):
            return self.blocks_of_sum(fold, folds, indices, names[0], accumulators, variables)
        name, variables = self.loop(names[0], variables)
        body: list[LoopStatement] = []
        yields: Values
        if not innermost:
            start = fold.initial() if in_parts else current
            inner = [
                Carried(self.builder.fresh("acc"), c.dtype, value)
                for c, value in zip(accumulators, start, strict=True)
            ]
            body.append(self.fold_loops(fold, folds, indices, names[1:], inner, variables))
            yields = tuple(Local(c.name) for c in inner)
            if in_parts:
                yields = fold.step(current, yields, body)
        else:
            yields = self.fold_step(fold, folds, indices, current, variables, body)
        kind = "vector" if innermost and len(body) == 0 else "serial"
        return For(
            name, Literal(0), self.extent(names[0]), tuple(body), kind, 1,
            tuple(accumulators), yields,
        )  # fmt: skip

    def is_long(self, index: str) -> bool:
        """Whether an index may have more iterations than a block of a sum."""
        extent = ext.simplify(self.typing.extents[index])
        return not isinstance(extent, Literal) or int(extent.value.real) > SUM_BLOCK

    def blocks_of_sum(
        self,
        fold: Fold,
        folds: list[Fold],
        indices: list[tuple[str, ...]],
        index: str,
        accumulators: list[Carried],
        variables: Variables,
    ) -> LoopStatement:
        """Loops over the blocks of one index, the sum of each block added to the accumulator."""
        block, start, count = (self.builder.fresh(n) for n in ("block", "start", "count"))
        left = Apply("sub", (self.extent(index), Local(start)))
        body: list[LoopStatement] = [
            Let(start, Apply("mul", (Local(block), Literal(SUM_BLOCK)))),
            Let(count, apply("min", left, Literal(SUM_BLOCK))),
        ]
        parts = [
            Carried(self.builder.fresh("part"), dtype, initial)
            for dtype, initial in zip(fold.dtypes, fold.initial(), strict=True)
        ]
        term = self.builder.fresh(index)
        here = {**variables, index: Apply("add", (Local(start), Local(term)))}
        inside: list[LoopStatement] = []
        current = tuple(Local(c.name) for c in parts)
        yields = self.fold_step(fold, folds, indices, current, here, inside)
        kind = "serial" if inside else "vector"
        body.append(
            For(term, Literal(0), Local(count), tuple(inside), kind, 1, tuple(parts), yields)
        )
        current = tuple(Local(c.name) for c in accumulators)
        total = fold.step(current, tuple(Local(c.name) for c in parts), body)
        extent = Apply("ceildiv", (self.typing.extents[index], Literal(SUM_BLOCK)))
        return For(
            block, Literal(0), self.builder.scalar(extent), tuple(body), "serial", 1,
            tuple(accumulators), total,
        )  # fmt: skip

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
