"""What an operation of the table does to arrays: conversions first, then its NumPy function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np

from einloom.ir.errors import UnsupportedError
from einloom.ir.interpret import modular
from einloom.ir.interpret.values import Array, Value, array_of, converted, mapped
from einloom.ir.ops import Op
from einloom.ir.promotion import Typing, float_of, op_typing, promote_typings
from einloom.ir.types import (
    BOOL,
    COMPLEX,
    FLOAT,
    DType,
    Modular,
    Scalar,
    Tuple,
    bool_,
    f64,
)

Evaluator = Callable[..., Value]
"""From the values of the arguments to the value of the result."""


def joined_typing(typings: Sequence[Typing]) -> Typing:
    """The typing that all arguments are promoted to."""
    return reduce(promote_typings, typings)


def compares_integers(op: Op, typings: Sequence[Typing]) -> bool:
    """Comparisons of integers are exact: nothing is promoted, so u64 meets i64 unharmed."""
    return op.rule in ("compare", "order") and all(
        isinstance(t.dtype, Scalar) and (t.dtype.is_integer or t.dtype.kind == BOOL)
        for t in typings
    )


def argument_dtype(op: Op, typings: Sequence[Typing]) -> DType | None:
    """The dtype that the arguments are converted to before `op` is applied.

    None: each keeps its own (select, comparisons of integers).
    """
    if op.rule == "select" or compares_integers(op, typings):
        return None
    if op.rule == "logical":
        return bool_
    dtype = joined_typing(typings).dtype
    if op.rule == "divide" and isinstance(dtype, Scalar) and dtype.kind not in (FLOAT, COMPLEX):
        return f64
    if op.rule in ("float", "real-float"):
        return float_of(dtype)
    return dtype


def evaluator(op: Op, typings: Sequence[Typing]) -> Evaluator:
    """The function that applies `op` to values of these typings.

    An n-ary operation is folded two arguments at a time with one and the same evaluator, so
    `typings` are those of all its arguments.
    """
    result = op_typing(op.name, op.rule, list(typings)).dtype
    if op.rule == "select":
        return partial(_select, dtype=joined_typing(typings[1:]).dtype)
    dtype = argument_dtype(op, typings)
    if dtype is None:
        return partial(_compare, op)
    if isinstance(dtype, Modular):
        return partial(_apply_modular, op, dtype, result)
    return partial(_apply, _function(op, dtype), dtype, result)


def _apply(function: Callable[..., Array], dtype: DType, result: DType, *values: Value) -> Value:
    arrays = [array_of(converted(value, dtype)) for value in values]
    return converted(np.asarray(function(*arrays)), result)


def _apply_modular(op: Op, dtype: Modular, result: DType, *values: Value) -> Value:
    function = modular.FUNCTIONS.get(op.name)
    if function is None:
        raise UnsupportedError(f"{op.name} is not built for integers modulo {dtype.modulus}")
    arrays = [array_of(converted(value, dtype)) for value in values]
    return np.asarray(function(dtype.modulus, *arrays))


def _compare(op: Op, *values: Value) -> Value:
    return np.asarray(op.numpy(*(array_of(value) for value in values)))


def _select(condition: Value, left: Value, right: Value, dtype: DType) -> Value:
    chosen = array_of(converted(condition, bool_))
    if isinstance(dtype, Tuple):
        both = converted(left, dtype), converted(right, dtype)
        return mapped(lambda a, b: np.asarray(np.where(chosen, a, b)), *both)
    return np.where(chosen, array_of(converted(left, dtype)), array_of(converted(right, dtype)))


def _function(op: Op, dtype: DType) -> Callable[..., Array]:
    """The NumPy function, or our own where NumPy's raises or changes the kind."""
    integer = isinstance(dtype, Scalar) and (dtype.is_integer or dtype.kind == BOOL)
    if integer and op.rule == "rounding":
        return np.asarray
    if integer and op.name in _INTEGER:
        return _INTEGER[op.name]
    return op.numpy


def _integer_power(base: Array, exponent: Array) -> Array:
    """Negative exponents give the quotient rounded towards zero, and 0 for a zero base."""
    negative = exponent < 0
    power = np.power(base, np.where(negative, 0, exponent))
    one = np.ones_like(power)
    odd = np.where(exponent % 2 != 0, base, one)
    return np.where(negative, np.where(base == one, one, np.where(base == -one, odd, 0)), power)


def _integer_ceildiv(a: Array, b: Array) -> Array:
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + (np.remainder(a, b) != 0).astype(quotient.dtype))


_INTEGER: dict[str, Callable[..., Array]] = {
    "pow": _integer_power,
    "ceildiv": _integer_ceildiv,
}
