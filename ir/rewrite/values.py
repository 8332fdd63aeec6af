"""Constants at compile time: conversion and evaluation with NumPy, in the dtype of the typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir import casting
from einloom.ir.casting import literal_array
from einloom.ir.expressions import Cast, Expression, Literal, Value
from einloom.ir.ops import OPS
from einloom.ir.promotion import (
    Typing,
    compute_dtype,
    numpy_dtype,
    promote_typings,
    value_typing,
)
from einloom.ir.types import BOOL, COMPLEX, DType, Modular, Scalar

Array = NDArray[Any]

# Operations that cost more than this are not correctly rounded: NumPy's last bit is its own.
MOST_EXACT_COST = 16.0


def converted(value: Value, dtype: DType) -> Value | None:
    """A Python value as it is after conversion to `dtype`; None for dtypes without literals."""
    if not isinstance(dtype, Scalar | Modular):
        return None
    return _python_value(literal_array(value, dtype), dtype)


def integer_range(dtype: Scalar) -> tuple[int, int]:
    """Lowest and highest value of an integer dtype."""
    limits = np.iinfo(numpy_dtype(dtype))
    return int(limits.min), int(limits.max)


def fits(value: int, dtype: Scalar) -> bool:
    """Whether an integer dtype holds a number."""
    low, high = integer_range(dtype)
    return low <= value <= high


def constant(value: Value, typing: Typing) -> Expression | None:
    """An expression of exactly this typing with this value; None where there is none.

    A weak typing takes a literal; any other takes a cast of one.
    """
    literal = literal_of(value, typing.dtype)
    if literal is None:
        return None
    if typing.weak:
        return literal if value_typing(literal.value) == typing else None
    return Cast(typing.dtype, literal)


def literal_of(value: Value, dtype: DType) -> Literal | None:
    """A literal of the kind of `dtype` that becomes `value` there; None where there is none."""
    if isinstance(dtype, Modular):
        return Literal(int(value) % dtype.modulus) if isinstance(value, int) else None
    if not isinstance(dtype, Scalar) or (isinstance(value, complex) and dtype.kind != COMPLEX):
        return None
    if dtype.kind == BOOL:
        return Literal(bool(value))
    if dtype.is_integer:
        whole = converted(value, dtype)
        return Literal(whole) if whole == value else None
    return Literal(complex(value) if dtype.kind == COMPLEX else float(value))  # type: ignore[arg-type]


def lowest(dtype: DType) -> Value | None:
    """The identity of max on `dtype`; None where it has no order."""
    return _extreme(dtype, casting.lowest)


def highest(dtype: DType) -> Value | None:
    """The identity of min on `dtype`; None where it has no order."""
    return _extreme(dtype, casting.highest)


def _extreme(dtype: DType, end: Callable[[DType], Array]) -> Value | None:
    if not isinstance(dtype, Scalar) or dtype.kind == COMPLEX:
        return None
    return _python_value(end(dtype), dtype)


def folded(
    op: str, values: list[Value], typings: list[Typing], result: Typing, strict: bool
) -> Value | None:
    """The value of an operation on constants, bit for bit what the interpreter gets.

    None where it is not folded: narrow floats (they are computed in f32), divisions by an integer
    zero and shifts out of range (left to run time), and functions that are not correctly rounded,
    whose last bit differs between libraries, under `strict`.
    """
    entry = OPS[op]
    if entry.rule == "stored" or (strict and entry.cost > MOST_EXACT_COST):
        return None
    joined = typings[0] if op != "select" else typings[1]
    for typing in typings[1:] if op != "select" else typings[2:]:
        joined = promote_typings(joined, typing)
    for dtype in (joined.dtype, result.dtype):
        if not isinstance(dtype, Scalar) or compute_dtype(dtype) != dtype:
            return None
    assert isinstance(joined.dtype, Scalar)
    into = [joined.dtype] * len(values)
    if op == "select":
        into[0] = Scalar("bool")
    given = [converted(value, dtype) for value, dtype in zip(values, into, strict=True)]
    if any(value is None for value in given) or not _defined(op, given, joined.dtype):
        return None
    arrays = [
        literal_array(value, dtype)  # type: ignore[arg-type]
        for value, dtype in zip(given, into, strict=True)
    ]
    return _evaluated(op, arrays, result.dtype)


def _evaluated(op: str, arrays: list[Array], dtype: DType) -> Value | None:
    entry = OPS[op]
    try:
        with np.errstate(all="ignore"):
            if entry.arity is None:
                value = arrays[0]
                for array in arrays[1:]:
                    value = np.asarray(entry.numpy(value, array))
            else:
                value = np.asarray(entry.numpy(*arrays))
    except (ValueError, TypeError):
        return None
    if value.dtype != numpy_dtype(dtype):
        return None
    return _python_value(value, dtype)


def _defined(op: str, values: list[Value | None], dtype: Scalar) -> bool:
    """Whether an integer operation has a value that every machine agrees on."""
    if not dtype.is_integer:
        return True
    last = values[-1]
    if op in ("floordiv", "ceildiv", "mod"):
        return last != 0 and not (last == -1 and values[0] == integer_range(dtype)[0])
    if op in ("shl", "shr"):
        return isinstance(last, int) and 0 <= last < dtype.bits
    return True


def _python_value(array: Array, dtype: DType) -> Value:
    if isinstance(dtype, Modular) or (isinstance(dtype, Scalar) and dtype.is_integer):
        return int(array)
    if isinstance(dtype, Scalar) and dtype.kind == BOOL:
        return bool(array)
    if isinstance(dtype, Scalar) and dtype.kind == COMPLEX:
        return complex(array)
    return float(array)
