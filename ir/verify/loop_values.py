"""Dtypes and lanes of the values of the loops level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from einloom.ir.errors import DTypeError, EinloomError, ShapeError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import Across, Dot, HashLookup, Load, Search, Splat, Vector
from einloom.ir.names import counted
from einloom.ir.node import Node, postorder
from einloom.ir.ops import OPS
from einloom.ir.promotion import Typing, op_typing, value_typing
from einloom.ir.record import record
from einloom.ir.types import BOOL, SCALARS, DType, Scalar, bf16, f32, i8, i32, i64, u8
from einloom.ir.verify.complaints import Complaint, complaint, near


@record
class ValueTyping:
    """The dtype of a value and its lanes, 1 for a scalar; None: unknown after a complaint."""

    typing: Typing | None
    lanes: int = 1


UNKNOWN = ValueTyping(None)

_DOT_SUMS: dict[DType, DType] = {i8: i32, u8: i32, bf16: f32}


@dataclass
class BlockScope:
    """What an expression may refer to. `buffers`: dtype and number of dimensions."""

    scalars: set[str]
    buffers: dict[str, tuple[DType, int]] = field(default_factory=dict)
    values: dict[str, ValueTyping] = field(default_factory=dict)


def split(dtype: DType) -> tuple[DType, int]:
    """The element dtype and the lanes of a carried dtype or of a cast."""
    return (dtype.element, dtype.lanes) if isinstance(dtype, Vector) else (dtype, 1)


def type_value(
    root: Expression, scope: BlockScope, owner: Node, found: list[Complaint]
) -> ValueTyping:
    """The typing of an expression; complaints about it are appended to `found`."""
    done: dict[int, ValueTyping] = {}
    for part in postorder(root):
        if isinstance(part, Expression):
            done[id(part)] = _type(part, done, scope, owner, found)
    return done[id(root)]


def _type(
    part: Expression,
    done: Mapping[int, ValueTyping],
    scope: BlockScope,
    owner: Node,
    found: list[Complaint],
) -> ValueTyping:
    match part:
        case Literal():
            return ValueTyping(value_typing(part.value))
        case Symbol():
            if part.name not in scope.scalars:
                hint = near(part.name, sorted(scope.scalars))
                message = f"the kernel has no scalar {part.name}"
                found.append(complaint(message, part, owner, hint=hint))
            return ValueTyping(Typing(i64))
        case Local():
            if part.name not in scope.values:
                hint = near(part.name, list(scope.values))
                message = f"the value {part.name} is not defined here"
                found.append(complaint(message, part, owner, hint=hint))
            return scope.values.get(part.name, UNKNOWN)
        case Load():
            return _load(part, done, scope, owner, found)
        case Splat():
            inner = done[id(part.value)]
            if inner.lanes != 1:
                found.append(complaint("only a scalar is spread over lanes", part, owner))
            return ValueTyping(inner.typing, part.lanes)
        case Across():
            inner = done[id(part.value)]
            if part.op not in OPS or OPS[part.op].arity is not None:
                hint = "fold with an associative operation: add, mul, max, min, and, or, ..."
                message = f"lanes are not folded with {part.op}"
                found.append(complaint(message, part, owner, hint=hint))
            return ValueTyping(inner.typing)
        case Dot():
            return _dot(part, done, owner, found)
        case Cast():
            element, lanes = split(part.dtype)
            inner = done[id(part.value)]
            if isinstance(part.dtype, Vector) and lanes != inner.lanes:
                found.append(
                    complaint(
                        f"a value of {counted(inner.lanes, 'lane')} is cast to {lanes}",
                        part,
                        owner,
                        kind=ShapeError,
                    )
                )
            return ValueTyping(Typing(element), inner.lanes)
        case Apply():
            return _apply(part, done, owner, found)
        case Search():
            check_buffer(part.buffer, 1, scope, part, owner, found)
            return ValueTyping(Typing(i64))
        case HashLookup():
            check_buffer(part.buffer, None, scope, part, owner, found)
            return done[id(part.default)]
    found.append(complaint(f"{type(part).__name__} does not belong in loops", part, owner))
    return UNKNOWN


def check_buffer(
    name: str,
    indices: int | None,
    scope: BlockScope,
    part: Node,
    owner: Node,
    found: list[Complaint],
) -> DType | None:
    """The dtype of a buffer that is known and has as many dimensions as there are indices."""
    if name not in scope.buffers:
        message = f"there is no buffer {name} here"
        found.append(complaint(message, part, owner, hint=near(name, list(scope.buffers))))
        return None
    dtype, dimensions = scope.buffers[name]
    if indices is not None and indices != dimensions:
        has, given = counted(dimensions, "dimension"), counted(indices, "index", "indices")
        message = f"buffer {name} has {has}, it is given {given}"
        found.append(complaint(message, part, owner, kind=ShapeError))
    return dtype


def check_integers(
    expressions: tuple[Expression, ...],
    typings: list[ValueTyping],
    what: str,
    owner: Node,
    found: list[Complaint],
) -> None:
    """Indices, bounds and extents are integer scalars."""
    for expression, value in zip(expressions, typings, strict=True):
        if value.typing is None:
            continue
        dtype = value.typing.dtype
        if value.lanes != 1 or not (isinstance(dtype, Scalar) and dtype.is_integer):
            lanes = f" of {value.lanes} lanes" if value.lanes != 1 else ""
            message = f"{what} must be an integer, it is {dtype}{lanes}"
            found.append(complaint(message, expression, owner, kind=DTypeError))


def check_condition(
    condition: Expression, value: ValueTyping, owner: Node, found: list[Complaint]
) -> None:
    """A condition is one boolean."""
    if value.typing is None:
        return
    dtype = value.typing.dtype
    if value.lanes != 1 or not (isinstance(dtype, Scalar) and dtype.kind == BOOL):
        lanes = f" of {value.lanes} lanes" if value.lanes != 1 else ""
        message = f"a condition must be a bool, it is {dtype}{lanes}"
        found.append(complaint(message, condition, owner, kind=DTypeError))


def _load(
    part: Load,
    done: Mapping[int, ValueTyping],
    scope: BlockScope,
    owner: Node,
    found: list[Complaint],
) -> ValueTyping:
    dtype = check_buffer(part.buffer, len(part.indices), scope, part, owner, found)
    indices = [done[id(index)] for index in part.indices]
    check_integers(part.indices, indices, f"an index of {part.buffer}", owner, found)
    if part.lanes < 1:
        found.append(complaint(f"{part.buffer} is read in {part.lanes} lanes", part, owner))
    return ValueTyping(None if dtype is None else Typing(dtype), part.lanes)


def _dot(
    part: Dot, done: Mapping[int, ValueTyping], owner: Node, found: list[Complaint]
) -> ValueTyping:
    sums, left, right = (done[id(x)] for x in (part.sums, part.left, part.right))
    lanes = (part.terms, part.terms * sums.lanes)
    if part.terms < 2 or (left.lanes, right.lanes) != lanes:
        message = (
            f"dot<{part.terms}> into {counted(sums.lanes, 'lane')} takes {lanes[0]} and "
            f"{lanes[1]} lanes, it is given {left.lanes} and {right.lanes}"
        )
        found.append(complaint(message, part, owner, kind=ShapeError))
    typings = [value.typing for value in (sums, left, right)]
    dtypes = [typing.dtype for typing in typings if typing is not None]
    if len(dtypes) == 3 and {_DOT_SUMS.get(dtype) for dtype in dtypes[1:]} != {dtypes[0]}:
        message = f"dot<{part.terms}> does not add {dtypes[1]} times {dtypes[2]} to {dtypes[0]}"
        hint = "it multiplies i8 and u8 for sums of i32, and bf16 for sums of f32"
        found.append(complaint(message, part, owner, hint=hint, kind=DTypeError))
    return sums


def _apply(
    part: Apply, done: Mapping[int, ValueTyping], owner: Node, found: list[Complaint]
) -> ValueTyping:
    arguments = [done[id(argument)] for argument in part.arguments]
    op = OPS.get(part.op)
    if op is None:
        message = f"unknown operation {part.op}"
        found.append(complaint(message, part, owner, hint=near(part.op, list(OPS))))
        return UNKNOWN
    wanted = op.arity if op.arity is not None else max(2, len(arguments))
    if len(arguments) != wanted:
        message = f"{part.op} takes {counted(wanted, 'argument')}, it is given {len(arguments)}"
        found.append(complaint(message, part, owner))
        return UNKNOWN
    lanes = {value.lanes for value in arguments} - {1}
    if len(lanes) > 1:
        shown = " and ".join(map(str, sorted(lanes)))
        message = f"{part.op} takes values of {shown} lanes"
        found.append(complaint(message, part, owner, kind=ShapeError))
        return UNKNOWN
    typings = [value.typing for value in arguments if value.typing is not None]
    if len(typings) < len(arguments):
        return UNKNOWN
    try:
        typing = op_typing(part.op, op.rule, typings)
    except EinloomError as error:
        first = error.diagnostics[0]
        hint = first.suggestion
        found.append(complaint(first.message, part, owner, hint=hint, kind=type(error)))
        return UNKNOWN
    return ValueTyping(typing, max(lanes, default=1))


def known_scalar(dtype: DType) -> bool:
    element = split(dtype)[0]
    return not isinstance(element, Scalar) or element.name in SCALARS
