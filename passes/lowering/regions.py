"""The cells that a statement defines: single positions of its left side, and fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.expressions import Apply, Cast, Expression, Index, Literal, Local
from einloom.ir.loops import For, If, LoopStatement, Store
from einloom.ir.ops import apply
from einloom.ir.ranges import is_inside
from einloom.passes.lowering.function import FunctionBuilder
from einloom.passes.lowering.values import Values, lower_index

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Variables = dict[str, Expression]


def is_single(nest: Nest, position: int) -> bool:
    """Whether none of the statement's own indices stands at a position of its left side."""
    own = set(nest.typing.own_indices())
    return not own & set(ext.indices_in(nest.statement.indices[position]))


def is_fixed(nest: Nest, position: int) -> bool:
    """Whether the statement defines only one slice at a position, and leaves the others alone.

    So it is at every single position of a state, and where an enclosing loop moves along the
    rank. At other single positions the statement defines all cells: those that it does not
    write hold the fill value or the reducer's identity.
    """
    if not is_single(nest, position):
        return False
    moving = set(nest.typing.scans) & set(ext.indices_in(nest.statement.indices[position]))
    return is_state(nest) or bool(moving)


def is_state(nest: Nest) -> bool:
    return nest.statement.targets[0].name in nest.builder.context.inference.states


def needs_fill(nest: Nest) -> bool:
    """Whether cells of the region must be set before the statement writes those it reaches.

    Maps add cells to a state, whose slices are filled by the scan where that is needed.
    """
    if nest.scatters:
        return bool(nest.statement.reductions) or not is_state(nest)
    limits = target_limits(nest)
    whole = [k for k in range(len(limits)) if is_single(nest, k) and not is_fixed(nest, k)]
    return any(ext.equal(limits[k], Literal(1)) is not True for k in whole)


def target_limits(nest: Nest) -> tuple[Expression, ...]:
    return nest.builder.context.type_of(nest.statement.targets[0].name).extents


def unproved(nest: Nest) -> list[int]:
    """Single positions that may lie outside the result where the condition does not hold."""
    limits = target_limits(nest)
    return [
        position
        for position, expression in enumerate(nest.statement.indices)
        if is_single(nest, position)
        and not is_inside(expression, limits[position], nest.typing.extents)
    ]


def inside(
    nest: Nest, positions: list[int], variables: Variables, out: list[LoopStatement]
) -> Expression | None:
    """Whether the left side lies inside the result at single positions; None for none of them."""
    limits = target_limits(nest)
    place = nest.inner_place(variables)
    tests: list[Expression] = []
    for position in positions:
        index = lower_index(nest.builder, nest.statement.indices[position], place, out)
        index = nest.builder.bind(index, "at", out)
        tests.append(Apply("ge", (index, Literal(0))))
        tests.append(Apply("lt", (index, nest.builder.scalar(limits[position]))))
    return apply("and", *tests) if tests else None


def guarded_region(
    nest: Nest, variables: Variables, before: list[LoopStatement], body: list[LoopStatement]
) -> list[LoopStatement]:
    """`before` and then `body`, which writes the region, unless that lies outside the result."""
    fixed = [position for position in unproved(nest) if is_fixed(nest, position)]
    test = inside(nest, fixed, variables, before)
    return [*before, *(body if test is None else [If(test, tuple(body))])]


def over_region(
    nest: Nest, variables: Variables, known: dict[int, Expression]
) -> tuple[list[Expression], list[tuple[str, Expression]], list[LoopStatement]]:
    """Indices of a cell of the region, the loops that visit all cells, and what comes before.

    `known`: positions at which enclosing loops already stand.
    """
    out: list[LoopStatement] = []
    indices: list[Expression] = []
    loops: list[tuple[str, Expression]] = []
    place = nest.inner_place(variables)
    for position, limit in enumerate(target_limits(nest)):
        if position in known:
            indices.append(known[position])
        elif is_fixed(nest, position):
            expression = nest.statement.indices[position]
            indices.append(lower_index(nest.builder, expression, place, out))
        else:
            loop = nest.builder.fresh("cell")
            loops.append((loop, nest.builder.scalar(limit)))
            indices.append(Local(loop))
    return indices, loops, out


def wrapped(loops: list[tuple[str, Expression]], body: list[LoopStatement]) -> list[LoopStatement]:
    for loop, limit in reversed(loops):
        body = [For(loop, Literal(0), limit, tuple(body))]
    return body


def store_cell(nest: Nest, indices: list[Expression], values: Values) -> list[LoopStatement]:
    """Stores of the components of all targets at one cell."""
    found: list[LoopStatement] = []
    builder, context = nest.builder, nest.builder.context
    remaining = list(values)
    for target in nest.statement.targets:
        stored = tuple(builder.storage_indices(target.name, list(indices)))
        for component, dtype in enumerate(context.components(target.name)):
            buffer = builder.buffer(target.name, component, write=True)
            found.append(Store(buffer, stored, Cast(dtype, remaining.pop(0))))
    return found


def fill(nest: Nest) -> list[LoopStatement]:
    """Loops that set every cell of the region to its unreached value."""
    indices, loops, before = over_region(nest, {}, {})
    body = wrapped(loops, store_cell(nest, indices, nest.fill_values()))
    return guarded_region(nest, {}, before, body)


def fill_tensor(
    builder: FunctionBuilder, name: str, first: Expression | None = None
) -> list[LoopStatement]:
    """Loops that set a tensor, or the slice `first` of its first rank, to its fill value."""
    type_ = builder.context.type_of(name)
    value = type_.fill if type_.fill is not None else Literal(0)
    loops: list[tuple[str, Expression]] = []
    indices: list[Expression] = [] if first is None else [first]
    for limit in type_.extents[len(indices) :]:
        loop = builder.fresh("cell")
        loops.append((loop, builder.scalar(limit)))
        indices.append(Local(loop))
    stored = tuple(builder.storage_indices(name, indices))
    body: list[LoopStatement] = [
        Store(builder.buffer(name, component, write=True), stored, Cast(dtype, value))
        for component, dtype in enumerate(builder.context.components(name))
    ]
    return wrapped(loops, body)


def covers_slice(indices: tuple[Expression, ...], own: set[str]) -> bool:
    """Whether a left side reaches every cell behind its first position."""
    names = [e.name for e in indices[1:] if isinstance(e, Index) and e.name in own]
    return len(names) == len(indices) - 1 and len(set(names)) == len(names)
