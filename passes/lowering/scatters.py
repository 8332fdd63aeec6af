"""Writes that do not cover the result one by one: fill first, then scatter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.expressions import Cast, Expression, Literal, Local
from einloom.ir.loops import For, Load, LoopStatement, Store
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.values import Values, lower_index

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]


def fill(nest: Nest) -> list[LoopStatement]:
    """Loops that set every cell of the written slice to its unreached value."""
    own = set(nest.typing.own_indices())
    name = nest.statement.targets[0].name
    limits = nest.builder.context.type_of(name).extents
    place = nest.inner_place({})
    out: list[LoopStatement] = []
    indices: list[Expression] = []
    loops: list[tuple[str, Expression]] = []
    for expression, limit in zip(nest.statement.indices, limits, strict=True):
        fixed = not (own & set(ext.indices_in(expression))) and not ext.reads_tensor(expression)
        if fixed:
            indices.append(lower_index(nest.builder, expression, place, out))
        else:
            loop = nest.builder.fresh("cell")
            loops.append((loop, nest.builder.scalar(limit)))
            indices.append(Local(loop))
    indices = nest.builder.storage_indices(name, indices)
    body: list[LoopStatement] = []
    values, dtypes = list(nest.fill_values()), nest.component_dtypes()
    for target in nest.statement.targets:
        for component in range(len(nest.builder.context.components(target.name))):
            buffer = nest.builder.buffer(target.name, component, write=True)
            value = Cast(dtypes.pop(0), values.pop(0))
            body.append(Store(buffer, tuple(indices), value))
    for loop, limit in reversed(loops):
        body = [For(loop, Literal(0), limit, tuple(body))]
    return out + body


def scatter(nest: Nest) -> list[LoopStatement]:
    """Every iteration writes, or combines into, the cell that its left side names."""
    reduced = {name for r in nest.statement.reductions for name in r.indices}
    mapped = [n for n in nest.typing.own_indices() if n not in reduced]
    if not nest.statement.reductions:
        return nest.over(mapped, {}, partial(scattered_map, nest))
    return nest.over([*mapped, *nest.reduction_order()[0]], {}, partial(scattered_fold, nest))


def scattered_map(nest: Nest, variables: Variables) -> list[LoopStatement]:
    inside: list[LoopStatement] = []
    nest.store(variables, nest.body(variables, inside), inside)
    return nest.guarded(variables, inside, [])


def scattered_fold(nest: Nest, variables: Variables) -> list[LoopStatement]:
    """The outermost fold runs in the result's cells, the others inside."""
    fold, *folds = nest.folds()
    indices = nest.reduction_order()[1:]
    inside: list[LoopStatement] = []
    values = nest.reduce(folds, indices, variables, inside)
    buffers, cells = nest.cells(nest.inner_place(variables), inside)
    current = tuple(Load(b, c) for b, c in zip(buffers, cells, strict=True))
    stepped = fold.results(fold.step(scatter_state(fold, current), values, inside))
    named = [nest.builder.bind(value, "new", inside) for value in stepped]
    for buffer, cell, dtype, value in zip(
        buffers, cells, nest.component_dtypes(), named, strict=True
    ):
        inside.append(Store(buffer, cell, Cast(dtype, value)))
    return inside if any(indices) else nest.guarded(variables, inside, [])


def scatter_state(fold: Fold, current: Values) -> Values:
    """The accumulators of a fold whose state lives in the result's cells."""
    return (*current, Literal(True)) if fold.paired else current
