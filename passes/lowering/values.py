"""Lowering of scalar and index expressions: accesses become loads, with their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Local,
    Pack,
    Project,
    Symbol,
)
from einloom.ir.loops import Carried, Check, If, Load, LoopStatement
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import apply
from einloom.ir.ranges import is_below, is_inside, is_nonnegative
from einloom.ir.types import DType, i64
from einloom.passes.lowering.function import FunctionBuilder, Place, ProgramContext

Values = tuple[Expression, ...]


def lower_value(
    builder: FunctionBuilder, expression: Expression, place: Place, out: list[LoopStatement]
) -> Values:
    """The components of an expression's value; statements it needs first go to `out`."""
    context = builder.context
    root = widened(compared(inline(expression, context.functions), context))
    done: dict[int, Values] = {}
    for current in postorder(root):
        if isinstance(current, Expression):
            done[id(current)] = _lower(builder, current, done, place, out)
    return done[id(root)]


def substituted(body: Expression, values: Mapping[str, Expression]) -> Expression:
    """A body with the cells of tensors that are at hand in place of reads of them."""

    def change(current: Node) -> Node:
        if isinstance(current, Access) and current.tensor in values:
            return values[current.tensor]
        return current

    return rebuild(body, change)


def compared(expression: Expression, context: ProgramContext) -> Expression:
    """The expression with `stored(A[i])` as what it asks of the cell, before its value is put in
    place of the read: whether it differs from the fill value. Dense tensors store every cell."""

    def change(current: Node) -> Node:
        return _stored(current, context) if is_stored(current) else current

    return rebuild(expression, change) if any(map(is_stored, postorder(expression))) else expression


def is_stored(current: Node) -> TypeGuard[Apply]:
    return isinstance(current, Apply) and current.op == "stored"


def _stored(current: Apply, context: ProgramContext) -> Expression:
    (access,) = current.arguments
    assert isinstance(access, Access)
    type_ = context.type_of(access.tensor)
    if all(level.kind == "dense" for level in type_.format):
        return Literal(True)
    fill = type_.fill if type_.fill is not None else Literal(0)
    if isinstance(fill.value, float) and fill.value != fill.value:
        return Apply("not", (Apply("isnan", (access,)),))
    return Apply("ne", (access, fill))


def widened(expression: Expression) -> Expression:
    """The expression with tensor reads inside indices converted to i64, in which indices run."""

    def as_index(current: Node) -> Node:
        return Cast(i64, current) if isinstance(current, Access) else current

    def change(current: Node) -> Node:
        if isinstance(current, Access) and any(map(ext.reads_tensor, current.indices)):
            indices = tuple(rebuild(index, as_index) for index in current.indices)
            return replace(current, indices=indices)
        return current

    return rebuild(expression, change)


def as_written(expression: Expression) -> str:
    """An index expression as it stands between brackets, without what `widened` put in."""

    def change(current: Node) -> Node:
        if isinstance(current, Cast) and isinstance(current.value, Access):
            return current.value
        return current

    return str(Access("A", (rebuild(expression, change),)))[len("A[") : -len("]")]


def lower_index(
    builder: FunctionBuilder, expression: Expression, place: Place, out: list[LoopStatement]
) -> Expression:
    """An index expression of a left side, in i64."""
    site = widened(Access("", (expression,)))
    assert isinstance(site, Access)
    return lower_scalar(builder, site.indices[0], place, out)


def lower_scalar(
    builder: FunctionBuilder, expression: Expression, place: Place, out: list[LoopStatement]
) -> Expression:
    (value,) = lower_value(builder, expression, place, out)
    return value


