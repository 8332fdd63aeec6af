"""Dtypes of scalar expressions and of what a statement stores."""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir.definitions import inline
from einloom.ir.errors import DTypeError, EinloomError
from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Pack,
    Project,
    Symbol,
    Value,
)
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import Einsum, Function, Monoid, Reduction
from einloom.ir.promotion import (
    Typing,
    op_typing,
    promote_typings,
    value_dtype,
    value_typing,
)
from einloom.ir.record import record
from einloom.ir.types import SIGNED, DType, Quantized, Scalar, TensorType, Tuple, bool_, i64


@record
class Lookup:
    """What an expression may refer to. `weak`: scan states whose dtype is still a literal's."""

    tensors: Mapping[str, TensorType]
    weak: set[str]
    functions: Mapping[str, Function]
    monoids: Mapping[str, Monoid]


def typing_of(expression: Expression, lookup: Lookup) -> Typing:
    """The dtype of an expression. Raises DTypeError with the location of the operation."""
    root = inline(expression, lookup.functions)
    return typings_of(root, lookup)[id(root)]


def typings_of(root: Expression, lookup: Lookup) -> dict[int, Typing]:
    """The typing of every expression below and including `root`, by its `id`.

    Definitions must be expanded already (`definitions.inline`). Raises as `typing_of` does.
    """
    done: dict[int, Typing] = {}
    for current in postorder(root):
        if isinstance(current, Expression):
            done[id(current)] = _typing(current, done, lookup)
    return done


def _typing(current: Expression, done: dict[int, Typing], lookup: Lookup) -> Typing:
    match current:
        case Literal():
            return value_typing(current.value)
        case Symbol():
            return Typing(i64, weak=True)
        case Index():
            return Typing(i64)
        case Access():
            return _access_typing(current, lookup)
        case Cast():
            return Typing(current.dtype)
        case Pack():
            items = [done[id(item)] for item in current.items]
            return Typing(Tuple(tuple(t.dtype for t in items)), all(t.weak for t in items))
        case Project():
            whole = done[id(current.value)].dtype
            if not isinstance(whole, Tuple) or current.item >= len(whole.items):
                raise DTypeError(
                    f"{whole} has no component {current.item}", location=current.location
                )
            return Typing(whole.items[current.item], done[id(current.value)].weak)
        case Apply():
            op = OPS[current.op]
            arguments = [done[id(argument)] for argument in current.arguments]
            if op.arity is not None and len(arguments) != op.arity:
                raise DTypeError(
                    f"{op.name} takes {op.arity} arguments, {len(arguments)} are given",
                    location=current.location,
                )
            try:
                return op_typing(op.name, op.rule, arguments)
            except EinloomError as error:
                raise type(error)(
                    error.message,
                    location=current.location,
                    suggestion=error.diagnostics[0].suggestion,
                ) from None
    raise DTypeError(f"{current} is no value here", location=current.location)


def _access_typing(current: Access, lookup: Lookup) -> Typing:
    dtype = lookup.tensors[current.tensor].dtype
    if current.view in ("codes", "scales"):
        if not isinstance(dtype, Quantized):
            raise DTypeError(f"{current.tensor} is not quantized", location=current.location)
        return Typing(component_dtype(dtype, current.view))
    return Typing(value_dtype(dtype), weak=current.tensor in lookup.weak)


def component_dtype(dtype: Quantized, view: str) -> Scalar:
    """The dtype that `codes(W)` or `scales(W)` reads as."""
    if view == "codes":
        return Scalar("i64")
    return Scalar("f32") if len(dtype.scales) != 1 else dtype.scales[0].dtype


def literal_fits(value: Value, dtype: DType) -> bool:
    """Whether an integer literal is a value of the integer dtype that it takes; all other
    literals round, and residues are reduced."""
    if type(value) is not int or not isinstance(dtype, Scalar) or not dtype.is_integer:
        return True
    half = 1 << (dtype.bits - 1)
    low, end = (-half, half) if dtype.kind == SIGNED else (0, 2 * half)
    return low <= value < end


def body_typings(statement: Einsum, lookup: Lookup) -> list[Typing]:
    """The typings of the components of a statement's body: one unless it is a tuple."""
    body = statement.body
    if isinstance(body, Pack):
        return [typing_of(item, lookup) for item in body.items]
    typing = typing_of(body, lookup)
    if isinstance(typing.dtype, Tuple):
        return [Typing(item, typing.weak) for item in typing.dtype.items]
    return [typing]


def fold_dtypes(
    reduction: Reduction, typings: list[Typing], monoids: Mapping[str, Monoid]
) -> list[Typing]:
    """The typings of the components after one reduction."""
    name = reduction.monoid
    if name in monoids:
        dtype = monoids[name].dtype
        items = dtype.items if isinstance(dtype, Tuple) else (dtype,)
        if len(items) != len(typings):
            raise DTypeError(
                f"monoid {name} folds {len(items)} components, the body has {len(typings)}",
                location=reduction.location,
            )
        return [Typing(item) for item in items]
    builtin = MONOIDS[name]
    wanted = 2 if builtin.paired else 1
    if len(typings) != wanted:
        hint = f"{name}[...] (X[...], iota(...))" if builtin.paired else None
        raise DTypeError(
            f"{name} folds {wanted} component{'s' if wanted > 1 else ''}, "
            f"the body has {len(typings)}",
            location=reduction.location,
            suggestion=hint,
        )
    first = typings[0]
    if reduction.accumulator is not None:
        if builtin.paired:
            raise DTypeError(f"{name} takes no accumulator dtype", location=reduction.location)
        return [Typing(reduction.accumulator)]
    if name in ("any", "all"):
        return [Typing(bool_)]
    op_typing(name, OPS[builtin.op].rule, [first, first])
    return typings


def reduced_dtypes(statement: Einsum, typings: list[Typing], lookup: Lookup) -> list[Typing]:
    """The typings of the components after all reductions, the last one being innermost."""
    for reduction in reversed(statement.reductions):
        typings = fold_dtypes(reduction, typings, lookup.monoids)
    return typings


def result_dtypes(statement: Einsum, typings: list[Typing]) -> tuple[DType, ...]:
    """What each target stores: its declared dtype, or the expression's."""
    targets = statement.targets
    if len(targets) == 1 and len(typings) > 1:
        typings = [Typing(Tuple(tuple(t.dtype for t in typings)))]
    if len(targets) != len(typings):
        raise DTypeError(
            f"{len(targets)} results are defined, the body has {len(typings)} components",
            location=statement.location,
        )
    dtypes: list[DType] = []
    for target, typing in zip(targets, typings, strict=True):
        declared = target.type.dtype if target.type is not None else typing.dtype
        if isinstance(declared, Quantized):
            raise DTypeError(
                f"{target.name} cannot be defined as quantized",
                location=statement.location,
                suggestion="compute its codes and scales as tensors of their own",
            )
        check_stores(target.name, declared, typing, statement)
        dtypes.append(declared)
    return tuple(dtypes)


def check_stores(name: str, declared: DType, typing: Typing, statement: Einsum) -> None:
    """A tuple is stored as a tuple of as many; everything else by promotion or conversion."""
    if isinstance(declared, Tuple) != isinstance(typing.dtype, Tuple) or (
        isinstance(declared, Tuple)
        and isinstance(typing.dtype, Tuple)
        and len(declared.items) != len(typing.dtype.items)
    ):
        raise DTypeError(
            f"{name} is declared {declared}, the expression is {typing.dtype}",
            location=statement.location,
        )
    if not isinstance(declared, Scalar | Tuple):
        promote_typings(Typing(declared), typing)