def _lower(
    builder: FunctionBuilder,
    current: Expression,
    done: dict[int, Values],
    place: Place,
    out: list[LoopStatement],
) -> Values:
    match current:
        case Literal() | Local():
            return (current,)
        case Symbol():
            return (builder.scalar(current),)
        case Index():
            return (place.variables[current.name],)
        case Pack():
            return tuple(done[id(item)][0] for item in current.items)
        case Project():
            return (done[id(current.value)][current.item],)
        case Cast():
            return (Cast(current.dtype, done[id(current.value)][0]),)
        case Access():
            indices = [done[id(index)][0] for index in current.indices]
            return lower_access(builder, current, indices, place, out)
        case Apply():
            arguments = tuple(done[id(argument)][0] for argument in current.arguments)
            return (Apply(current.op, arguments),)
    raise UnsupportedError(f"{current} has no loops form", location=current.location)


def lower_access(
    builder: FunctionBuilder,
    access: Access,
    indices: list[Expression],
    place: Place,
    out: list[LoopStatement],
) -> Values:
    """Loads of an access's components; checked or padded where it may leave the tensor."""
    if access.view in ("codes", "scales"):
        raise UnsupportedError(
            f"{access.view}({access.tensor}) has no loops form", location=access.location
        )
    type_ = builder.context.type_of(access.tensor)
    limits = type_.extents[1:] if access.view == "final" else type_.extents
    guards: list[Expression] = []
    for position, (expression, limit) in enumerate(zip(access.indices, limits, strict=True)):
        if access.padding is None:
            indices[position] = checked_index(
                builder, access, position, indices[position], limit, place, out
            )
            continue
        indices[position] = builder.bind(indices[position], "at", out)
        if not is_nonnegative(expression, place.extents, place.condition):
            guards.append(Apply("ge", (indices[position], Literal(0))))
        if not is_below(expression, limit, place.extents, place.condition):
            guards.append(Apply("lt", (indices[position], builder.scalar(limit))))
    if access.view == "final":
        indices.insert(0, final_step(builder, access.tensor))
    indices = builder.storage_indices(access.tensor, indices)
    loads = load(builder, access.tensor, indices)
    if not guards:
        return loads
    condition = apply("and", *guards)
    values: list[Expression] = []
    for component, value in enumerate(loads):
        name = builder.fresh("padded")
        dtype = builder.context.components(access.tensor)[component]
        assert access.padding is not None
        carried = Carried(name, dtype, access.padding)
        out.append(If(condition, (), (), (carried,), (value,)))
        values.append(Local(name))
    return tuple(values)


def checked_index(
    builder: FunctionBuilder,
    access: Access,
    position: int,
    index: Expression,
    limit: Expression,
    place: Place,
    out: list[LoopStatement],
) -> Expression:
    """An index as i64, with a check before its use unless it is proved to be inside."""
    expression = access.indices[position]
    if isinstance(expression, Index) and expression.name not in place.scans:
        return index
    if is_inside(expression, limit, place.extents, place.condition):
        return index
    index = builder.bind(index, "at", out)
    size = builder.scalar(limit)
    where = f"{access.location}: " if access.location is not None else ""
    number = builder.fault(
        f"{where}index {as_written(expression)} of {access.tensor} is {{value}}, "
        f"rank {position} has extent {{limit}}"
    )
    inside = apply("and", Apply("ge", (index, Literal(0))), Apply("lt", (index, size)))
    out.append(Check(inside, number, index, size))
    return index


def load(builder: FunctionBuilder, tensor: str, indices: list[Expression]) -> Values:
    count = len(builder.context.components(tensor))
    return tuple(
        Load(builder.buffer(tensor, component), tuple(indices)) for component in range(count)
    )


def final_step(builder: FunctionBuilder, tensor: str) -> Expression:
    """The index of the last state of a scan."""
    scan = builder.context.inference.states[tensor]
    if scan.until is None:
        return Literal(0) if scan.down else builder.scalar(scan.extent)
    executed: Expression = Load(builder.buffer(builder.context.counter_of(scan)), ())
    if scan.down:
        return Apply("sub", (builder.scalar(scan.extent), executed))
    return executed


def converted(value: Expression, dtype: DType) -> Expression:
    return value if isinstance(value, Cast) and value.dtype == dtype else Cast(dtype, value)
